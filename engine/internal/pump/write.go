package pump

import (
	"github.com/tprelay/tprelay/internal/sock"
	"github.com/tprelay/tprelay/splice"
)

// flush offers pending bytes to the sink. False: the turn is over.
func (d *Pump) flush(t *turn) bool {
	ok := false
	if d.inPipe() {
		ok = d.flushPipe(t)
	} else {
		ok = d.flushQueue(t)
	}
	if ok && d.Pending == 0 {
		d.Release(t.Env)
	}
	return ok
}

func (d *Pump) flushPipe(t *turn) bool {
	n, st, err := d.pipe(t.Env).Drain(t.Sink)
	t.Count.Splices++
	if n > 0 {
		d.noteFlushed(t, n)
	}
	switch st {
	case splice.Full:
		d.cannotWrite()
		t.Count.SinkFull++
	case splice.Refused:
		// What is in the pipe moves to a queue, and the pump stays on queues. The sink takes
		// bytes, and its event has come: no other will.
		t.Count.SpliceRefused++
		if err := d.EmptyPipe(t.Env); err != nil {
			return t.sinkFailed(err)
		}
		d.RefusesSplice()
		return d.flushQueue(t)
	case splice.Failed:
		return t.sinkFailed(err)
	}
	return true
}

func (d *Pump) flushQueue(t *turn) bool {
	for {
		before := t.Queues.Size(d.queue())
		vector, size := t.Queues.Gather(d.queue())
		n, err := sock.SendVector(t.Sink, vector)
		n, err = d.noteWrite(t, n, size, err)
		if err != nil {
			return t.sinkFailed(err)
		}
		if n > 0 {
			t.Queues.Consume(d.queue(), n)
			t.Budget.Used += int64(t.Queues.Size(d.queue()) - before)
			d.noteFlushed(t, n)
		}
		if d.Pending == 0 || !d.Is(Writable) {
			return true
		}
	}
}

// deliver hands data to the sink, behind what is pending, and keeps what the sink does not take.
// False: the turn is over.
func (d *Pump) deliver(t *turn, data []byte) bool {
	if d.Pending == 0 && d.Is(Writable) && len(data) > 0 {
		// This turn passes the FIN on, if the sink takes what comes before it: then both go in
		// one segment.
		n, err := d.write(t, data, d.Is(EOF) && !d.Is(Broken))
		if err != nil {
			return t.sinkFailed(err)
		}
		if n > 0 {
			d.noteDelivered(t, n)
		}
		data = data[n:]
	}
	d.Keep(t.Env, data)
	return true
}

// write sends what the socket takes. For the results see noteWrite. More: keep a last segment
// that is not full for what follows.
func (d *Pump) write(t *turn, data []byte, more bool) (int, error) {
	n, err := sock.Send(t.Sink, data, more)
	return d.noteWrite(t, n, len(data), err)
}

package twin

import (
	"errors"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// view is what an end did and what it was told.
type view struct {
	Sent     int64  // bytes that its writes were told to be accepted
	Received int64  // bytes that it read, each compared with the one that was sent
	Wrong    string // what was not as sent
	Heard    string // how its reading ended: FIN, RST, the errno; nothing: it ended that itself
	Told     string // RST or the errno of a write that failed, if one did
	Finished bool   // it sent a FIN by shutdown(2) or close(2)
	Over     string // how it ended the connection: FIN, RST; or it was gone already
	Acked    int64  // bytes that its kernel knew to be acknowledged then
	FINAcked bool   // and so was its FIN
	Hung     string // the call in which it was at the end of its patience
	Served   bool   // there was a connection
	Cut      bool   // its writer closed the connection before its reader was through

	// When it last sent something, sent its FIN, and ended the connection, since this was opened.
	SentAt, FinishedAt, OverAt time.Duration

	// For how long its calls waited in all, and the longest of them.
	ReadWait, WriteWait, Longest time.Duration

	Overslept time.Duration // by how much one of its pauses was too long, at most
}

// How an end heard of the stream's end, or made it.
const (
	FIN  = "FIN"
	RST  = "RST"
	gone = "gone" // its kernel had no connection any more
)

// end is one end of a connection.
type end struct {
	view
	part  part
	sock  *socket
	out   content
	in    checker
	began time.Time
	limit time.Time // patience ends

	mu      sync.Mutex // held around each call that moves bytes, and while the end closes
	closed  chan struct{}
	arrived *sync.Cond // bytes, or the end of them
	deaf    bool       // the reader has ended
}

func newEnd(p part, sock *socket, out, in content, handled bool, began, limit time.Time) *end {
	e := &end{part: p, sock: sock, out: out, in: checker{want: in, handled: handled}, began: began, limit: limit, closed: make(chan struct{})}
	e.Served = true
	e.arrived = sync.NewCond(&e.mu)
	sock.file.SetDeadline(limit)
	return e
}

// run does what the part says, and closes.
func (e *end) run() {
	var wg sync.WaitGroup
	wg.Go(func() {
		for _, s := range e.part.Write {
			if !e.write(s) {
				return
			}
		}
	})
	wg.Go(func() {
		for _, s := range e.part.Read {
			if !e.read(s) {
				break
			}
		}
		e.mu.Lock()
		e.deaf = true
		e.arrived.Broadcast()
		e.mu.Unlock()
	})
	wg.Wait()
	e.quit(false)
}

// finish notes that a FIN is sent.
func (e *end) finish() {
	if !e.Finished {
		e.Finished, e.FinishedAt = true, time.Since(e.began)
	}
}

// write does a step of the writer, and reports whether it may go on.
func (e *end) write(s step) bool {
	switch s.verb {
	case send:
		return e.send(s.n, 0)
	case urgent:
		return e.send(1, unix.MSG_OOB)
	case wait:
		return e.pause(s.wait)
	case await:
		e.mu.Lock()
		defer e.mu.Unlock()
		for e.Received < s.n && !e.deaf {
			e.arrived.Wait()
		}
		return e.Received >= s.n
	case fin:
		e.mu.Lock()
		defer e.mu.Unlock()
		if e.Over == "" && e.Told == "" {
			e.finish()
			e.sock.control(func(fd int) { _ = unix.Shutdown(fd, unix.SHUT_WR) })
		}
		return true
	}
	e.mu.Lock()
	e.Cut = e.Over == "" && !e.deaf
	e.mu.Unlock()
	e.quit(s.verb == resets)
	return false
}

// read does a step of the reader, and reports whether it may go on.
func (e *end) read(s step) bool {
	switch s.verb {
	case read:
		return e.receive(s.n, s.rate)
	case drain:
		return e.receive(1<<62, s.rate)
	case wait:
		return e.pause(s.wait)
	case shutrd:
		e.sock.control(func(fd int) { _ = unix.Shutdown(fd, unix.SHUT_RD) })
		return false
	}
	e.quit(s.verb == resets)
	return false
}

func (e *end) pause(d time.Duration) bool {
	began := time.Now()
	select {
	case <-e.closed:
		return false
	case <-time.After(d):
		e.mu.Lock()
		defer e.mu.Unlock()
		e.Overslept = max(e.Overslept, time.Since(began)-max(d, 0))
		return true
	}
}

// call waits until f has done something, and counts the time. It reports whether that was so before
// the end of patience, or the end's own close.
func (e *end) call(name string, by func(func(fd uintptr) bool) error, waited *time.Duration, f func(fd int) (again bool)) bool {
	began := time.Now()
	err := by(func(fd uintptr) bool {
		e.mu.Lock()
		defer e.mu.Unlock()
		return e.Over != "" || !f(int(fd))
	})
	took := time.Since(began)
	*waited += took
	e.mu.Lock()
	defer e.mu.Unlock()
	e.Longest = max(e.Longest, took)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		e.Hung = name
	}
	return err == nil && e.Over == ""
}

func (e *end) send(n int64, flags int) bool {
	for n > 0 {
		var err error
		if !e.call("write", e.sock.raw.Write, &e.WriteWait, func(fd int) (again bool) {
			var k int
			k, err = unix.SendmsgN(fd, e.out.at(e.Sent, min(n, 256<<10), false), nil, nil, flags|unix.MSG_NOSIGNAL)
			if err == unix.EAGAIN {
				return true
			}
			if err == nil {
				e.Sent += int64(k)
				e.SentAt = time.Since(e.began)
				n -= int64(k)
			} else if err != unix.EINTR {
				e.toldBy(err)
			}
			return false
		}) {
			return false
		}
		if err != nil && err != unix.EINTR {
			return false
		}
	}
	return true
}

// toldBy notes the first error that a writer is told.
func (e *end) toldBy(err error) {
	switch {
	case e.Told != "":
	case err == unix.ECONNRESET:
		e.Told = RST
	default:
		e.Told = errnoName(err)
	}
}

func (e *end) receive(n, rate int64) bool {
	buf := make([]byte, 32<<10)
	next := time.Now()
	for n > 0 {
		most := min(n, int64(len(buf)))
		if rate > 0 {
			most = min(most, max(rate/20, 1))
		}
		var k int
		var err error
		if !e.call("read", e.sock.raw.Read, &e.ReadWait, func(fd int) (again bool) {
			k, err = unix.Read(fd, buf[:most])
			switch {
			case err == unix.EAGAIN:
				return true
			case err == unix.EINTR:
			case err != nil:
				e.Heard = errnoName(err)
				if err == unix.ECONNRESET || err == unix.EPIPE {
					e.Heard = RST
				}
			case k == 0 && e.Told == RST:
				e.Heard = RST // the socket has told the writer, and tells it once
			case k == 0:
				e.Heard = FIN
			default:
				if wrong := e.in.take(buf[:k]); wrong != nil && e.Wrong == "" {
					e.Wrong = wrong.Error()
				}
				e.Received += int64(k)
				e.arrived.Broadcast()
			}
			return false
		}) {
			return false
		}
		if e.Heard != "" {
			return false
		}
		n -= int64(k)
		if rate > 0 && n > 0 {
			// What was missed waiting for bytes is not made up for.
			next = next.Add(time.Duration(k) * time.Second / time.Duration(rate))
			if late := time.Now().Add(-100 * time.Millisecond); next.Before(late) {
				next = late
			}
			if !e.pause(time.Until(next)) {
				return false
			}
		}
	}
	return true
}

// quit closes the connection, with an RST if it is to be.
func (e *end) quit(abort bool) {
	e.mu.Lock()
	if e.Over != "" {
		e.mu.Unlock()
		return
	}
	unread, left := e.sock.queue(unix.SIOCINQ), e.sock.queue(unix.SIOCOUTQ)
	state := e.sock.state()
	e.Acked = min(e.Sent, e.Sent+1-left)
	if !e.Finished {
		e.Acked = e.Sent - left
	}
	e.FINAcked = e.Finished && left == 0
	switch {
	case state == tcpClose:
		e.Over = gone
	case unread > 0, abort && (state == established || state == closeWait || state == finWait1 || state == finWait2):
		e.Over = RST
	default:
		e.Over = FIN
		e.finish()
	}
	e.OverAt = time.Since(e.began)
	if abort {
		e.sock.control(func(fd int) {
			_ = unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
		})
	}
	close(e.closed)
	e.arrived.Broadcast()
	e.mu.Unlock()
	e.sock.file.Close()
}

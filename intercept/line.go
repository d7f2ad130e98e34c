package intercept

import "github.com/valyala/bytebufferpool"

// line is one direction of a chain: the stages that its bytes go through.
//
//	chunk --> stage 0 --> stage 1 --> ... --> chunk
//	          + held      + held
//
// Where no stage writes or holds, the bytes go through in place. What stages
// write is gathered in two work chunks, in turns, for the output of one stage is
// the input of the next. Their memory, and that of held bytes, is borrowed: an
// idle pair keeps only what is held back.
type line struct {
	pool   *bytebufferpool.Pool
	stages []stage
	end    *closing

	work [2]Chunk
	lent [2]*bytebufferpool.ByteBuffer // memory of work; nil between calls
}

type stage struct {
	handler Handler
	held    *bytebufferpool.ByteBuffer // what comes again; nil if nothing
	gone    bool                       // it has detached
}

func (l *line) add(h Handler) {
	if h != nil {
		l.stages = append(l.stages, stage{handler: h})
	}
}

// Handle takes the chunk through all stages. It never says Hold: what is held
// back belongs to a stage in the middle.
func (l *line) Handle(c *Chunk) Verdict {
	var (
		data   = c.Data
		end    = c.End
		closed = false // a stage said Close
		ours   = false // data is in a work chunk
		turn   = 0     // the work chunk that data is not in
		live   = 0     // stages that have not detached
	)
	defer l.release()
	for i := range l.stages {
		s := &l.stages[i]
		if s.gone {
			continue
		}
		live++
		if len(data) == 0 && !end {
			continue
		}
		w := l.borrow(turn)
		w.Reset(s.join(data), end)
		w.Cut = c.Cut
		verdict := s.handler.Handle(w)
		if verdict == Hold && end {
			verdict = Forward
		}
		switch verdict {
		case Forward:
		case Hold:
			if len(w.Data) > MaxHold {
				return Reset
			}
			s.hold(l.pool, w.Data)
			w.Data = nil
		case Detach:
			s.gone = true
			live--
		case Close:
			closed, end = true, true
		default:
			return Reset
		}
		if verdict != Hold && s.held != nil {
			// Data may lie in what was held, which is given back now.
			w.Write(w.Data)
			w.Data = nil
			s.drop(l.pool)
		}
		data = w.Data
		if len(w.out) > 0 {
			w.Write(w.Data)
			data, ours, turn = w.out, true, turn^1
		}
	}
	if ours {
		c.Write(data)
		data = nil
	}
	c.Data = data
	switch {
	case closed:
		return Close
	case live == 0:
		return Detach
	}
	return Forward
}

// Close gives back what is held, and closes the handlers of the whole chain.
func (l *line) Close() error {
	for i := range l.stages {
		l.stages[i].drop(l.pool)
	}
	return l.end.close()
}

// borrow gives work chunk i memory if it has none.
func (l *line) borrow(i int) *Chunk {
	w := &l.work[i]
	if l.lent[i] == nil {
		l.lent[i] = l.pool.Get()
		w.out = l.lent[i].B
	}
	return w
}

// release takes the memory of the work chunks away from them.
func (l *line) release() {
	for i := range l.work {
		if l.lent[i] == nil {
			continue
		}
		l.lent[i].B = l.work[i].out
		put(l.pool, l.lent[i])
		l.work[i], l.lent[i] = Chunk{}, nil
	}
}

// join is what the stage sees: what it held back, and data behind it.
func (s *stage) join(data []byte) []byte {
	if s.held == nil {
		return data
	}
	s.held.B = append(s.held.B, data...)
	return s.held.B
}

// hold keeps data, which may be part of what join gave.
func (s *stage) hold(pool *bytebufferpool.Pool, data []byte) {
	if len(data) == 0 {
		s.drop(pool)
		return
	}
	if s.held == nil {
		s.held = pool.Get()
	}
	s.held.B = append(s.held.B[:0], data...)
}

// drop gives back the memory of what was held, if any.
func (s *stage) drop(pool *bytebufferpool.Pool) {
	if s.held != nil {
		put(pool, s.held)
		s.held = nil
	}
}

// put returns b to the pool. The pool learns from the lengths that it sees which
// buffers are worth keeping, so it is shown what b can hold, not what it holds
// now.
func put(pool *bytebufferpool.Pool, b *bytebufferpool.ByteBuffer) {
	b.B = b.B[:cap(b.B)]
	pool.Put(b)
}

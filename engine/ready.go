package engine

// reference names a pair that may have ended since.
type reference struct{ slot, generation int32 }

// ref names p.
func (p *pair) ref() reference { return reference{p.slot, p.generation} }

// queue puts p on the ready list, once.
func (l *loop) queue(p *pair) {
	if !p.queued {
		p.queued = true
		l.ready = append(l.ready, p.ref())
	}
}

// find is the pair that r names, or nil if it has ended.
func (l *loop) find(r reference) *pair {
	p := l.pairs.at(r.slot)
	if p.generation != r.generation || p.state == stateFree {
		return nil
	}
	return p
}

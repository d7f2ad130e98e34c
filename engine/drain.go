package engine

// How a loop ends. There are two ways: it drains, which is to take no new connections and to wait
// for its pairs until the deadline, or it is aborted. Either way run then resets what is left, and
// gives back what the loop holds.

// drain begins an orderly end.
func (l *loop) drain() {
	if l.draining {
		return
	}
	l.engine.draining.Store(true)
	l.closeListeners()
	l.draining = true
	l.deadline = l.now.Add(max(l.engine.options.DrainTimeout, 0))
	l.endLate()
}

// endLate ends the pairs that are still there at the deadline of draining.
func (l *loop) endLate() {
	if l.draining && !l.now.Before(l.deadline) {
		l.endAll(ReasonDrained)
	}
}

// abort ends the loop at once.
func (l *loop) abort() { l.aborted = true }

// finished: the loop was told to end, and no pair is left to wait for.
func (l *loop) finished() bool {
	return l.aborted || l.draining && l.pairs.used == 0 && len(l.listeners) == 0
}

// endAll ends every pair.
func (l *loop) endAll(reason Reason) {
	for slot := range l.pairs.size() {
		if p := l.pairs.at(slot); p.state != stateFree {
			l.end(p, reason, nil)
		}
	}
}

// endEverything ends what the loop serves. A callback that calls runtime.Goexit may break it off
// anywhere; cleanUp calls it again then.
func (l *loop) endEverything() {
	l.clock()
	l.over = true
	l.endAll(ReasonDrained)
	l.discardListeners()
	l.mailbox.close()
	l.mailbox.empty(l) // also what Adopt has posted: its connections are reset
	l.endAll(ReasonDrained)
}

// cleanUp gives back what the loop holds when it ends. It calls no callbacks, as it also runs when
// one has called runtime.Goexit: another Goexit would break it off.
func (l *loop) cleanUp() {
	l.gone = true
	l.endEverything()
	l.env.Pipes.Close()
	l.env.LargePipes.Close()
	l.publish()
	l.poller.Close()
}

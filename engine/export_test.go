package engine

import "github.com/tprelay/tprelay/engine/internal/pump"

// RaceEnabled: these tests run with the race detector, whose shadow memory counts as
// theirs.
const RaceEnabled = raceEnabled

// Moderate moderates every direction that may be, as if all had proven to be bulk, which
// takes a gigabit per second, and not every machine has that for tests.
func (e *Engine) Moderate() {
	for _, l := range e.loops {
		l.ask(func(l *loop) {
			l.clock()
			for slot := range l.pairs.size() {
				for s := range side(2) {
					if p := l.pairs.at(slot); p.state == stateOpen && !p.dir[s].Is(pump.Moderated|pump.Throttled|pump.EOF) {
						l.beginModeration(p, s)
					}
				}
			}
		})
	}
}

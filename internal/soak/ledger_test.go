package soak

import (
	"fmt"
	"sync"
	"time"
)

// reach is what a fault may do to a stream while it lasts.
type reach int

const (
	cutsNothing  reach = iota
	cutsUnopened       // a client that is connecting may be refused
	cutsAll
)

// afterwards is for how long a fault is felt when it is over.
const afterwards = time.Second

// incident is one fault that was injected.
type incident struct {
	kind     string
	reach    reach
	from, to time.Time // to is zero while it lasts
}

func (i incident) String() string {
	to := "now"
	if !i.to.IsZero() {
		to = i.to.Format("05.000")
	}
	return fmt.Sprintf("%s (%s to %s)", i.kind, i.from.Format("15:04:05.000"), to)
}

// ledger knows which faults there were, and when.
type ledger struct {
	mu        sync.Mutex
	incidents []*incident
	counts    map[string]int
}

// begin notes that a fault begins. A fault of kind "" is no fault but has a reach.
func (l *ledger) begin(kind string, r reach) *incident {
	l.mu.Lock()
	defer l.mu.Unlock()
	i := &incident{kind: kind, reach: r, from: time.Now()}
	l.incidents = append(l.incidents, i)
	if l.counts == nil {
		l.counts = map[string]int{}
	}
	l.counts[kind]++
	return i
}

// end notes that it is over.
func (l *ledger) end(i *incident) {
	l.mu.Lock()
	defer l.mu.Unlock()
	i.to = time.Now()
}

// during are the faults since from.
func (l *ledger) during(from time.Time) (found []incident) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, i := range l.incidents {
		if i.to.IsZero() || i.to.Add(afterwards).After(from) {
			found = append(found, *i)
		}
	}
	return found
}

// excuse gives a fault that may have cut a stream which began at from and ends now.
func (l *ledger) excuse(from time.Time, opened bool) (kind string, ok bool) {
	need := cutsUnopened
	if opened {
		need = cutsAll
	}
	for _, i := range l.during(from) {
		if i.reach >= need {
			return i.kind, true
		}
	}
	return "", false
}

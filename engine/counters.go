package engine

import (
	"reflect"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/tprelay/tprelay/engine/internal/pump"
	"github.com/tprelay/tprelay/tproxy"
)

// errnos is room for every errno of Linux (the last is 133, EHWPOISON).
const errnos = 134

// counters are a loop's own numbers, which only the loop writes. It copies them to where Stats can
// read them before every wait. Those that are single numbers have the names of their fields in
// Stats; unsigned ones count, and signed ones are gauges.
type counters struct {
	pump.Counters
	accepted, adopted, opened, takenOver uint64
	throttles, moderations               uint64
	waits, events, staleEvents           uint64
	acceptErrors, acceptPauses           uint64
	pipeMisses                           uint64

	active, memory, kernelMemory   int64
	pipesInUse, pipesIdle, buffers int64

	ended     [reasons]uint64
	levels    [tproxy.LevelFull + 1]uint64
	delivered [2][2]uint64 // by direction; splice, buffer
}

// add adds c to s.
func (c *counters) add(s *Stats) {
	addNumbers(reflect.ValueOf(s).Elem(), reflect.ValueOf(*c))
	for r, n := range c.ended {
		if n > 0 {
			s.Ended[Reason(r)] += n
		}
	}
	s.HandedOver += c.ended[ReasonHandedOver]
	for level, n := range c.levels {
		if n > 0 {
			s.SpoofLevels[tproxy.SpoofLevel(level)] += n
		}
	}
	s.UpstreamSplice += c.delivered[upstream][0]
	s.UpstreamBuffer += c.delivered[upstream][1]
	s.DownstreamSplice += c.delivered[downstream][0]
	s.DownstreamBuffer += c.delivered[downstream][1]
}

// addNumbers adds each number of structure c to the field of s that has its name, which begins with
// a capital letter there.
func addNumbers(s, c reflect.Value) {
	for i := range c.NumField() {
		n, name := c.Field(i), c.Type().Field(i).Name
		field := func() reflect.Value { return s.FieldByName(strings.ToUpper(name[:1]) + name[1:]) }
		switch n.Kind() {
		case reflect.Struct:
			addNumbers(s, n)
		case reflect.Uint64:
			field().SetUint(field().Uint() + n.Uint())
		case reflect.Int64:
			field().SetInt(field().Int() + n.Int())
		}
	}
}

func errnoName(e unix.Errno) string {
	if name := unix.ErrnoName(e); name != "" {
		return name
	}
	return e.Error()
}

// publish makes the loop's numbers visible to Stats.
func (l *loop) publish() {
	c := &l.count
	c.active = int64(l.pairs.used)
	c.memory = l.env.Budget.Used
	c.pipesIdle = int64(l.env.Pipes.Idle() + l.env.LargePipes.Idle())
	c.pipesInUse = int64(l.env.Pipes.Open()+l.env.LargePipes.Open()) - c.pipesIdle
	c.pipeMisses = l.env.Pipes.Misses()
	c.buffers = int64(l.env.Queues.InUse())
	l.env.Budget.Settle()
	l.mu.Lock()
	l.published = *c
	l.mu.Unlock()
}

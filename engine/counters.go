package engine

import (
	"golang.org/x/sys/unix"

	"github.com/tprelay/tprelay/engine/internal/pump"
	"github.com/tprelay/tprelay/tproxy"
)

// errnos is room for every errno of Linux (the last is 133, EHWPOISON).
const errnos = 134

// counters are a loop's own, plain numbers: only the loop writes them. It
// copies them to where Stats can read them before every wait.
type counters struct {
	pump.Counters
	accepted, adopted, opened  uint64
	takenOver                  uint64
	ended                      [reasons]uint64
	levels                     [tproxy.LevelFull + 1]uint64
	delivered                  [2][2]uint64 // by direction; splice, buffer
	throttles, moderations     uint64
	waits, events, stale       uint64
	acceptErrors, acceptPauses uint64

	// Gauges.
	active, memory        int64
	kernelMemory          int64
	pipesInUse, pipesIdle int64
	pipeMisses            uint64
	buffers               int64
}

// add sums c into s.
func (c *counters) add(s *Stats) {
	s.Accepted += c.accepted
	s.Adopted += c.adopted
	s.HandedOver += c.ended[ReasonHandedOver]
	s.TakenOver += c.takenOver
	s.Active += c.active
	s.Opened += c.opened
	for r, n := range c.ended {
		if n > 0 {
			s.Ended[Reason(r)] += n
		}
	}
	for level, n := range c.levels {
		if n > 0 {
			s.SpoofLevels[tproxy.SpoofLevel(level)] += n
		}
	}
	s.UpstreamSplice += c.delivered[upstream][0]
	s.UpstreamBuffer += c.delivered[upstream][1]
	s.DownstreamSplice += c.delivered[downstream][0]
	s.DownstreamBuffer += c.delivered[downstream][1]
	s.Pending += c.Pending
	s.Memory += c.memory
	s.KernelMemory += c.kernelMemory
	s.Pauses += c.Pauses
	s.Starved += c.Starved
	s.Throttles += c.throttles
	s.Moderations += c.moderations
	s.PipesInUse += c.pipesInUse
	s.PipesIdle += c.pipesIdle
	s.PipeMisses += c.pipeMisses
	s.Buffers += c.buffers
	s.Waits += c.waits
	s.Events += c.events
	s.StaleEvents += c.stale
	s.Splices += c.Splices
	s.SourceEmpty += c.SourceEmpty
	s.PipeFull += c.PipeFull
	s.SinkFull += c.SinkFull
	s.SpliceRefused += c.Refused
	s.AcceptErrors += c.acceptErrors
	s.AcceptPauses += c.acceptPauses
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

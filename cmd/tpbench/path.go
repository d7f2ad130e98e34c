package main

import (
	"time"

	"github.com/tprelay/tprelay/bench/bottleneck"
	"github.com/tprelay/tprelay/bench/units"
	"github.com/tprelay/tprelay/internal/cli"
)

// defaultDelay of each link, one way, where the kernel has netem.
const defaultDelay = 10 * time.Millisecond

// pathFlags are the flags of the way from h1 to h3.
type pathFlags struct {
	Access     units.Rate     `default:"20mbit" help:"Rate of the link h1-h2, before the relay."`
	Bottleneck units.Rate     `default:"6mbit" help:"Rate of the link h2-h3, behind it."`
	Queue      time.Duration  `default:"100ms" help:"Queue before each link, as the time that a full queue takes to pass; at least ten packets."`
	Attach     []int          `placeholder:"PID,PID,PID" help:"Measure on three existing hosts, such as Mininet's: the network namespaces of these processes. The flags for the links then describe them and change nothing. Needs root."`
	Note       []string       `hidden:"" sep:"none" help:"What else there is to say about the hosts, beside the figures."`
	Delay      *time.Duration `placeholder:"10ms" help:"Delay of each link, one way. Default: 10ms if the kernel has netem, otherwise none. If it is given and the kernel has no netem, tpbench delays packets itself, which costs CPU time, most of all at high rates."`
}

func (p *pathFlags) check() error {
	switch {
	case len(p.Attach) != 0 && len(p.Attach) != 3:
		return cli.Usagef("--attach: want three process ids, of h1, h2 and h3")
	case p.Queue <= 0 || p.Queue > 10*time.Second:
		return cli.Usagef("--queue %v: must be more than 0 and at most 10s", p.Queue)
	case p.Delay != nil && (*p.Delay < 0 || *p.Delay > 10*time.Second):
		return cli.Usagef("--delay %v: must be between 0 and 10s", *p.Delay)
	}
	return nil
}

func (p *pathFlags) path() bottleneck.Path {
	path := bottleneck.Path{Access: uint64(p.Access), Bottleneck: uint64(p.Bottleneck), Queue: p.Queue, Delay: defaultDelay, NetemOnly: true, Attach: p.Attach}
	if p.Delay != nil {
		path.Delay, path.NetemOnly = *p.Delay, false
	}
	return path
}

// checkSeconds refuses lengths of a run that say nothing.
func checkSeconds(seconds int) error {
	if seconds < 3 || seconds > 600 {
		return cli.Usagef("--seconds %d: must be between 3 and 600", seconds)
	}
	return nil
}

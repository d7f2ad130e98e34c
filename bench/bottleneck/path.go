package bottleneck

import (
	"errors"
	"time"

	"github.com/tprelay/tprelay/internal/netlab"
)

// Path is the way from h1 to h3.
type Path struct {
	Access     uint64        // rate of the link h1-h2, in bit/s
	Bottleneck uint64        // rate of the link h2-h3, in bit/s
	Queue      time.Duration // before each link, as the time that it takes to pass; at least ten packets
	Delay      time.Duration // of each link, one way
	NetemOnly  bool          // do not delay in this process if the kernel cannot
	// Attach, if not nil, has the process ids of three hosts that exist already, as
	// netlab.Attach takes them. All else then says what they are, and changes nothing.
	Attach []int

	// Note is what has to be said about the delay, once Lab was called, or "".
	Note string
}

// Notes about the delay where the kernel has no netem.
const (
	noDelay   = "no delay: this kernel has no netem"
	mayDelay  = noDelay + "; with --delay tpbench delays by itself"
	ownDelay  = "tpbench delays by itself, as this kernel has no netem: the CPU time that takes is missing elsewhere"
	cantDelay = noDelay + ", and /dev/net/tun cannot be opened"
)

// Lab makes the hosts. If packets cannot be delayed, it sets Delay to 0.
func (p *Path) Lab() (*netlab.Lab, error) {
	if len(p.Attach) == 3 {
		return netlab.Attach(p.Attach[0], p.Attach[1], p.Attach[2])
	}
	lab, err := p.lab()
	if errors.Is(err, netlab.ErrNoNetem) {
		p.Delay, p.Note = 0, cantDelay
		if p.NetemOnly {
			p.Note = mayDelay
		}
		lab, err = p.lab()
	}
	if err != nil {
		return nil, err
	}
	if _, line := lab.H1.LineStats(netlab.Edge); line {
		p.Note = ownDelay
	}
	return lab, nil
}

func (p *Path) lab() (*netlab.Lab, error) {
	link := func(rate uint64) netlab.Link {
		const tenPackets = 10 * 1514
		queue := float64(rate) / 8 * p.Queue.Seconds()
		return netlab.Link{Rate: rate, Delay: p.Delay, Queue: int(min(max(queue, tenPackets), 1<<30))}
	}
	return netlab.New(netlab.Config{Access: link(p.Access), Bottleneck: link(p.Bottleneck), NetemOnly: p.NetemOnly})
}

// Goodput is the most that TCP can deliver of a link's rate: the payload of full packets with
// timestamps.
func Goodput(rate float64) float64 { return rate * 1448 / 1514 }

package flow

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
}

// NoDelay is what is said where there is none though it was asked for.
const NoDelay = "no delay: this kernel has no netem"

// Lab makes the hosts. Where the kernel cannot delay packets, there is no delay: Delay
// is 0 afterwards.
func (p *Path) Lab() (*netlab.Lab, error) {
	lab, err := p.lab()
	if errors.Is(err, netlab.ErrNoNetem) {
		p.Delay = 0
		lab, err = p.lab()
	}
	return lab, err
}

func (p *Path) lab() (*netlab.Lab, error) {
	link := func(rate uint64) netlab.Link {
		const tenPackets = 10 * 1514
		queue := float64(rate) / 8 * p.Queue.Seconds()
		return netlab.Link{Rate: rate, Delay: p.Delay, Queue: int(min(max(queue, tenPackets), 1<<30))}
	}
	return netlab.New(netlab.Config{Access: link(p.Access), Bottleneck: link(p.Bottleneck)})
}

// Goodput is what TCP delivers of a link's rate at most: the payload of full packets,
// with timestamps, without headers.
func Goodput(rate float64) float64 { return rate * 1448 / 1514 }

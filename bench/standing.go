package bench

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/tprelay/tprelay/bench/worker"
	"github.com/tprelay/tprelay/internal/netlab"
	"github.com/tprelay/tprelay/internal/procstat"
)

// holding is what the relay's processes hold.
type holding struct {
	resident    int64 // bytes
	descriptors int
}

func (b *bed) holding() (h holding, err error) {
	for _, pid := range b.relay.PIDs() {
		memory, err := procstat.Resident(pid)
		if err != nil {
			return h, err
		}
		open, err := procstat.Descriptors(pid)
		if err != nil {
			return h, err
		}
		h.resident, h.descriptors = h.resident+memory, h.descriptors+open
	}
	return h, nil
}

// warmUp makes one connection per server through the relay, asks, and closes it: what
// a relay gets at its first connection is not what a pair costs.
func (b *bed) warmUp(ctx context.Context) error {
	for i := range b.servers {
		at, err := b.clientTarget(i)
		if err != nil {
			return err
		}
		if err := b.once(ctx, at); err != nil {
			return err
		}
	}
	return nil
}

// once has one connection for a moment.
func (b *bed) once(ctx context.Context, at netip.AddrPort) error {
	w, err := worker.Start(ctx, b.lab.H1, b.driver.Self, worker.Job{Kind: worker.Idle, Address: at, Connections: 1, Request: requestSize})
	if err != nil {
		return err
	}
	defer w.Stop()
	from := time.Now().Add(lead)
	if err := w.Measure(worker.Window{From: from, To: from.Add(lead)}); err != nil {
		return err
	}
	r, err := w.Result()
	if err == nil && r.Errors > 0 {
		err = fmt.Errorf("the first connection: %s", r.Error)
	}
	return err
}

// idle holds pairs, and looks at what the relay holds for them.
func (b *bed) idle(ctx context.Context, figures map[string]float64) error {
	return b.stand(ctx, figures, func() error {
		_, err := b.client(ctx, worker.Job{Kind: worker.Idle, Connections: b.step.Point.Connections})
		return err
	})
}

// many holds pairs in several processes: as many servers, each at an address of its
// own, and as many clients, none of which is out of ports or descriptors.
func (b *bed) many(ctx context.Context, figures map[string]float64) error {
	return b.stand(ctx, figures, func() error {
		for i := range b.servers {
			at, err := b.clientTarget(i)
			if err != nil {
				return err
			}
			if _, err := b.client(ctx, worker.Job{Kind: worker.Idle, Address: at, Connections: b.step.Point.Connections / len(b.servers)}); err != nil {
				return err
			}
		}
		return nil
	})
}

// stand measures what the connections cost that connect makes.
func (b *bed) stand(ctx context.Context, figures map[string]float64, connect func() error) error {
	if err := b.warmUp(ctx); err != nil {
		return err
	}
	before, err := b.holding()
	if err != nil {
		return err
	}
	if err := connect(); err != nil {
		return err
	}
	// The warm-up is the time to come to rest in; the workers find out afterwards
	// whether their connections still live.
	if err := sleepUntil(ctx, time.Now().Add(b.plan.WarmUp)); err != nil {
		return err
	}
	after, err := b.holding()
	if err != nil {
		return err
	}
	m, err := b.count(ctx, lead, lead)
	if err != nil {
		return err
	}
	var pairs uint64
	for _, r := range m.clients {
		pairs += r.Connections
	}
	if pairs == 0 {
		return b.nothing(m, "no connection stood")
	}
	b.others, b.stolen = 0, 0 // whoever was busy meanwhile took nothing from the figures
	n, _ := m.errors()
	figures[errorCount] = float64(n)
	if len(b.relay.PIDs()) > 0 {
		figures[resident] = float64(after.resident-before.resident) / float64(pairs)
		figures[descriptors] = float64(after.descriptors-before.descriptors) / float64(pairs)
	}
	return nil
}

// slow has a reader that takes little of what the sender would send.
func (b *bed) slow(ctx context.Context, figures map[string]float64) error {
	if err := b.warmUp(ctx); err != nil {
		return err
	}
	before, err := b.holding()
	if err != nil {
		return err
	}
	if _, err := b.client(ctx, worker.Job{Kind: worker.Slow, Connections: b.step.Point.Connections, Pace: slowPace}); err != nil {
		return err
	}
	m, err := b.window(ctx)
	if err != nil {
		return err
	}
	after, err := b.holding()
	if err != nil {
		return err
	}
	if m.clients[0].Bytes == 0 {
		return b.nothing(m, "no byte arrived in the window")
	}
	figures[arrived] = float64(m.clients[0].Bytes) / 1e6
	b.cpu(figures, m, m.window.Seconds(), milli)
	delete(figures, machineCPU)
	if len(b.relay.PIDs()) > 0 {
		figures[growth] = float64(after.resident-before.resident) / 1024
	}
	return nil
}

// serverAddress is where the server with that number listens; it gives h3 further
// addresses for all but the first.
func (b *bed) serverAddress(i int) (netip.AddrPort, error) {
	at := b.numbered(i)
	if i == 0 {
		return at, nil
	}
	h3 := b.lab.H3
	err := h3.Do(func() error {
		link, err := netlink.LinkByName(netlab.Edge)
		if err != nil {
			return err
		}
		mask := net.CIDRMask(h3.Iface(netlab.Edge).Prefix4.Bits(), 32)
		return netlink.AddrAdd(link, &netlink.Addr{IPNet: &net.IPNet{IP: at.Addr().AsSlice(), Mask: mask}})
	})
	if err != nil {
		return at, fmt.Errorf("address %v on h3: %w", at.Addr(), err)
	}
	return at, nil
}

// clientTarget is where clients connect to for the server with that number.
func (b *bed) clientTarget(i int) (netip.AddrPort, error) {
	if i == 0 {
		return b.relay.Target(), nil
	}
	if b.relay.Target() != b.server() {
		return netip.AddrPort{}, fmt.Errorf("%s: clients connect to the relay itself, which knows one server only", b.step.Relay.Name)
	}
	return b.numbered(i), nil
}

// numbered counts addresses upwards from the server's own.
func (b *bed) numbered(i int) netip.AddrPort {
	address := b.server().Addr()
	for range i {
		address = address.Next()
	}
	return netip.AddrPortFrom(address, serverPort)
}

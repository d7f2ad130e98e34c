package netlab

import (
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// ErrNoNetem says that a Delay was asked for and cannot be had: this kernel
// cannot delay packets, and this process must not (Config.NetemOnly), may not
// (/dev/net/tun cannot be opened) or cannot any more (the link was made without
// a delay). The lab can be had without.
var ErrNoNetem = errors.New("this kernel has no netem to delay packets with")

// frame is the longest packet of a link, with its Ethernet header, in bytes:
// what shaping counts.
const frame = 1514

// Link is how a link treats packets, the same in both directions. The zero
// value lets them pass.
type Link struct {
	// Rate in bit/s, Ethernet headers included, so that TCP delivers 94 to 95 %
	// of it. Default 0: unlimited. The least is 8,000.
	Rate uint64

	// Delay is added to each packet, one way: a round trip takes twice as
	// long. Default 0: none.
	//
	// Where the kernel has no netem, a link that is made with a Delay is a line
	// in this process: see [Host.LineStats], also for what that costs.
	Delay time.Duration

	// Queue is how many bytes wait at most before the link; what comes beyond
	// is dropped. Default 0: as many as pass in 100 ms at Rate, at least ten
	// full packets. Without a Rate there is no queue.
	Queue int
}

func (l Link) check() error {
	switch {
	case l.Rate != 0 && l.Rate < 8000:
		return fmt.Errorf("rate %d bit/s: must be 0 or at least 8000", l.Rate)
	case l.Delay < 0 || l.Delay > time.Minute:
		return fmt.Errorf("delay %s: must be between 0 and 1m", l.Delay)
	case l.Queue < 0 || l.Queue > math.MaxInt32:
		return fmt.Errorf("queue %d bytes: must be between 0 and 2 GiB", l.Queue)
	case l.Queue > 0 && l.Queue < frame:
		return fmt.Errorf("queue %d bytes: must hold a packet of %d bytes", l.Queue, frame)
	}
	return nil
}

// QueueBytes returns the length of the queue in bytes, the default worked out.
func (l Link) QueueBytes() int {
	if l.Queue != 0 || l.Rate == 0 {
		return l.Queue
	}
	return int(min(max(l.Rate/8/10, 10*frame), math.MaxInt32))
}

// BurstBytes returns how many bytes the link lets pass at once after a pause,
// beyond its rate: 1 ms at Rate, and at least two packets.
func (l Link) BurstBytes() int {
	if l.Rate == 0 {
		return 0
	}
	return int(min(max(l.Rate/8/1000, 2*frame), math.MaxInt32))
}

// SetAccess shapes the link h1-h2 anew. What waits in its queues is lost. Where
// the kernel has no netem the link can be given a Delay only if it was made with
// one; otherwise the error is [ErrNoNetem] and the link is left without shape.
func (lab *Lab) SetAccess(l Link) error {
	return lab.reshape(l, lab.H1, Edge, lab.H2, Left)
}

// SetBottleneck shapes the link h2-h3 anew, as SetAccess does h1-h2.
func (lab *Lab) SetBottleneck(l Link) error {
	return lab.reshape(l, lab.H2, Right, lab.H3, Edge)
}

func (lab *Lab) reshape(l Link, a *Host, aIface string, b *Host, bIface string) error {
	if err := l.check(); err != nil {
		return fmt.Errorf("netlab: %w", err)
	}
	if err := a.shape(aIface, l); err != nil {
		return fmt.Errorf("netlab: %w", err)
	}
	if err := b.shape(bIface, l); err != nil {
		return fmt.Errorf("netlab: %w", err)
	}
	return nil
}

// shape puts a token bucket on what leaves through the interface, and netem
// above it unless a delay line is behind it.
//
// A token bucket, and not HTB, because of segmentation offload: stacks and
// veths hand over "packets" of 64 KiB, even with offloads off on the device
// (Linux TCP builds them regardless, since 4.17). HTB sends them whole, which
// at 6 Mbit/s is a burst of 85 ms that no real link has. The token bucket cuts
// what exceeds its burst into packets before it queues and counts them, so
// offloads can stay on, and what leaves at once is at most 1 ms of the link.
// (To have local senders build small packets only, by gso_max_size, made them
// overshoot more: 50 drops instead of 20 at the start of a 6 Mbit/s flow.)
func (h *Host) shape(iface string, l Link) error {
	err := h.Do(func() error {
		link, err := netlink.LinkByName(iface)
		if err != nil {
			return err
		}
		index := link.Attrs().Index
		if err := clearQdisc(index); err != nil {
			return fmt.Errorf("remove the old shaping: %w", err)
		}
		parent, handle := uint32(netlink.HANDLE_ROOT), netlink.MakeHandle(1, 0)
		if w, ok := h.ways[iface]; ok {
			w.setDelay(l.Delay)
		} else if l.Delay > 0 {
			err := netlink.QdiscAdd(netlink.NewNetem(
				netlink.QdiscAttrs{LinkIndex: index, Parent: parent, Handle: handle},
				netlink.NetemQdiscAttrs{Latency: uint32(l.Delay.Microseconds()), Limit: l.delayed()},
			))
			if errors.Is(err, unix.ENOENT) {
				return fmt.Errorf("%w, and this link was made without a delay; make the lab with one", ErrNoNetem)
			}
			if err != nil {
				return fmt.Errorf("delay by %s: %w", l.Delay, err)
			}
			parent, handle = netlink.MakeHandle(1, 1), netlink.MakeHandle(2, 0)
		}
		if l.Rate == 0 {
			return nil
		}
		bytes := l.Rate / 8
		err = netlink.QdiscAdd(&netlink.Tbf{
			QdiscAttrs: netlink.QdiscAttrs{LinkIndex: index, Parent: parent, Handle: handle},
			Rate:       bytes,
			Limit:      uint32(l.QueueBytes()),
			Buffer:     netlink.Xmittime(bytes, uint32(l.BurstBytes())),
		})
		if errors.Is(err, unix.ENOENT) {
			return errors.New("this kernel has no tbf to limit rates with; load the module sch_tbf")
		}
		if err != nil {
			return fmt.Errorf("limit to %d bit/s: %w", l.Rate, err)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("%s: %s: %w", h.Name, iface, err)
	}
	return nil
}

// hasNetem finds out by trying, which also makes the kernel load the module.
func (h *Host) hasNetem() (able bool, err error) {
	err = h.Do(func() error {
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			return err
		}
		index := lo.Attrs().Index
		err = netlink.QdiscAdd(netlink.NewNetem(
			netlink.QdiscAttrs{LinkIndex: index, Parent: netlink.HANDLE_ROOT, Handle: netlink.MakeHandle(1, 0)},
			netlink.NetemQdiscAttrs{Limit: 1000},
		))
		if errors.Is(err, unix.ENOENT) {
			return nil
		}
		if err != nil {
			return err
		}
		able = true
		return clearQdisc(index)
	})
	if err != nil {
		return false, fmt.Errorf("%s: try netem: %w", h.Name, err)
	}
	return able, nil
}

// delayed is how many packets netem may hold: its default of 1,000 would be
// the bottleneck of a fast or long link. Without a rate, a million.
func (l Link) delayed() uint32 {
	if l.Rate == 0 {
		return 1_000_000
	}
	inFlight := float64(l.Rate) / 8 * l.Delay.Seconds() / 64 // small packets at worst
	return uint32(min(max(inFlight, 1000), 1_000_000))
}

func clearQdisc(index int) error {
	err := netlink.QdiscDel(&netlink.GenericQdisc{QdiscAttrs: netlink.QdiscAttrs{LinkIndex: index, Parent: netlink.HANDLE_ROOT}})
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EINVAL) {
		return nil // there was none
	}
	return err
}

// QueueStats is what a shaped interface did with packets that left through it.
type QueueStats struct {
	Bytes   uint64 // sent, with Ethernet headers
	Packets uint32 // sent
	Dropped uint32 // packets for which there was no room
	Backlog uint32 // bytes that wait right now
}

// QueueStats returns the counters of a rate-limited interface of the host.
func (h *Host) QueueStats(iface string) (QueueStats, error) {
	var stats QueueStats
	err := h.Do(func() error {
		link, err := netlink.LinkByName(iface)
		if err != nil {
			return err
		}
		qdiscs, err := netlink.QdiscList(link)
		if err != nil {
			return err
		}
		for _, q := range qdiscs {
			s := q.Attrs().Statistics
			if q.Type() != "tbf" || s == nil || s.Basic == nil || s.Queue == nil {
				continue
			}
			stats = QueueStats{s.Basic.Bytes, s.Basic.Packets, s.Queue.Drops, s.Queue.Backlog}
			return nil
		}
		return errors.New("has no rate limit")
	})
	if err != nil {
		return stats, fmt.Errorf("netlab: %s: %s: queue: %w", h.Name, iface, err)
	}
	return stats, nil
}

package soak

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/tprelay/tprelay/internal/netlab"
)

// outage bounds a fault of the network. The ends take no connection for dead that soon.
const outage = 3 * time.Second

func faultsOfNetwork() []fault {
	return []fault{
		{"loss", 6, cutsUnopened, packetsAreLost},
		{"blackout", 3, cutsUnopened, allPacketsAreLost},
		{"resets", 6, cutsAll, packetsAreReset},
		{"link down", 4, cutsUnopened, linkGoesDown},
		{"slow link", 6, cutsNothing, linkGetsSlow},
		{"server closed", 4, cutsUnopened, serverCloses},
	}
}

// disturb injects faults of the network, one after the other, until ctx ends.
func (w *world) disturb(ctx context.Context, r *rand.Rand) {
	all := w.chosen(faultsOfNetwork())
	for pause(ctx, upTo(4*time.Second, r)) == nil {
		w.calm.Lock()
		if f, ok := drawFault(all, r); ok && ctx.Err() == nil {
			w.suffer(ctx, f, w.life.Load(), r)
		}
		w.calm.Unlock()
	}
}

// filter has rules on a host for a while.
func filter(ctx context.Context, h *netlab.Host, chain string, d time.Duration) error {
	err := h.NFT(context.Background(), "table inet fault {\n chain fault {\n"+chain+"\n }\n}")
	if err != nil {
		return err
	}
	pause(ctx, d)
	return h.NFT(context.Background(), "delete table inet fault")
}

func packetsAreLost(ctx context.Context, l *life, r *rand.Rand) error {
	h := []*netlab.Host{l.lab.H1, l.lab.H2, l.lab.H3}[r.IntN(3)]
	return filter(ctx, h, fmt.Sprintf("type filter hook prerouting priority raw; iif != lo meta l4proto tcp numgen random mod 1000 < %d drop",
		1+r.IntN(200)), upTo(outage, r))
}

func allPacketsAreLost(ctx context.Context, l *life, r *rand.Rand) error {
	h := []*netlab.Host{l.lab.H1, l.lab.H2, l.lab.H3}[r.IntN(3)]
	return filter(ctx, h, "type filter hook prerouting priority raw; iif != lo meta l4proto tcp drop", upTo(outage, r))
}

// packetsAreReset: the sender of a packet is told that the connection is dead; its other
// end finds out when it next sends, or by keep-alive.
func packetsAreReset(ctx context.Context, l *life, r *rand.Rand) error {
	h := []*netlab.Host{l.lab.H1, l.lab.H2, l.lab.H3}[r.IntN(3)]
	return filter(ctx, h, fmt.Sprintf("type filter hook input priority filter; iif != lo meta l4proto tcp numgen random mod 10000 < %d reject with tcp reset",
		1+r.IntN(100)), upTo(outage, r))
}

func linkGoesDown(ctx context.Context, l *life, r *rand.Rand) error {
	at := []struct {
		host  *netlab.Host
		iface string
	}{
		{l.lab.H1, netlab.Edge}, {l.lab.H2, netlab.Left}, {l.lab.H2, netlab.Right}, {l.lab.H3, netlab.Edge},
	}[r.IntN(4)]
	restore, err := at.host.CutLink(at.iface)
	if err != nil {
		return err
	}
	pause(ctx, upTo(outage/2, r))
	return restore()
}

func linkGetsSlow(ctx context.Context, l *life, r *rand.Rand) error {
	rate := uint64(5e6) << r.IntN(6)
	if err := l.lab.SetBottleneck(netlab.Link{Rate: rate}); err != nil {
		return err
	}
	pause(ctx, upTo(outage, r))
	return l.lab.SetBottleneck(netlab.Link{})
}

func serverCloses(ctx context.Context, l *life, r *rand.Rand) error {
	l.server.close()
	pause(ctx, upTo(outage/2, r))
	return l.server.open()
}

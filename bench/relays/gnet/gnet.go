// Package gnet is a TCP relay on the event loops of github.com/panjf2000/gnet, within their limits:
// gnet cannot stop reading, so there is no flow control, and it closes a connection on its first
// FIN, so there is no half-close. tpbench compare calls it gnet.
//
// gnet neither sets IP_TRANSPARENT nor returns the original destination, so clients connect to the
// relay itself.
package gnet

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/panjf2000/gnet/v2"
)

// lookAgain is how long to wait before looking again whether a connection's last bytes are sent.
// gnet does not report it.
const lookAgain = 5 * time.Millisecond

// Forward is a port to listen on, and where its connections go.
type Forward struct{ Listen, Server netip.AddrPort }

// Relay passes connections on, all on one event loop.
type Relay struct {
	gnet.BuiltinEventEngine

	// Forwards are its ports.
	Forwards []Forward
	// MostUnread is how many bytes may wait for one receiver before its pair is
	// closed. Default: 0, no limit.
	MostUnread int
	// MemoryLimit is how many bytes of memory the process may take before Run ends
	// with an error. Default: 0, no limit.
	MemoryLimit uint64

	ctx     context.Context
	unhook  func() bool
	servers map[int]*net.TCPAddr // by the port that was connected to
	full    error
}

// half is one connection of a pair. All is done on the event loop.
type half struct {
	conn   gnet.Conn // nil until it is established
	other  *half
	gone   bool // it was closed
	ending bool // the other is gone: close it when its last bytes are sent
	cut    bool // close both at once
}

// Run relays until ctx ends. The error says why it cannot listen, or that it took
// more than MemoryLimit.
func (r *Relay) Run(ctx context.Context) error {
	r.ctx, r.unhook = ctx, func() bool { return true }
	r.servers = make(map[int]*net.TCPAddr)
	var listen []string
	for _, f := range r.Forwards {
		r.servers[int(f.Listen.Port())] = net.TCPAddrFromAddrPort(f.Server)
		listen = append(listen, "tcp://"+f.Listen.String())
	}
	// With ReusePort gnet accepts on the loop itself; without it, on a second one.
	err := gnet.Rotate(r, listen, gnet.WithNumEventLoop(1), gnet.WithReusePort(true),
		gnet.WithTicker(true), gnet.WithLogger(errorsOnly()))
	r.unhook()
	if err = errors.Join(err, r.full); err != nil {
		return fmt.Errorf("gnet: %w", err)
	}
	return nil
}

// OnBoot lets ctx end the engine.
func (r *Relay) OnBoot(engine gnet.Engine) gnet.Action {
	r.unhook = context.AfterFunc(r.ctx, func() {
		// Stop starts the shutdown and waits for it as long as its context lives. Run waits
		// instead.
		_ = engine.Stop(r.ctx)
	})
	return gnet.None
}

// OnTick looks at the memory.
func (r *Relay) OnTick() (time.Duration, gnet.Action) {
	const period = 50 * time.Millisecond
	if used := memory(); r.MemoryLimit > 0 && used > r.MemoryLimit {
		r.full = fmt.Errorf("out of memory: receivers have left so much unread that %d MiB are taken", used>>20)
		return period, gnet.Shutdown
	}
	return period, gnet.None
}

// OnOpen opens the other side of an incoming connection on the same loop, and joins the two when
// that is established.
func (r *Relay) OnOpen(c gnet.Conn) ([]byte, gnet.Action) {
	if out, ok := c.Context().(*half); ok {
		return out.join(c)
	}
	in := &half{conn: c}
	in.other = &half{other: in}
	c.SetContext(in)
	// gnet's LocalAddr of an accepted connection is its listener's.
	server := r.servers[c.LocalAddr().(*net.TCPAddr).Port]
	result, err := c.EventLoop().Register(gnet.NewContext(context.Background(), in.other), server)
	if err != nil {
		return nil, gnet.Close
	}
	go func() {
		if (<-result).Err != nil {
			_ = c.Close() // from outside the loop; fails when the engine has ended
		}
	}()
	return nil, gnet.None
}

// join sends what the client has sent so far.
func (out *half) join(c gnet.Conn) ([]byte, gnet.Action) {
	if out.other.gone {
		out.gone = true
		return nil, gnet.Close
	}
	out.conn = c
	if out.other.conn.InboundBuffered() == 0 {
		return nil, gnet.None
	}
	early, _ := out.other.conn.Next(-1) // fails for other arguments only
	return early, gnet.None
}

// OnTraffic passes on what has arrived. It is also called after a Wake.
func (r *Relay) OnTraffic(c gnet.Conn) gnet.Action {
	h := c.Context().(*half)
	if h.ending {
		_, _ = c.Discard(-1) // there is no receiver any more
		if c.OutboundBuffered() == 0 {
			return gnet.Close
		}
		return gnet.None
	}
	to := h.other.conn
	if to == nil {
		return gnet.None // gnet keeps what was not taken
	}
	data, _ := c.Next(-1)
	if len(data) == 0 {
		return gnet.None
	}
	if _, err := to.Write(data); err != nil {
		return gnet.Close
	}
	if r.MostUnread > 0 && to.OutboundBuffered() > r.MostUnread {
		h.cut = true
		return gnet.Close
	}
	return gnet.None
}

// OnClose closes the other side too, once its last bytes are sent: gnet drops unsent bytes when it
// closes a connection.
func (r *Relay) OnClose(c gnet.Conn, _ error) gnet.Action {
	h := c.Context().(*half)
	h.gone = true
	other := h.other
	switch {
	case other.conn == nil || other.gone:
	case h.cut || other.conn.OutboundBuffered() == 0:
		_ = other.conn.Close()
	default:
		other.ending = true
		other.watch()
	}
	return gnet.None
}

// watch wakes a connection from time to time until it is closed.
func (h *half) watch() {
	c := h.conn
	time.AfterFunc(lookAgain, func() {
		_ = c.Wake(func(c gnet.Conn, err error) error {
			if err == nil && !h.gone {
				h.watch()
			}
			return nil
		})
	})
}

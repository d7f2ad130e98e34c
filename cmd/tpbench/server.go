package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"sync/atomic"
	"time"

	"github.com/panjf2000/gnet/v2"
	"golang.org/x/sys/unix"

	"github.com/tprelay/tprelay/bench/units"
	"github.com/tprelay/tprelay/internal/cli"
	"github.com/tprelay/tprelay/internal/sock"
)

// mostUnsent is how many bytes an echo may owe its client, in user space, before it
// is cut off: gnet cannot stop reading, so a client that sends without reading
// would fill the memory.
const mostUnsent = 64 << 20

var errUnread = fmt.Errorf("cut off: the client left %s unread", units.FormatBytes(mostUnsent))

// server counts what comes, or sends it back. On the client's FIN, gnet closes
// the connection: a sink has everything then, an echo loses what it still owes.
type server struct {
	gnet.BuiltinEventEngine
	echo  bool
	meter meter
	ctx   context.Context
	stop  func() bool // unhooks the engine from ctx
	boot  error
}

// peer is what a server remembers of a connection.
type peer struct {
	local, remote netip.AddrPort
	bytes         atomic.Int64
	cut           error
}

func newServer(echo bool, out *printer) *server {
	return &server{echo: echo, meter: meter{out: out}}
}

// run serves until ctx ends. loops 0 is one per CPU.
func (s *server) run(ctx context.Context, listen cli.Listen, loops int) error {
	address := "tcp://" + listen.String()
	if a := listen.Addr(); a.Is6() && a.IsUnspecified() {
		address = fmt.Sprintf("tcp://:%d", listen.Port()) // to gnet, [::] is IPv6 only
	}
	s.ctx, s.stop = ctx, func() bool { return true }
	err := gnet.Run(s, address,
		gnet.WithMulticore(true), gnet.WithNumEventLoop(loops), gnet.WithReuseAddr(true),
		gnet.WithTicker(true), gnet.WithLogger(silent{}))
	s.stop()
	if err == nil {
		err = s.boot
	}
	if err != nil {
		return fmt.Errorf("serve %v: %w", listen, err)
	}
	s.meter.finish(event{})
	return s.meter.out.failed()
}

// OnBoot tells where the server listens, whose port may have been chosen by the
// kernel.
func (s *server) OnBoot(engine gnet.Engine) gnet.Action {
	fd, err := engine.Dup()
	if err != nil {
		s.boot = err
		return gnet.Shutdown
	}
	defer unix.Close(fd)
	local, err := sock.LocalAddr(fd)
	if err != nil {
		s.boot = os.NewSyscallError("getsockname", err)
		return gnet.Shutdown
	}
	s.meter.out.print(event{Event: eventListening, Local: &local})
	s.stop = context.AfterFunc(s.ctx, func() {
		// Stop begins the end and then waits for it, as long as its own context
		// says; that wait is done by run.
		_ = engine.Stop(s.ctx)
	})
	return gnet.None
}

// OnOpen notes a connection.
func (s *server) OnOpen(c gnet.Conn) ([]byte, gnet.Action) {
	p := &peer{remote: addrPort(c.RemoteAddr())}
	p.local, _ = sock.LocalAddr(c.Fd()) // gnet's own LocalAddr is the listener's
	c.SetContext(p)
	at := s.meter.start()
	s.meter.out.print(event{Event: eventOpen, Local: &p.local, Peer: &p.remote, Start: at.Seconds(), End: at.Seconds()})
	return nil, gnet.None
}

// OnTraffic takes what has come.
func (s *server) OnTraffic(c gnet.Conn) gnet.Action {
	p := c.Context().(*peer)
	data, _ := c.Next(-1) // fails on other numbers only
	p.bytes.Add(int64(len(data)))
	s.meter.add(len(data))
	if !s.echo {
		return gnet.None
	}
	if _, err := c.Write(data); err != nil {
		p.cut = err
		return gnet.Close
	}
	if c.OutboundBuffered() > mostUnsent {
		p.cut = errUnread
		return gnet.Close
	}
	return gnet.None
}

// OnClose tells of the end of a connection.
func (s *server) OnClose(c gnet.Conn, err error) gnet.Action {
	p, ok := c.Context().(*peer)
	if !ok {
		return gnet.None
	}
	if p.cut != nil {
		err = p.cut
	}
	at := s.meter.end()
	e := event{Event: eventClose, Local: &p.local, Peer: &p.remote, End: at.Seconds(), Bytes: p.bytes.Load()}
	if err != nil && !errors.Is(err, io.EOF) {
		e.Error = err.Error()
	}
	s.meter.out.print(e)
	return gnet.None
}

// OnTick prints the seconds.
func (s *server) OnTick() (time.Duration, gnet.Action) {
	if s.meter.out.failed() != nil {
		return time.Second, gnet.Shutdown // nobody listens to us any more
	}
	return max(s.meter.tick(), 0), gnet.None
}

func addrPort(a net.Addr) netip.AddrPort {
	tcp, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.AddrPort{}
	}
	ap := tcp.AddrPort()
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
}

// silent drops what gnet logs: what matters comes back as errors as well.
type silent struct{}

func (silent) Debugf(string, ...any) {}
func (silent) Infof(string, ...any)  {}
func (silent) Warnf(string, ...any)  {}
func (silent) Errorf(string, ...any) {}
func (silent) Fatalf(string, ...any) {}

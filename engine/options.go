package engine

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"runtime"
	"slices"
	"syscall"
	"time"

	"github.com/tprelay/tprelay/intercept"
	"github.com/tprelay/tprelay/internal/sock"
	"github.com/tprelay/tprelay/tproxy"
)

// Defaults of Options.
const (
	DefaultHighWatermark    = 1 << 20
	DefaultMemoryLimit      = 256 << 20
	DefaultConnectTimeout   = 5 * time.Second
	DefaultHalfCloseTimeout = 60 * time.Second
	DefaultDrainTimeout     = 30 * time.Second
	DefaultBacklog          = 4096
	DefaultPipeSize         = 64 << 10
	DefaultPipes            = 1024
	DefaultReserve          = 64
)

// Listener is an address on which connections are taken.
type Listener struct {
	// Address to listen on, e.g. 127.0.0.1:9091. Port 0 picks a free one.
	// The IPv6 wildcard [::] takes IPv4 too.
	Address netip.AddrPort
	// Mode says how a connection's destination is learned. It must be set.
	Mode tproxy.Mode
	// Upstream is the destination of every connection in Forward mode, and
	// must be left out in the others.
	Upstream netip.AddrPort
	// Sockets are sockets that listen already, to use instead of opening some: a
	// *net.TCPListener, or an *os.File such as systemd's socket activation passes. All are
	// bound to Address, which may then be left out. New duplicates them; they stay the
	// caller's, who closes them after New, and accepts nothing from them. When New fails,
	// they are as they were.
	Sockets []syscall.Conn

	inherited []int // those that came by TakeOver
}

// Options configures an Engine. The zero value with one listener works.
type Options struct {
	// Listeners to open. May be empty for an engine that only adopts.
	Listeners []Listener

	// Loops is the number of event loops. Default: GOMAXPROCS. With fewer, a busy loop keeps
	// its processor while it waits (see epoll.Poller.HoldP): up to a tenth less CPU time for small
	// messages and short connections (docs/experiments.md), and the others are there for the program's own goroutines.
	Loops int

	// Spoof is the policy for the source address of outgoing connections.
	// Default: full in TPROXY mode, none otherwise. full and ip need CAP_NET_ADMIN or
	// CAP_NET_RAW; New fails without.
	Spoof tproxy.Spoof
	// Mark is set on outgoing sockets (SO_MARK) so that packet filter rules can
	// tell the relay's own traffic. Needs CAP_NET_ADMIN or (since Linux 5.17) CAP_NET_RAW;
	// New fails without. Default: 0, none.
	Mark uint32

	// HighWatermark is the number of pending bytes (taken from the source, not
	// yet accepted by the sink's socket) at which a direction stops reading.
	// Default: 1 MiB. At least 4 KiB.
	HighWatermark int
	// LowWatermark is the number of pending bytes at which it starts again.
	// Default: a quarter of HighWatermark.
	LowWatermark int
	// NoFlowControl reads without regard to the watermarks, so that pending
	// bytes grow until MemoryLimit. It exists to show what flow control is
	// for; do not use it to serve anybody.
	NoFlowControl bool
	// MemoryLimit bounds the pending bytes of all pairs together, buffers and pipes
	// counted by capacity. Go's heap may be larger by what the garbage collector
	// has not collected yet; a program whose resident memory must keep to the limit
	// says so with debug.SetMemoryLimit, e.g. 105 % of this and 16 MiB more.
	// Default: 256 MiB.
	MemoryLimit int64

	// NoSplice moves all bytes through buffers in user space.
	NoSplice bool
	// PipeSize is the capacity asked for each pipe, in bytes; the kernel rounds
	// it up to a power of two pages, and may give less. One that is less than this and
	// than 64 KiB is not used: beyond /proc/sys/fs/pipe-user-pages-soft they have two
	// pages, and buffers are better. Default: 64 KiB.
	PipeSize int
	// Pipes bounds the number of pipes of all loops together; a direction that
	// gets none uses a buffer. Default: 1,024.
	Pipes int

	// MaxPairs bounds the number of pairs; at the limit the listeners wait, and
	// the kernel's backlog holds who comes. Default: 0, no limit.
	MaxPairs int
	// MaxPairsPerSource bounds the number of pairs of one client address (IPv6: of
	// one /64 network, all of whose addresses are commonly one host's). Who comes
	// beyond it is reset: waiting clients would keep others out. Default: 0, no
	// limit.
	MaxPairsPerSource int
	// Deny lists destinations that may not be reached, not even when an interceptor
	// chooses them.
	Deny []netip.Prefix
	// AllowLocal lets connections that were diverted (TPROXY, Redirect) go to
	// loopback and to this host's own addresses. By default they are denied, so
	// that nobody reaches through the relay what listens for this host alone.
	AllowLocal bool
	// DescriptorReserve is how many of the descriptors that the process may open
	// (RLIMIT_NOFILE when New is called) are left to the rest of it: to an admin
	// end, which must answer when the relay is full. At most a quarter of
	// them. Default: 64. Negative: none.
	DescriptorReserve int
	// Backlog of each listening socket. Default: 4,096 (the kernel caps it at
	// net.core.somaxconn).
	Backlog int

	// ConnectTimeout is how long an outgoing connection may take to open, with the
	// wait for a descriptor where none was left.
	// Default: 5 s. Negative: as long as the kernel tries.
	ConnectTimeout time.Duration
	// IdleTimeout resets a pair that was silent for so long: nothing was read, written or
	// acknowledged by either end. Default: 0, never.
	IdleTimeout time.Duration
	// HalfCloseTimeout resets a pair of which one direction has ended (its FIN was
	// acknowledged), for whose ends no bytes wait, and which was silent for so long. It is
	// also how long a reset waits for a receiver that takes nothing of the bytes in front of
	// it. Default: 60 s. Negative: never, and 60 s for such a reset.
	HalfCloseTimeout time.Duration
	// DrainTimeout is how long Run waits for pairs to end by themselves after
	// its context is cancelled; the rest is reset. Default: 30 s. Negative: not
	// at all.
	DrainTimeout time.Duration
	// UserTimeout is TCP_USER_TIMEOUT of both connections: how long sent data
	// may stay unacknowledged. Default: 0, the kernel's own rule.
	UserTimeout time.Duration
	// KeepAlive says when the kernel probes whether the other end of a silent connection is still
	// there. Default: the zero value, the kernel's own settings (two hours). A negative Idle: never.
	// Otherwise Enable must be set; a field that is 0 is the kernel's own, but Interval is no more
	// than Idle. The kernel counts in whole seconds, up to 32,767. See [tproxy.ConnOptions].
	KeepAlive net.KeepAliveConfig

	// Interceptor is asked about every pair. Default: none.
	Interceptor intercept.Interceptor
	// Observer has the functions that are called when pairs open and end. Default: none.
	Observer Observer
	// Logger gets what an operator should know; never anything per byte.
	// Default: silent.
	Logger *slog.Logger

	// ThreadInit, when set, is called on the thread that opens the listeners and
	// on the thread of every loop, which is then locked to that loop: to enter a
	// network namespace, or to set affinity. An error ends New or Run.
	ThreadInit func() error
}

// Observer is a set of functions that the engine calls when something happens to a pair. Functions
// that are nil are not called, and others may be added in later versions, so a composite literal
// should name its fields.
//
// Each function is called on the loop of the pair, so calls for different pairs may be concurrent.
// It must not block: all pairs of the loop would wait, and a call that takes more than a second is
// logged. It may call every method of the Engine; those that wait for the loops return [ErrOnLoop].
type Observer struct {
	// PairOpened is called when the outgoing connection stands, before any byte of it is moved. A
	// panic ends the pair with ReasonPanicked.
	PairOpened func(PairInfo)
	// PairEnded is called once for each pair, when its connections are closed. That includes pairs
	// that never opened, because the dial failed or they were refused, and for which PairOpened was
	// not called; and pairs that another engine has taken over (ReasonHandedOver), whose observer is
	// told of the end. A panic is only logged. When an engine is closed without Run, PairEnded is
	// called on the goroutine of Close.
	PairEnded func(PairInfo)
}

// withDefaults fills in what is unset and refuses what cannot work.
func (o Options) withDefaults() (Options, error) {
	set := func(p *int, value int) {
		if *p == 0 {
			*p = value
		}
	}
	wait := func(p *time.Duration, value time.Duration) {
		if *p == 0 {
			*p = value
		}
	}
	o.Listeners, o.Deny = slices.Clone(o.Listeners), slices.Clone(o.Deny) // the caller may change its own
	for i := range o.Listeners {
		o.Listeners[i].Sockets = slices.Clone(o.Listeners[i].Sockets)
	}
	set(&o.Loops, runtime.GOMAXPROCS(0))
	set(&o.HighWatermark, DefaultHighWatermark)
	set(&o.LowWatermark, o.HighWatermark/4)
	set(&o.PipeSize, DefaultPipeSize)
	set(&o.Pipes, DefaultPipes)
	set(&o.Backlog, DefaultBacklog)
	set(&o.DescriptorReserve, DefaultReserve)
	if o.MemoryLimit == 0 {
		o.MemoryLimit = DefaultMemoryLimit
	}
	wait(&o.ConnectTimeout, DefaultConnectTimeout)
	wait(&o.HalfCloseTimeout, DefaultHalfCloseTimeout)
	wait(&o.DrainTimeout, DefaultDrainTimeout)
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}

	switch {
	case o.Loops < 1 || o.Loops > maxLoops:
		return o, fmt.Errorf("loops: %d is not between 1 and %d", o.Loops, maxLoops)
	case o.HighWatermark < 4<<10 || o.HighWatermark > 1<<30:
		return o, fmt.Errorf("high watermark: %d bytes is not between 4 KiB and 1 GiB", o.HighWatermark)
	case o.LowWatermark < 0 || o.LowWatermark >= o.HighWatermark:
		return o, fmt.Errorf("low watermark: %d bytes is not below the high watermark of %d", o.LowWatermark, o.HighWatermark)
	case o.MemoryLimit < 1<<20:
		return o, fmt.Errorf("memory limit: %d bytes is less than 1 MiB", o.MemoryLimit)
	case o.PipeSize < 4<<10 || o.PipeSize > 1<<30:
		return o, fmt.Errorf("pipe size: %d bytes is not between 4 KiB and 1 GiB", o.PipeSize)
	case o.Pipes < 0:
		return o, fmt.Errorf("pipes: %d is negative", o.Pipes)
	case o.MaxPairs < 0:
		return o, fmt.Errorf("max pairs: %d is negative", o.MaxPairs)
	case o.IdleTimeout < 0:
		return o, fmt.Errorf("idle timeout: %v is negative", o.IdleTimeout)
	case o.MaxPairsPerSource < 0:
		return o, fmt.Errorf("max pairs per source: %d is negative", o.MaxPairsPerSource)
	}
	if err := o.conn().Check(); err != nil {
		return o, err
	}
	for _, prefix := range o.Deny {
		if !prefix.IsValid() {
			return o, errors.New("deny: not a network")
		}
	}
	if len(o.Listeners) > maxListeners {
		return o, fmt.Errorf("%d listeners: more than %d", len(o.Listeners), maxListeners)
	}
	for _, l := range o.Listeners {
		if err := l.check(); err != nil {
			return o, fmt.Errorf("listener %v: %w", l.Address, err)
		}
	}
	return o, nil
}

// conn are the socket options of both connections.
func (o *Options) conn() sock.ConnOptions {
	return sock.ConnOptions{UserTimeout: o.UserTimeout, KeepAlive: o.KeepAlive}
}

func (l Listener) check() error {
	switch {
	case !l.Address.IsValid() && len(l.Sockets)+len(l.inherited) == 0:
		return errors.New("no address")
	case l.Mode == 0:
		return errors.New("no Mode: choose tproxy.TPROXY, tproxy.Redirect or tproxy.Forward")
	case l.Mode > tproxy.Forward:
		return fmt.Errorf("unknown %v", l.Mode)
	case l.Mode == tproxy.Forward && (!l.Upstream.IsValid() || l.Upstream.Port() == 0):
		return errors.New("forward mode needs an upstream address and port")
	case l.Mode != tproxy.Forward && l.Upstream.IsValid():
		return fmt.Errorf("an upstream is for forward mode only; in %v mode the connection's own destination is used", l.Mode)
	}
	return nil
}

package engine

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"reflect"
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
	DefaultHighWatermark     = 1 << 20   // bytes
	DefaultMemoryLimit       = 256 << 20 // bytes
	DefaultConnectTimeout    = 5 * time.Second
	DefaultHalfCloseTimeout  = 60 * time.Second
	DefaultDrainTimeout      = 30 * time.Second
	DefaultBacklog           = 4096     // connections
	DefaultPipeSize          = 64 << 10 // bytes
	DefaultPipes             = 1024     // pipes
	DefaultDescriptorReserve = 64       // descriptors
)

// Listener is an address on which connections are accepted.
type Listener struct {
	// Address to listen on, such as 127.0.0.1:9091. Port 0 takes a free port, which Engine.Addrs
	// tells. The IPv6 wildcard [::] takes IPv4, too.
	Address netip.AddrPort
	// Mode says how the destination of a connection is learned. It must be set.
	Mode tproxy.Mode
	// Upstream is the destination of every connection in Forward mode. It must be left out in the
	// other modes.
	Upstream netip.AddrPort
	// Sockets are sockets that listen already, to use instead of opening some: *net.TCPListeners,
	// or *os.Files such as systemd's socket activation passes. All of them must be bound to
	// Address, which may then be left out. New duplicates them. The caller closes its own after
	// New, and accepts nothing from them. When New fails, they are as they were.
	Sockets []syscall.Conn

	inherited []int // those that came by TakeOver
}

// Options configures an Engine. The zero value with one listener works.
//
// In every field, zero means the default. Where something can be turned off, a negative value turns
// it off, also where that is the default. New refuses other values that cannot work, and its error
// names the field. New copies the Options: later changes have no effect.
type Options struct {
	// Listeners to open, at most 64. An engine that only adopts connections needs none.
	Listeners []Listener

	// Loops is the number of event loops, at most 256. Default: GOMAXPROCS. With fewer, a busy loop
	// keeps its processor while it waits (see epoll.Poller.HoldP), which saves up to a tenth of the
	// CPU time for small messages and short connections, and leaves processors to the program's
	// other goroutines.
	Loops int

	// Spoof is the policy for the source addresses of outgoing connections. Default: full in TPROXY
	// mode, none in the others. Full and ip need CAP_NET_ADMIN or CAP_NET_RAW; without, New fails.
	Spoof tproxy.Spoof
	// Mark is set on outgoing sockets (SO_MARK), so that packet filter rules can tell the relay's
	// own traffic. It needs CAP_NET_ADMIN or, since Linux 5.17, CAP_NET_RAW; without, New fails.
	// Default: 0, none.
	Mark uint32

	// HighWatermark is the number of pending bytes (read from the source, not yet accepted by the
	// sink's socket) at which a direction stops reading. 4 KiB to 1 GiB. Default: 1 MiB.
	HighWatermark int
	// LowWatermark is the number of pending bytes at which it reads again. Less than HighWatermark.
	// Default: a quarter of HighWatermark.
	LowWatermark int
	// NoFlowControl reads without regard to the watermarks, so that pending
	// bytes grow until MemoryLimit. It exists to show what flow control is
	// for; do not use it to serve anybody.
	NoFlowControl bool
	// MemoryLimit bounds the pending bytes of all pairs together; buffers and pipes count by their
	// capacity. At least 1 MiB. Default: 256 MiB. Go's heap may be larger by what the garbage
	// collector has not collected yet: a program whose resident memory must keep to the limit calls
	// debug.SetMemoryLimit, for example with 105 % of this and 16 MiB more.
	MemoryLimit int64

	// NoSplice moves all bytes through buffers in user space.
	NoSplice bool
	// PipeSize is the capacity to ask for each pipe, in bytes. 4 KiB to 1 GiB. Default: 64 KiB. The
	// kernel rounds it up to a power of two pages, and may give less. A pipe with less than this
	// and than 64 KiB is not used: beyond /proc/sys/fs/pipe-user-pages-soft pipes have two pages,
	// and buffers are faster.
	PipeSize int
	// Pipes bounds the number of pipes of all loops together. A direction that gets none uses a
	// buffer. Default: 1,024. To use none, set NoSplice.
	Pipes int

	// MaxPairs bounds the number of pairs. At the limit the listeners wait, and new connections
	// stay in the kernel's backlog. Default, and negative: no limit.
	MaxPairs int
	// MaxPairsPerSource bounds the number of pairs of one client address. For IPv6 it is one /64
	// network, whose addresses commonly belong to one host. Excess connections are reset: waiting
	// ones would keep other clients out. Default, and negative: no limit.
	MaxPairsPerSource int
	// Deny lists destinations that no pair may reach, not even when an interceptor chooses them.
	// Default: none.
	Deny []netip.Prefix
	// AllowLocal lets diverted connections (TPROXY, Redirect) go to loopback and to this host's own
	// addresses. By default they are denied, so that no client reaches through the relay what
	// listens for this host alone.
	AllowLocal bool
	// DescriptorReserve is how many of the descriptors that the process may open (RLIMIT_NOFILE
	// when New is called) are left to the rest of it, such as an admin server that must answer when
	// the relay is full. At most a quarter of them. Default: 64. Negative: none.
	DescriptorReserve int
	// Backlog of each listening socket, in connections. The kernel caps it at net.core.somaxconn.
	// Default: 4,096.
	Backlog int

	// ConnectTimeout is how long an outgoing connection may take to open, including the wait for a
	// descriptor where none is left. Default: 5 s. Negative: as long as the kernel tries.
	ConnectTimeout time.Duration
	// IdleTimeout resets a pair that has been silent for so long: nothing was read, written or
	// acknowledged at either end. Default, and negative: never.
	IdleTimeout time.Duration
	// HalfCloseTimeout resets a pair that has been silent for so long after one direction has ended
	// (its FIN was acknowledged), when no bytes wait. It is also how long a reset waits for a
	// receiver that does not take the bytes in front of it. Default: 60 s. Negative: never, and 60
	// s for such a reset.
	HalfCloseTimeout time.Duration
	// DrainTimeout is how long Run waits, after its context is cancelled, for pairs to end by
	// themselves. Then it resets the others. Default: 30 s. Negative: it does not wait.
	DrainTimeout time.Duration
	// UserTimeout is how long sent data may stay unacknowledged on both connections, from 1 ms to
	// 596 h (TCP_USER_TIMEOUT). Default, and negative: the kernel's own rule.
	UserTimeout time.Duration
	// KeepAlive says when the kernel probes whether the other end of a silent connection is still
	// there. Default: the zero value, the kernel's own settings (two hours). A negative Idle:
	// never. Otherwise Enable must be set; a field that is 0 is the kernel's own, but Interval is
	// no more than Idle. The kernel counts in whole seconds, up to 32,767. See
	// [tproxy.ConnOptions].
	KeepAlive net.KeepAliveConfig

	// Interceptor is asked about every pair, on the pair's loop. A nil pointer or
	// function in it is an error. Default: none.
	Interceptor intercept.Interceptor
	// Observer has the functions that are called when pairs open and end. Default: none.
	Observer Observer
	// Logger gets what an operator should know, and never anything per byte. Its handler is called
	// on the loops and on other goroutines of the engine, and must not block. Default: silent.
	Logger *slog.Logger

	// ThreadInit, when set, is called on the thread that opens the listeners and on the thread of
	// every loop, which is then locked to that loop: to enter a network namespace, or to set the
	// affinity. An error ends New or Run, which return it.
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
	// not called; and pairs that another engine has taken over (ReasonHandedOver), whose observer
	// is told of the end. A panic is only logged. When an engine is closed without Run, PairEnded
	// is called on the goroutine of Close.
	PairEnded func(PairInfo)
}

// withDefaults fills in what is unset and refuses what cannot work. What is off becomes 0 where
// that means off inside the engine.
func (o Options) withDefaults() (Options, error) {
	o.Listeners, o.Deny = slices.Clone(o.Listeners), slices.Clone(o.Deny) // the caller may change its own
	for i := range o.Listeners {
		o.Listeners[i].Sockets = slices.Clone(o.Listeners[i].Sockets)
	}
	setDefault(&o.Loops, runtime.GOMAXPROCS(0))
	setDefault(&o.HighWatermark, DefaultHighWatermark)
	setDefault(&o.LowWatermark, o.HighWatermark/4)
	setDefault(&o.MemoryLimit, DefaultMemoryLimit)
	setDefault(&o.PipeSize, DefaultPipeSize)
	setDefault(&o.Pipes, DefaultPipes)
	setDefault(&o.Backlog, DefaultBacklog)
	setDefault(&o.DescriptorReserve, DefaultDescriptorReserve)
	setDefault(&o.ConnectTimeout, DefaultConnectTimeout)
	setDefault(&o.HalfCloseTimeout, DefaultHalfCloseTimeout)
	setDefault(&o.DrainTimeout, DefaultDrainTimeout)
	o.MaxPairs, o.MaxPairsPerSource = max(o.MaxPairs, 0), max(o.MaxPairsPerSource, 0)
	o.IdleTimeout = max(o.IdleTimeout, 0)
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}

	switch {
	case o.Loops < 1 || o.Loops > maxLoops:
		return o, fmt.Errorf("Options.Loops: %d is not between 1 and %d", o.Loops, maxLoops)
	case o.Spoof > tproxy.SpoofIPOrNone:
		return o, fmt.Errorf("Options.Spoof: unknown %v", o.Spoof)
	case o.HighWatermark < 4<<10 || o.HighWatermark > 1<<30:
		return o, fmt.Errorf("Options.HighWatermark: %d bytes is not between 4 KiB and 1 GiB", o.HighWatermark)
	case o.LowWatermark < 1 || o.LowWatermark >= o.HighWatermark:
		return o, fmt.Errorf("Options.LowWatermark: %d bytes is not between 1 and the high watermark of %d", o.LowWatermark, o.HighWatermark)
	case o.MemoryLimit < 1<<20:
		return o, fmt.Errorf("Options.MemoryLimit: %d bytes is less than 1 MiB", o.MemoryLimit)
	case o.PipeSize < 4<<10 || o.PipeSize > 1<<30:
		return o, fmt.Errorf("Options.PipeSize: %d bytes is not between 4 KiB and 1 GiB", o.PipeSize)
	case o.Pipes < 0:
		return o, fmt.Errorf("Options.Pipes: %d is negative; to use none, set NoSplice", o.Pipes)
	case o.Backlog < 0:
		return o, fmt.Errorf("Options.Backlog: %d is negative", o.Backlog)
	case len(o.Listeners) > maxListeners:
		return o, fmt.Errorf("Options.Listeners: %d are more than %d", len(o.Listeners), maxListeners)
	}
	if o.Interceptor != nil && isNil(o.Interceptor) {
		return o, fmt.Errorf("Options.Interceptor: a nil %T; for no interceptor, leave the field unset", o.Interceptor)
	}
	if err := o.conn().Check(); err != nil {
		return o, fmt.Errorf("Options.%w", err)
	}
	for i, prefix := range o.Deny {
		if !prefix.IsValid() {
			return o, fmt.Errorf("Options.Deny[%d]: not a network", i)
		}
	}
	for i, l := range o.Listeners {
		if field, err := l.check(); err != nil {
			return o, fmt.Errorf("Options.Listeners[%d].%s: %w", i, field, err)
		}
	}
	return o, nil
}

// isNil reports whether v, an interface, is nil or has a nil pointer or function in it.
func isNil(v any) bool {
	switch r := reflect.ValueOf(v); r.Kind() {
	case reflect.Invalid:
		return true
	case reflect.Pointer, reflect.Func:
		return r.IsNil()
	}
	return false
}

// setDefault sets a field that is zero.
func setDefault[T int | int64 | time.Duration](field *T, value T) {
	if *field == 0 {
		*field = value
	}
}

// conn are the socket options of both connections.
func (o *Options) conn() sock.ConnOptions {
	return sock.ConnOptions{UserTimeout: o.UserTimeout, KeepAlive: o.KeepAlive}
}

// check refuses what cannot work, and names the field.
func (l Listener) check() (field string, err error) {
	switch {
	case !l.Address.IsValid() && len(l.Sockets)+len(l.inherited) == 0:
		return "Address", errors.New("not set, and there are no Sockets")
	case l.Mode == 0:
		return "Mode", errors.New("not set; choose tproxy.TPROXY, tproxy.Redirect or tproxy.Forward")
	case l.Mode > tproxy.Forward:
		return "Mode", fmt.Errorf("unknown %v", l.Mode)
	case l.Mode == tproxy.Forward && (!l.Upstream.IsValid() || l.Upstream.Port() == 0):
		return "Upstream", errors.New("forward mode needs an address and port")
	case l.Mode != tproxy.Forward && l.Upstream.IsValid():
		return "Upstream", fmt.Errorf("only for forward mode; in %v mode the connection's own destination is used", l.Mode)
	}
	for i, s := range l.Sockets {
		if isNil(s) {
			return fmt.Sprintf("Sockets[%d]", i), errors.New("nil; pass a socket that listens")
		}
	}
	return "", nil
}

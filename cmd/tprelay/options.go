package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"time"

	"github.com/tprelay/tprelay/engine"
	"github.com/tprelay/tprelay/intercept"
	"github.com/tprelay/tprelay/internal/cli"
	"github.com/tprelay/tprelay/internal/sock"
	"github.com/tprelay/tprelay/tproxy"
)

// lookupTimeout limits the name lookup of --upstream.
const lookupTimeout = 10 * time.Second

// check returns an error for flags that cannot work, and names them.
func (c *runCmd) check() error {
	forward := c.Mode.Mode == tproxy.Forward
	switch {
	case forward && c.Upstream == "":
		return cli.Usagef("--mode forward needs --upstream HOST:PORT, the destination of all connections")
	case !forward && c.Upstream != "":
		return cli.Usagef("--upstream is for --mode forward; in %v mode each connection goes to its own destination", c.Mode)
	case c.Loops < 0 || c.Loops > 256:
		return cli.Usagef("--loops %d: want 1 to 256, or 0 for one per CPU", c.Loops)
	case c.TimeSlice != 0 && (c.TimeSlice < minTimeSlice || c.TimeSlice > maxTimeSlice):
		return cli.Usagef("--time-slice %v: want %v to %v, or 0 for the kernel's default", c.TimeSlice, minTimeSlice, maxTimeSlice)
	case c.MaxPairs < 0:
		return cli.Usagef("--max-pairs %d: want a positive number, or 0 for no limit", c.MaxPairs)
	case c.MaxPairsPerSource < 0:
		return cli.Usagef("--max-pairs-per-source %d: want a positive number, or 0 for no limit", c.MaxPairsPerSource)
	case c.UserTimeout > 0 && c.UserTimeout < time.Millisecond, c.UserTimeout > sock.MaxUserTimeout:
		return cli.Usagef("--user-timeout %v: want 1ms to %v, or 0 for the kernel's own rule", c.UserTimeout, sock.MaxUserTimeout)
	case c.AllowLocal && forward:
		return cli.Usagef("--allow-local is for --mode tproxy and redirect; in forward mode all connections go to --upstream")
	case len(c.AdminHost) > 0 && !c.Admin.IsValid():
		return cli.Usagef("--admin-host needs --admin ADDR:PORT")
	case c.HighWatermark < 4<<10 || c.HighWatermark > 1<<30:
		return cli.Usagef("--high-watermark %v: want 4KiB to 1GiB", c.HighWatermark)
	case c.LowWatermark != nil && *c.LowWatermark == 0:
		return cli.Usagef("--low-watermark 0: want 1 or more; omit it for a quarter of the high watermark")
	case c.LowWatermark != nil && *c.LowWatermark >= c.HighWatermark:
		return cli.Usagef("--low-watermark %v: want less than the high watermark of %v", *c.LowWatermark, c.HighWatermark)
	case c.MemoryLimit < 1<<20:
		return cli.Usagef("--memory-limit %v: want at least 1MiB", c.MemoryLimit)
	}
	for _, t := range []struct {
		name  string
		value time.Duration
	}{
		{"--connect-timeout", c.ConnectTimeout},
		{"--idle-timeout", c.IdleTimeout},
		{"--half-close-timeout", c.HalfCloseTimeout},
		{"--drain-timeout", c.DrainTimeout},
		{"--user-timeout", c.UserTimeout},
	} {
		if t.value < 0 {
			return cli.Usagef("%s %v: want 0 or more", t.name, t.value)
		}
	}
	if c.UpgradeTimeout <= 0 {
		return cli.Usagef("--upgrade-timeout %v: want more than 0", c.UpgradeTimeout)
	}
	if err := c.checkKeepAlive(); err != nil {
		return err
	}
	given := map[netip.AddrPort]bool{}
	for _, l := range c.Listen {
		if given[l.AddrPort] && l.Port() != 0 {
			return cli.Usagef("--listen %v: given twice", l)
		}
		given[l.AddrPort] = true
	}
	return nil
}

// checkKeepAlive refuses what the kernel does not take.
func (c *runCmd) checkKeepAlive() error {
	off := c.KeepAlive != nil && *c.KeepAlive == 0
	switch {
	case c.KeepAlive != nil && (*c.KeepAlive < 0 || *c.KeepAlive > sock.MaxKeepAlive):
		return cli.Usagef("--keep-alive %v: want up to %v, or 0 for never", *c.KeepAlive, sock.MaxKeepAlive)
	case c.KeepAliveInterval < 0 || c.KeepAliveInterval > sock.MaxKeepAlive:
		return cli.Usagef("--keep-alive-interval %v: want up to %v, or 0 for the kernel's own", c.KeepAliveInterval, sock.MaxKeepAlive)
	case c.KeepAliveCount < 0 || c.KeepAliveCount > sock.MaxProbes:
		return cli.Usagef("--keep-alive-count %d: want up to %d, or 0 for the kernel's own", c.KeepAliveCount, sock.MaxProbes)
	case off && (c.KeepAliveInterval > 0 || c.KeepAliveCount > 0):
		return cli.Usagef("--keep-alive 0 turns probes off: leave --keep-alive-interval and --keep-alive-count out")
	}
	return nil
}

// keepAlive is what --keep-alive, --keep-alive-interval and --keep-alive-count say.
func (c *runCmd) keepAlive() net.KeepAliveConfig {
	k := net.KeepAliveConfig{Interval: c.KeepAliveInterval, Count: c.KeepAliveCount}
	if c.KeepAlive != nil {
		k.Idle = zeroIsNone(*c.KeepAlive)
	}
	k.Enable = k.Idle > 0 || k.Interval > 0 || k.Count > 0
	return k
}

// options returns the engine's options, except Logger and Observer. upstream is the
// destination of all connections in forward mode.
func (c *runCmd) options(listen []listenAt, upstream netip.AddrPort, interceptor intercept.Interceptor) engine.Options {
	o := engine.Options{
		Loops:             c.Loops,
		Spoof:             c.Spoof.Spoof,
		Mark:              uint32(c.Mark),
		HighWatermark:     int(c.HighWatermark),
		NoFlowControl:     c.NoFlowControl,
		MemoryLimit:       int64(c.MemoryLimit),
		NoSplice:          c.NoSplice,
		MaxPairs:          c.MaxPairs,
		MaxPairsPerSource: c.MaxPairsPerSource,
		Deny:              prefixes(c.Deny),
		AllowLocal:        c.AllowLocal,
		UserTimeout:       c.UserTimeout,
		KeepAlive:         c.keepAlive(),
		ConnectTimeout:    zeroIsNone(c.ConnectTimeout),
		IdleTimeout:       c.IdleTimeout,
		HalfCloseTimeout:  zeroIsNone(c.HalfCloseTimeout),
		DrainTimeout:      zeroIsNone(c.DrainTimeout),
		Interceptor:       interceptor,
	}
	if c.LowWatermark != nil {
		o.LowWatermark = int(*c.LowWatermark)
	}
	for _, l := range listen {
		ln := engine.Listener{Address: l.address, Mode: c.Mode.Mode, Upstream: upstream}
		for _, fd := range l.sockets {
			ln.Sockets = append(ln.Sockets, os.NewFile(uintptr(fd), "socket for "+l.address.String()))
		}
		o.Listeners = append(o.Listeners, ln)
	}
	return o
}

// interceptors returns one interceptor that chains those of --intercept, or nil if there are
// none. recorders are those that write files.
func (c *runCmd) interceptors() (chain intercept.Interceptor, recorders []*intercept.Recorder, err error) {
	var list []intercept.Interceptor
	for _, spec := range c.Intercept {
		i, err := intercept.Parse(spec)
		if err != nil {
			return nil, nil, cli.Usagef("--intercept: %w", err)
		}
		if r, ok := i.(*intercept.Recorder); ok {
			recorders = append(recorders, r)
		}
		list = append(list, i)
	}
	return intercept.Chain(list...), recorders, nil
}

// resolver is the part of *net.Resolver that resolveUpstream needs.
type resolver interface {
	LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error)
	LookupPort(ctx context.Context, network, service string) (int, error)
}

// resolveUpstream returns the address for HOST:PORT, the first one if there are several.
func resolveUpstream(r resolver, upstream string) (netip.AddrPort, error) {
	host, service, err := net.SplitHostPort(upstream)
	if err != nil || host == "" || service == "" {
		return netip.AddrPort{}, cli.Usagef("--upstream %q: want HOST:PORT, such as 192.0.2.1:80, [2001:db8::1]:80 or example.com:80", upstream)
	}
	ctx, cancel := context.WithTimeout(context.Background(), lookupTimeout)
	defer cancel()
	port, err := r.LookupPort(ctx, "tcp", service)
	if err != nil || port < 1 || port > 65535 {
		return netip.AddrPort{}, cli.Usagef("--upstream %q: want a port from 1 to 65535", upstream)
	}
	if address, err := netip.ParseAddr(host); err == nil {
		return netip.AddrPortFrom(address.Unmap(), uint16(port)), nil
	}
	found, err := r.LookupNetIP(ctx, "ip", host)
	if err == nil && len(found) == 0 {
		err = errors.New("no address")
	}
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("upstream %s: %w; check the name, or give an IP address", upstream, err)
	}
	return netip.AddrPortFrom(found[0].Unmap(), uint16(port)), nil
}

package netlab

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Dial connects from the host, as net.Dialer.DialContext does, so it fits
// http.Transport. The address is a literal one, "10.77.2.3:80" or
// "[fd77:2::3]:80": the host has no name server. The connection is like any
// other and may be used from any goroutine.
func (h *Host) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	return h.dial(ctx, &net.Dialer{}, network, address)
}

// DialFrom is Dial from a given local address, "10.77.1.1:4321" or, to have
// the port chosen, "10.77.1.1:0". A port whose former connections are in
// TIME_WAIT can be had again, but not for the same destination until they are over.
func (h *Host) DialFrom(ctx context.Context, network, local, address string) (net.Conn, error) {
	from, err := netip.ParseAddrPort(local)
	if err != nil {
		return nil, fmt.Errorf("netlab: %s: dial %s from %s: %w", h.Name, address, local, err)
	}
	d := &net.Dialer{Control: reuseAddr}
	if strings.HasPrefix(network, "udp") {
		d.LocalAddr = net.UDPAddrFromAddrPort(from)
	} else {
		d.LocalAddr = net.TCPAddrFromAddrPort(from)
	}
	return h.dial(ctx, d, network, address)
}

func reuseAddr(_, _ string, raw syscall.RawConn) error {
	var err error
	ctl := raw.Control(func(fd uintptr) {
		err = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_REUSEADDR, 1)
	})
	return errors.Join(ctl, err)
}

func (h *Host) dial(ctx context.Context, d *net.Dialer, network, address string) (net.Conn, error) {
	// A name would be looked up, and two addresses dialled, by goroutines that
	// run elsewhere: in another namespace.
	if _, err := netip.ParseAddrPort(address); err != nil {
		return nil, fmt.Errorf("netlab: %s: dial: %w", h.Name, err)
	}
	var conn net.Conn
	err := h.visit(func() (err error) {
		conn, err = d.DialContext(ctx, network, address)
		return err
	})
	if err != nil {
		if conn != nil {
			conn.Close()
		}
		return nil, fmt.Errorf("netlab: %s: %w", h.Name, err)
	}
	return conn, nil
}

// Listen listens in the host, as net.Listen does, on a literal address:
// "10.77.2.3:80", "[::]:80", or "10.77.2.3:0" to have the port chosen. It takes
// plain TCP (the net package would take MPTCP too).
func (h *Host) Listen(network, address string) (net.Listener, error) {
	var lc net.ListenConfig
	lc.SetMultipathTCP(false)
	var l net.Listener
	err := h.literal(address, func() (err error) {
		l, err = lc.Listen(context.Background(), network, address)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("netlab: %s: %w", h.Name, err)
	}
	return l, nil
}

// ListenPacket listens for datagrams in the host, as net.ListenPacket does, on
// a literal address.
func (h *Host) ListenPacket(network, address string) (net.PacketConn, error) {
	var p net.PacketConn
	err := h.literal(address, func() (err error) {
		p, err = net.ListenPacket(network, address)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("netlab: %s: %w", h.Name, err)
	}
	return p, nil
}

func (h *Host) literal(address string, listen func() error) error {
	if host, _, err := net.SplitHostPort(address); err != nil {
		return fmt.Errorf("listen: %w", err)
	} else if _, err := netip.ParseAddr(host); host != "" && err != nil {
		return fmt.Errorf("listen %s: %w", address, err)
	}
	return h.Do(listen)
}

// WaitListen waits until a socket listens on the TCP port in the host, on any address. It does not
// connect. The error wraps that of ctx.
func (h *Host) WaitListen(ctx context.Context, port uint16) error {
	for {
		listeners, err := h.Listeners(port)
		if err != nil {
			return fmt.Errorf("netlab: %s: wait for a listener on port %d: %w", h.Name, port, err)
		}
		if len(listeners) > 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("netlab: %s: nobody listens on port %d: %w", h.Name, port, ctx.Err())
		case <-time.After(2 * time.Millisecond):
		}
	}
}

// Listeners returns the inodes of the sockets that listen on the TCP port in the host, on any
// address.
func (h *Host) Listeners(port uint16) (inodes []uint32, err error) {
	err = h.Do(func() error {
		for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
			sockets, err := netlink.SocketDiagTCP(family)
			if err != nil {
				return err
			}
			for _, s := range sockets {
				if s.State == netlink.TCP_LISTEN && s.ID.SourcePort == port {
					inodes = append(inodes, s.INode)
				}
			}
		}
		return nil
	})
	return inodes, err
}

// startDaemon starts a program that listens on a port of its host, and returns once it does. If the
// program ends before that, the error contains its output. After an error it does not run.
func (c *Cmd) startDaemon(ctx context.Context, port uint16) error {
	// Otherwise another program's listener would count as this program's.
	if others, err := c.host.Listeners(port); err != nil {
		return c.wrap(err)
	} else if len(others) > 0 {
		return c.wrap(fmt.Errorf("port %d: %w", port, syscall.EADDRINUSE))
	}
	if err := c.Start(); err != nil {
		return err
	}
	ready, stop := context.WithCancel(ctx)
	defer stop()
	release := make(chan struct{})
	defer close(release)
	go func() {
		select {
		case <-c.Done():
			stop()
		case <-release:
		}
	}()
	err := c.host.WaitListen(ready, port)
	if err == nil {
		return nil
	}
	select {
	case <-c.Done():
		if c.err != nil {
			return c.err
		}
		return c.wrap(errors.New("ended before it listened on port " + strconv.Itoa(int(port))))
	default:
		c.Stop()
		return err
	}
}

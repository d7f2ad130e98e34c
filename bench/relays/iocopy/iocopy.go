// Package iocopy is a transparent TCP relay as a good Go programmer would write it with the
// standard library: a goroutine per direction, with io.Copy. tpbench compare calls it iocopy.
//
//	relay := iocopy.Relay{Listen: netip.MustParseAddrPort("127.0.0.1:9091")}
//	err := relay.Run(ctx)
package iocopy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	connectTimeout = 5 * time.Second
	bufferSize     = 32 << 10 // what io.Copy takes when it makes its own
)

// Relay accepts connections that TPROXY diverts, and opens the other side of each to its original
// destination, bound to the client's address and port. By default it splices.
type Relay struct {
	// Listen is where it listens.
	Listen netip.AddrPort
	// NoSplice copies through pooled buffers of 32 KiB, as a relay must whose
	// connections are not plain *net.TCPConn: one that encrypts, limits or counts.
	NoSplice bool
	// Pass, if not nil, relays one direction until its end, in place of io.Copy. Each direction
	// calls it in a goroutine of its own. An error ends the pair.
	Pass func(to io.Writer, from *net.TCPConn) error

	buffers sync.Pool // of *[]byte
}

// Run relays until ctx ends; connections that are open then stay until the process
// ends. The error says why it cannot listen.
func (r *Relay) Run(ctx context.Context) error {
	r.buffers.New = func() any {
		b := make([]byte, bufferSize)
		return &b
	}
	config := net.ListenConfig{Control: listening}
	config.SetMultipathTCP(false) // the default since Go 1.24, and of no use here
	l, err := config.Listen(ctx, "tcp", r.Listen.String())
	if err != nil {
		return fmt.Errorf("iocopy: %w", err)
	}
	defer l.Close()
	defer context.AfterFunc(ctx, func() { l.Close() })()
	for {
		c, err := l.Accept()
		switch {
		case err == nil:
			go r.serve(c.(*net.TCPConn))
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, unix.EMFILE), errors.Is(err, unix.ENFILE), errors.Is(err, unix.ENOBUFS), errors.Is(err, unix.ENOMEM):
			time.Sleep(5 * time.Millisecond) // until others are closed
		default:
			return fmt.Errorf("iocopy: %w", err)
		}
	}
}

// serve relays one connection. With TPROXY its local address is the original destination.
func (r *Relay) serve(client *net.TCPConn) {
	defer client.Close()
	dialer := net.Dialer{LocalAddr: client.RemoteAddr(), Control: transparent, Timeout: connectTimeout}
	c, err := dialer.Dial("tcp", client.LocalAddr().String())
	if err != nil {
		client.SetLinger(0) // a reset: the client must not think that it was served
		return
	}
	server := c.(*net.TCPConn)
	defer server.Close()
	done := make(chan struct{})
	go func() {
		defer close(done)
		r.copy(server, client)
	}()
	r.copy(client, server)
	<-done
}

// copy copies until from ends, and passes the FIN on. An error ends both directions.
func (r *Relay) copy(to, from *net.TCPConn) {
	var err error
	switch {
	case r.Pass != nil:
		err = r.Pass(to, from)
	case r.NoSplice:
		buffer := r.buffers.Get().(*[]byte)
		// Wrapped, so that CopyBuffer sees neither ReadFrom nor WriteTo.
		_, err = io.CopyBuffer(struct{ io.Writer }{to}, struct{ io.Reader }{from}, *buffer)
		r.buffers.Put(buffer)
	default:
		_, err = io.Copy(to, from)
	}
	if err == nil {
		err = to.CloseWrite()
	}
	if err != nil {
		for _, c := range []*net.TCPConn{to, from} {
			c.SetLinger(0)
			c.Close()
		}
	}
}

// listening prepares a listener: transparent, and sharing its port with other processes of the
// relay.
func listening(network, address string, raw syscall.RawConn) error {
	if err := transparent(network, address, raw); err != nil {
		return err
	}
	return set(raw, unix.SOL_SOCKET, unix.SO_REUSEPORT)
}

// transparent lets a socket bind to a foreign address, also to one that is in use for another
// destination.
func transparent(_, _ string, raw syscall.RawConn) error {
	if err := set(raw, unix.SOL_IP, unix.IP_TRANSPARENT); err != nil {
		return fmt.Errorf("IP_TRANSPARENT: %w; run as root or grant CAP_NET_ADMIN", err)
	}
	return set(raw, unix.SOL_SOCKET, unix.SO_REUSEADDR)
}

func set(raw syscall.RawConn, level, option int) error {
	var err error
	if e := raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), level, option, 1) }); e != nil {
		return e
	}
	return err
}

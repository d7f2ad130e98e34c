package client

import (
	"context"
	"fmt"
	"net"
	"net/netip"
)

// dial connects. It is not the dialer's DialTCP, which binds to port 0 first even if no
// local address is wanted: such a connection has its port for itself, whatever server
// it goes to, so the kernel looks for one longer and longer, and after 28,000 there is
// none.
func dial(ctx context.Context, dialer *net.Dialer, to netip.AddrPort) (*net.TCPConn, error) {
	c, err := dialer.DialContext(ctx, "tcp", to.String())
	if err != nil {
		return nil, err
	}
	tcp, ok := c.(*net.TCPConn)
	if !ok {
		c.Close()
		return nil, fmt.Errorf("connect to %v: got a %T", to, c)
	}
	return tcp, nil
}

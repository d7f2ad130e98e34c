package client

import (
	"context"
	"fmt"
	"net"
	"net/netip"
)

// dial connects. It does not use the dialer's DialTCP, which binds to port 0 first even without a
// local address: such a connection occupies its port towards all servers, so the kernel searches
// longer and longer for a free one, and after 28,000 connections there is none.
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

package netlab_test

import (
	"context"
	"net/netip"
	"testing"
	"time"

	"github.com/tprelay/tprelay/internal/netlab"
)

func TestCutLinkIsMendedWithItsRoutes(t *testing.T) {
	for _, cut := range []struct {
		host  func(*netlab.Lab) *netlab.Host
		iface string
	}{
		{func(lab *netlab.Lab) *netlab.Host { return lab.H1 }, netlab.Edge},
		{func(lab *netlab.Lab) *netlab.Host { return lab.H2 }, netlab.Right},
		{func(lab *netlab.Lab) *netlab.Host { return lab.H3 }, netlab.Edge},
	} {
		lab := newLab(t, netlab.Config{})
		l, err := lab.H3.Listen("tcp", "[::]:80")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		reach := func(addr netip.Addr, patience time.Duration) error {
			ctx, cancel := context.WithTimeout(context.Background(), patience)
			defer cancel()
			c, err := lab.H1.Dial(ctx, "tcp", netip.AddrPortFrom(addr, 80).String())
			if err == nil {
				c.Close()
			}
			return err
		}
		restore, err := cut.host(lab).CutLink(cut.iface)
		if err != nil {
			t.Fatal(err)
		}
		for _, addr := range []netip.Addr{lab.H3.Addr4, lab.H3.Addr6} {
			if reach(addr, 100*time.Millisecond) == nil {
				t.Errorf("%s: %v can be reached over a link that is cut", cut.iface, addr)
			}
		}
		if err := restore(); err != nil {
			t.Fatal(err)
		}
		for _, addr := range []netip.Addr{lab.H3.Addr4, lab.H3.Addr6} {
			if err := reach(addr, 20*time.Second); err != nil {
				t.Errorf("%s: %v", cut.iface, err)
			}
		}
	}
}

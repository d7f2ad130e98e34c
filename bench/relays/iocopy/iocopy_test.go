package iocopy_test

import (
	"context"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/tprelay/tprelay/bench/relays/iocopy"
	"github.com/tprelay/tprelay/internal/leak"
	"github.com/tprelay/tprelay/internal/netlab/netlabtest"
)

func TestMain(m *testing.M) {
	os.Exit(netlabtest.Main(m)) // for IP_TRANSPARENT
}

func TestContextEndsIt(t *testing.T) {
	leak.Check(t)
	ctx, stop := context.WithCancel(context.Background())
	stop()
	relay := iocopy.Relay{Listen: netip.MustParseAddrPort("127.0.0.1:0")}
	if err := relay.Run(ctx); err != nil {
		t.Error(err)
	}
}

func TestTakenPortIsTold(t *testing.T) {
	leak.Check(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	relay := iocopy.Relay{Listen: l.Addr().(*net.TCPAddr).AddrPort()}
	if err := relay.Run(context.Background()); err == nil || !strings.Contains(err.Error(), "address already in use") {
		t.Errorf("error %v", err)
	}
}

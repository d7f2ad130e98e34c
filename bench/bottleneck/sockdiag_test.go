package bottleneck

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"testing"
)

// connected gives the two ends of a connection over loopback.
func connected(t *testing.T, address string) (client, server net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Skip(err)
	}
	defer l.Close()
	if client, err = net.Dial("tcp", l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	if server, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { server.Close() })
	return client, server
}

func ends(c net.Conn) (local, remote netip.AddrPort) {
	return c.LocalAddr().(*net.TCPAddr).AddrPort(), c.RemoteAddr().(*net.TCPAddr).AddrPort()
}

func TestDiagTellsOfBothEnds(t *testing.T) {
	for _, address := range []string{"127.0.0.1:0", "[::1]:0"} {
		client, server := connected(t, address)
		d, err := OpenDiag()
		if err != nil {
			t.Fatal(err)
		}
		defer d.Close()
		const sent = 12345
		if _, err := client.Write(make([]byte, sent)); err != nil {
			t.Fatal(err)
		}
		one := make([]byte, 1)
		if _, err := server.Read(one); err != nil {
			t.Fatal(err)
		}
		own, err := d.Look(ends(client))
		if err != nil {
			t.Fatal(err)
		}
		if own.CwndPackets == 0 || own.CwndBytes < uint64(own.CwndPackets) || own.RTT == 0 || own.Unread != 0 {
			t.Errorf("%s: the client's end: %+v", address, own)
		}
		// Loopback delivers while it sends.
		other, err := d.Look(ends(server))
		if err != nil {
			t.Fatal(err)
		}
		if other.Unread != sent-1 {
			t.Errorf("%s: the server's end: %+v", address, other)
		}
	}
}

func TestDiagOfNoConnectionSaysSo(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	d, err := OpenDiag()
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	nobody := netip.MustParseAddrPort("127.0.0.1:1")
	listener := l.Addr().(*net.TCPAddr).AddrPort()
	for _, local := range []netip.AddrPort{nobody, listener} {
		if got, err := d.Look(local, nobody); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%v: %+v, %v", local, got, err)
		}
	}
}

func TestOldKernelsTellLess(t *testing.T) {
	if got := parseTCPInfo(make([]byte, 104)); *got != (TCP{}) {
		t.Errorf("%+v", got)
	}
	if got := parseTCPInfo(nil); *got != (TCP{}) {
		t.Errorf("%+v", got)
	}
}

func FuzzDiagAnswers(f *testing.F) {
	client, server := netip.MustParseAddrPort("10.0.0.1:1"), netip.MustParseAddrPort("10.0.0.2:2")
	f.Add([]byte{})
	f.Add(diagRequest(client, server, 1))
	f.Fuzz(func(t *testing.T, answer []byte) {
		if got, err := parseDiag(answer, client, server); (got == nil) == (err == nil) {
			t.Errorf("%+v, %v", got, err)
		}
	})
}

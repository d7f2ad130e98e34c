package engine_test

import (
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tprelay/tprelay/engine"
	"github.com/tprelay/tprelay/tproxy"
)

func TestMaxPairsLetsTheRestWait(t *testing.T) {
	r := newRig(t, engine.Options{MaxPairs: 2, Loops: 1})
	var clients, servers []*net.TCPConn
	for range 2 {
		c, s := r.pair()
		clients, servers = append(clients, c), append(servers, s)
	}
	third := r.dial() // the kernel completes the handshake; the relay leaves it there
	r.until("pause", func(s engine.Stats) bool { return s.AcceptPauses > 0 })
	if s := r.Stats(); s.Active != 2 || s.Accepted != 2 {
		t.Errorf("%d active, %d accepted", s.Active, s.Accepted)
	}
	clients[0].Close()
	servers[0].Close()
	exchange(t, third, r.accept(), noise(1000))
	if s := r.Stats(); s.Active != 2 {
		t.Errorf("%d active", s.Active)
	}
}

// TestEMFILEAtAcceptDoesNotSpin runs itself with few descriptors: the listener waits,
// and goes on when there are some again.
func TestEMFILEAtAcceptDoesNotSpin(t *testing.T) {
	if os.Getenv("TPRELAY_TEST_EMFILE") == "" {
		cmd := exec.Command("/proc/self/exe", "-test.run=^TestEMFILEAtAcceptDoesNotSpin$", "-test.v", "-test.timeout=120s")
		cmd.Env = append(os.Environ(), "TPRELAY_TEST_EMFILE=1")
		if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "--- PASS") {
			t.Fatalf("%v\n%s", err, out)
		}
		return
	}
	r := newRig(t, engine.Options{Loops: 1})
	c, s := r.pair()
	exchange(t, c, s, noise(10))

	var old unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &old); err != nil {
		t.Fatal(err)
	}
	raw := r.dialWithDescriptorsLeft(0)
	before := r.until("pause", func(s engine.Stats) bool { return s.AcceptPauses > 0 && s.AcceptErrors > 0 })
	exchange(t, c, s, noise(10)) // a pair that was let in goes on
	unix.Nanosleep(&unix.Timespec{Nsec: 500e6}, nil)
	if after := r.Stats(); after.Waits-before.Waits > 50 {
		t.Errorf("%d waits in half a second", after.Waits-before.Waits)
	}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &old); err != nil {
		t.Fatal(err)
	}
	exchange(t, r.keep(adopted{raw}.conn(t)), r.accept(), noise(10))

	// One left: enough to accept, not to dial. The client must not be lost.
	raw = r.dialWithDescriptorsLeft(1)
	r.until("accepted", func(s engine.Stats) bool { return s.Accepted == 3 })
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &old); err != nil {
		t.Fatal(err)
	}
	exchange(t, r.keep(adopted{raw}.conn(t)), r.accept(), noise(10))
}

// dialWithDescriptorsLeft connects, having lowered the limit so that the relay can
// open just n more descriptors. The socket becomes a Go connection only when the
// limit is back, since that takes another one.
func (r *rig) dialWithDescriptorsLeft(n int) (fd int) {
	r.t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		r.t.Fatal(err)
	}
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		r.t.Fatal(err)
	}
	// All numbers below the limit must be taken for it to mean anything.
	probe, err := unix.Dup(fd)
	if err != nil {
		r.t.Fatal(err)
	}
	unix.Close(probe)
	limit.Cur = uint64(probe + n)
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		r.t.Fatal(err)
	}
	addr := r.Addrs()[0]
	if err := unix.Connect(fd, &unix.SockaddrInet4{Port: int(addr.Port()), Addr: addr.Addr().As4()}); err != nil {
		r.t.Fatal(err)
	}
	return fd
}

func TestConnectionToTheListenerItselfIsRefusedOnce(t *testing.T) {
	server, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := server.Addr().(*net.TCPAddr).AddrPort().Port()
	server.Close()
	for _, way := range []struct{ listen, self string }{
		{"127.0.0.1", "127.0.0.1"}, {"0.0.0.0", "127.0.0.1"}, {"::", "127.0.0.1"}, {"::1", "::1"}, {"::", "::1"},
	} {
		self := netip.AddrPortFrom(netip.MustParseAddr(way.self), port)
		r := newRig(t, engine.Options{Listeners: []engine.Listener{{
			Address: netip.AddrPortFrom(netip.MustParseAddr(way.listen), port), Mode: tproxy.Forward, Upstream: self,
		}}})
		r.dialResetAt(self.String())
		r.ended(engine.ReasonLoop, 1)
		if s := r.Stats(); s.Accepted != 1 {
			t.Errorf("%d connections, want the one", s.Accepted)
		}
		r.end()
	}
}

// TestRedirectWithoutRuleHasNoDestination: nothing was redirected, so the client
// meant the listener itself.
func TestRedirectWithoutRuleHasNoDestination(t *testing.T) {
	r := newRig(t, engine.Options{Listeners: []engine.Listener{{
		Address: netip.MustParseAddrPort("127.0.0.1:0"), Mode: tproxy.Redirect,
	}}})
	r.dialReset()
	r.until("refused", func(s engine.Stats) bool {
		return s.Ended[engine.ReasonNoDestination]+s.Ended[engine.ReasonLoop] == 1
	})
}

package soak

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tprelay/tprelay/internal/leak"
	"github.com/tprelay/tprelay/internal/netlab"
	"github.com/tprelay/tprelay/internal/netlab/netlabtest"
	"github.com/tprelay/tprelay/tproxy"
)

// workers is how many streams are under way at a time.
const workers = 40

// silentPort is a port of h3 that does not answer; closedPort is one that refuses.
const (
	silentPort = 7777
	closedPort = 7
)

// config is what the environment says.
type config struct {
	duration time.Duration
	seed     uint64
	faults   []string // nil: all
	report   string
	race     bool
}

func configuration(t *testing.T) config {
	t.Helper()
	c := config{duration: 10 * time.Second, seed: rand.Uint64N(1 << 32), report: os.Getenv("TPRELAY_SOAK_REPORT"),
		race: os.Getenv("TPRELAY_SOAK_RACE") != ""}
	var err error
	if text := os.Getenv("TPRELAY_SOAK"); text != "" {
		if c.duration, err = time.ParseDuration(text); err != nil {
			t.Fatalf("TPRELAY_SOAK: %v", err)
		}
	}
	if text := os.Getenv("TPRELAY_SOAK_SEED"); text != "" {
		if c.seed, err = strconv.ParseUint(text, 0, 64); err != nil {
			t.Fatalf("TPRELAY_SOAK_SEED: %v", err)
		}
	}
	if text, ok := os.LookupEnv("TPRELAY_SOAK_FAULTS"); ok {
		c.faults = strings.Split(text, ",")
	}
	return c
}

// world is the lab and all that goes on in it.
type world struct {
	config  config
	lab     *netlab.Lab
	dir     string
	program string
	streams *streams
	server  *server
	ledger  *ledger
	life    atomic.Pointer[life]
	lives   int
	totals  totals

	inherited int // pipes that the relay gets from this test's parent

	calm sync.Mutex // held while a fault of the network lasts: its holder has no other

	mu       sync.Mutex
	failures []string
}

// mostFailures end the run.
const mostFailures = 20

// fail notes a failure and says it at once.
func (w *world) fail(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.failures = append(w.failures, text); len(w.failures) <= mostFailures {
		fmt.Fprintln(os.Stderr, "soak: FAIL:", text)
	}
}

// failed is the number of failures.
func (w *world) failed() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.failures)
}

// build makes the hosts and the program. All is gone when the test is over.
func build(t *testing.T, ctx context.Context, c config) *world {
	t.Helper()
	leak.Check(t)
	dir := t.TempDir()
	w := &world{config: c, dir: dir, program: filepath.Join(dir, "tprelay"), ledger: &ledger{}}
	args := []string{"build", "-o", w.program}
	if c.race {
		args = append(args, "-race")
	}
	if out, err := exec.Command("go", append(args, "github.com/tprelay/tprelay/cmd/tprelay")...).CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	lab := netlabtest.New(t, netlab.Config{})
	w.lab = lab
	if err := w.prepare(ctx); err != nil {
		t.Fatal(err)
	}
	w.streams = &streams{ctx: ctx, ledger: w.ledger, fail: w.fail, open: map[uint64]*stream{}, ends: map[*end]struct{}{}}
	w.server = &server{ctx: ctx, host: lab.H3, streams: w.streams, fail: w.fail}
	return w
}

// prepare sets the hosts up.
func (w *world) prepare(ctx context.Context) error {
	for _, h := range []*netlab.Host{w.lab.H1, w.lab.H2, w.lab.H3} {
		for name, value := range map[string]string{
			// For the relay, what newEnd sets for the ends.
			"net.ipv4.tcp_keepalive_time":   "10",
			"net.ipv4.tcp_keepalive_intvl":  "5",
			"net.ipv4.tcp_keepalive_probes": "4",
			// Many connections, few of which ever meet.
			"net.ipv4.ip_local_port_range": "25000 65000",
		} {
			if err := h.SetSysctl(name, value); err != nil {
				return err
			}
		}
	}
	// What belongs to no socket of the relay must not pass it by: after kill -9 the ends
	// of a stream would talk to each other, with other sequence numbers. Every firewall
	// that keeps state does this.
	err := w.lab.H2.NFT(ctx, `table inet firewall {
		chain forward {
			type filter hook forward priority filter;
			meta l4proto tcp reject with tcp reset
		}
	}`)
	if err != nil {
		return err
	}
	err = w.lab.H3.NFT(ctx, fmt.Sprintf(`table inet silent {
		chain input {
			type filter hook input priority filter;
			tcp dport %d drop
		}
	}`, silentPort))
	if err != nil {
		return err
	}
	_, err = w.lab.H2.Command(ctx, "sh", "-ec",
		"ip route add unreachable 10.77.9.0/24; ip -6 route add unreachable fd77:9::/64").Output()
	return err
}

// address is where a client connects to reach a target.
func (w *world) address(to target, v6 bool, l *life) netip.AddrPort {
	pick := func(four, six netip.Addr, port uint16) netip.AddrPort {
		if v6 {
			return netip.AddrPortFrom(six, port)
		}
		return netip.AddrPortFrom(four, port)
	}
	h3, relay := w.lab.H3, w.lab.H2
	switch to {
	case toClosedPort:
		return pick(h3.Addr4, h3.Addr6, closedPort)
	case toSilentPort:
		return pick(h3.Addr4, h3.Addr6, silentPort)
	case toAbsent:
		return pick(netip.MustParseAddr("10.77.2.99"), netip.MustParseAddr("fd77:2::99"), 80)
	case toUnreachable:
		return pick(netip.MustParseAddr("10.77.9.1"), netip.MustParseAddr("fd77:9::1"), 80)
	case toRelay:
		return pick(relay.Addr4, relay.Addr6, relayPort)
	}
	if l.mode == tproxy.Forward {
		return pick(relay.Addr4, relay.Addr6, relayPort)
	}
	return pick(h3.Addr4, h3.Addr6, serverPort)
}

// quiet lets all streams end, and calls f when nothing is under way: no stream and no
// fault of the network.
func (w *world) quiet(f func()) {
	w.calm.Lock()
	defer w.calm.Unlock()
	w.streams.gate.Lock()
	defer w.streams.gate.Unlock()
	for deadline := time.Now().Add(2 * stall); w.streams.active() > 0; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			w.fail("%d ends do not end", w.streams.active())
			return
		}
	}
	f()
}

package e2e

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/tprelay/tprelay/engine"
	"github.com/tprelay/tprelay/internal/leak"
	"github.com/tprelay/tprelay/internal/netlab"
	"github.com/tprelay/tprelay/internal/netlab/netlabtest"
	"github.com/tprelay/tprelay/rules"
	"github.com/tprelay/tprelay/tproxy"
)

// patience bounds every wait of the tests. It is not a measure of anything.
const patience = 2 * time.Minute

// relayPort is where the relay listens on h2.
const relayPort = 9091

// variant is a way through the relay.
type variant struct {
	mode     tproxy.Mode
	v6       bool
	noSplice bool
}

func (v variant) String() string {
	family, path := "v4", "splice"
	if v.v6 {
		family = "v6"
	}
	if v.noSplice {
		path = "buffer"
	}
	return fmt.Sprintf("%v-%s-%s", v.mode, family, path)
}

// variants are both families and both paths of a mode.
func variants(mode tproxy.Mode) []variant {
	return []variant{{mode, false, false}, {mode, false, true}, {mode, true, false}, {mode, true, true}}
}

// families are both families, by splice.
func families(mode tproxy.Mode) []variant {
	return []variant{{mode, false, false}, {mode, true, false}}
}

// paths are both paths, over IPv4.
func paths(mode tproxy.Mode) []variant {
	return []variant{{mode, false, false}, {mode, false, true}}
}

// setup says how to build a gateway.
type setup struct {
	variant
	lab      netlab.Config
	engine   engine.Options      // but for Listeners, NoSplice, Observer and ThreadInit
	wildcard bool                // listen on [::] in TPROXY mode too
	rules    func(*rules.Config) // changes what is applied
	noRules  bool                // the test diverts by itself, or nothing does
	// In forward mode there is a listener on h2 for each of these destinations,
	// and no rules.
	upstreams func(*gateway) []netip.AddrPort
}

// gateway is a lab with the relay on h2.
type gateway struct {
	*netlab.Lab
	*engine.Engine
	variant
	t    *testing.T
	stop context.CancelFunc
	done chan error
	via  map[netip.AddrPort]netip.AddrPort // in forward mode: where a client goes for a destination

	mu    sync.Mutex
	ended []engine.PairInfo
}

// newLab builds three hosts. When the test ends, nothing of them may be left.
func newLab(t *testing.T, cfg netlab.Config) *netlab.Lab {
	t.Helper()
	leak.Check(t)
	return netlabtest.New(t, cfg)
}

// start builds a gateway. When the test ends, all pairs must end by themselves, the
// engine drains, and nothing of it may be left.
func start(t *testing.T, s setup) *gateway {
	t.Helper()
	lab := newLab(t, s.lab)
	g := &gateway{Lab: lab, variant: s.variant, t: t, done: make(chan error, 1)}

	o := s.engine
	o.Listeners = g.listeners(s)
	cfg := rules.Config{Mode: s.mode, In: []string{netlab.Left}, StateDir: filepath.Join(t.TempDir(), "state")}
	for _, l := range o.Listeners {
		cfg.Listen = append(cfg.Listen, l.Address)
	}
	o.NoSplice = s.noSplice
	o.ThreadInit = lab.H2.Enter
	o.Observer.PairEnded = g.pairEnded
	var err error
	if g.Engine, err = engine.New(o); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	g.stop = stop
	go func() { g.done <- g.Run(ctx) }()
	t.Cleanup(g.end)
	if !s.noRules && s.mode != tproxy.Forward {
		if s.rules != nil {
			s.rules(&cfg)
		}
		g.apply(cfg)
	}
	return g
}

// listeners are those of the engine.
func (g *gateway) listeners(s setup) (ls []engine.Listener) {
	if s.mode == tproxy.Forward {
		g.via = map[netip.AddrPort]netip.AddrPort{}
		for i, up := range s.upstreams(g) {
			at := netip.AddrPortFrom(g.H2.Addr4, relayPort+uint16(i))
			if g.v6 {
				at = netip.AddrPortFrom(g.H2.Addr6, at.Port())
			}
			g.via[up] = at
			ls = append(ls, engine.Listener{Address: at, Mode: s.mode, Upstream: up})
		}
		return ls
	}
	hosts := []string{"127.0.0.1", "::1"}
	if s.mode == tproxy.Redirect || s.wildcard {
		hosts = []string{"::"} // redirected connections come to the address of h2's interface
	}
	for _, host := range hosts {
		ls = append(ls, engine.Listener{Address: netip.AddrPortFrom(netip.MustParseAddr(host), relayPort), Mode: s.mode})
	}
	return ls
}

// apply applies rules on h2 until the test ends and all pairs have. Without rules the ends' last
// packets would not reach the relay, and a pair would wait for the kernel's time-outs.
func (g *gateway) apply(cfg rules.Config) {
	g.t.Helper()
	on := func(what string, f func() error) {
		if err := g.H2.Do(f); err != nil {
			g.t.Errorf("%s: %v", what, err)
		}
	}
	on("apply", func() error { return rules.Apply(context.Background(), cfg) })
	g.t.Cleanup(func() {
		g.awaitEnd()
		on("remove", func() error { return rules.Remove(context.Background(), cfg) })
	})
	on("verify", func() error {
		cfg := cfg
		cfg.CheckListener = true
		problems, err := rules.Verify(context.Background(), cfg)
		for _, p := range problems {
			g.t.Errorf("rules: %v", p)
		}
		return err
	})
	if g.t.Failed() {
		g.t.FailNow()
	}
}

// awaitEnd waits until the pairs have ended by themselves.
func (g *gateway) awaitEnd() (s engine.Stats) {
	for end := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		if s = g.Stats(); s.Active == 0 || time.Now().After(end) {
			return s
		}
	}
}

// end waits until the pairs have ended, ends the engine and checks its last account.
func (g *gateway) end() {
	s := g.awaitEnd()
	if s.Active != 0 {
		g.t.Errorf("pairs did not end by themselves: %+v", s)
		g.Pairs(func(p engine.PairInfo) bool { g.t.Errorf("%+v", p); return true })
		g.Engine.Close()
	}
	g.stop()
	select {
	case err := <-g.done:
		if err != nil && !errors.Is(err, engine.ErrClosed) {
			g.t.Errorf("Run: %v", err)
		}
	case <-time.After(patience):
		g.t.Error("Run did not return")
	}
	s = g.Stats()
	if s.Active != 0 || s.Pending != 0 || s.Memory != 0 || s.PipesInUse != 0 || s.PipesIdle != 0 || s.Buffers != 0 {
		g.t.Errorf("left behind: %+v", s)
	}
	g.t.Logf("accepted %d, opened %d, ended %v, levels %v, dial errors %v, spliced %d up %d down, buffered %d up %d down, pauses %d, stale %d",
		s.Accepted, s.Opened, s.Ended, s.SpoofLevels, s.DialErrors, s.UpstreamSplice, s.DownstreamSplice,
		s.UpstreamBuffer, s.DownstreamBuffer, s.Pauses, s.StaleEvents)
}

// pairEnded notes what became of a pair.
func (g *gateway) pairEnded(p engine.PairInfo) {
	g.mu.Lock()
	g.ended = append(g.ended, p)
	g.mu.Unlock()
}

// endedPairs waits until n pairs have ended, and gives them in that order.
func (g *gateway) endedPairs(n int) []engine.PairInfo {
	g.t.Helper()
	var ended []engine.PairInfo
	g.until(fmt.Sprintf("the end of %d pairs", n), func(s engine.Stats) bool {
		g.mu.Lock()
		defer g.mu.Unlock()
		ended = append([]engine.PairInfo(nil), g.ended...)
		var counted uint64 // a little later than they are told of
		for _, n := range s.Ended {
			counted += n
		}
		return len(ended) >= n && counted >= uint64(n)
	})
	if len(ended) != n {
		g.t.Fatalf("%d pairs have ended, want %d", len(ended), n)
	}
	return ended
}

// until waits for what Stats must show.
func (g *gateway) until(what string, ok func(engine.Stats) bool) engine.Stats {
	g.t.Helper()
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if s := g.Stats(); ok(s) {
			return s
		}
	}
	g.t.Fatalf("never came: %s: %+v", what, g.Stats())
	return engine.Stats{}
}

// client and server are the addresses of h1 and h3 in the family of the test.
func (g *gateway) client() netip.Addr {
	if g.v6 {
		return g.H1.Addr6
	}
	return g.H1.Addr4
}

func (g *gateway) server() netip.Addr {
	if g.v6 {
		return g.H3.Addr6
	}
	return g.H3.Addr4
}

// at is a port of h3.
func (g *gateway) at(port uint16) netip.AddrPort { return netip.AddrPortFrom(g.server(), port) }

// sub runs f as a subtest of the gateway's own test.
func (g *gateway) sub(name string, f func()) {
	outer := g.t
	defer func() { g.t = outer }()
	outer.Run(name, func(t *testing.T) {
		g.t = t
		f()
	})
}

// each runs f as a subtest with a gateway of its own for every variant.
func each(t *testing.T, variants []variant, f func(t *testing.T, g *gateway)) {
	eachWith(t, variants, setup{}, f)
}

// eachWith is each with more to set up.
func eachWith(t *testing.T, variants []variant, s setup, f func(t *testing.T, g *gateway)) {
	for _, v := range variants {
		t.Run(v.String(), func(t *testing.T) {
			s := s
			s.variant = v
			f(t, start(t, s))
		})
	}
}

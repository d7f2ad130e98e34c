package e2e

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/tprelay/tprelay/engine"
	"github.com/tprelay/tprelay/intercept"
	"github.com/tprelay/tprelay/internal/netlab"
	"github.com/tprelay/tprelay/tproxy"
)

// TestClosingMatrix plays every way in which a connection can end over every
// combination of path, mode and family, and over connections that are routed
// through h2 without a relay. What the two ends see, and what Stats counted,
// must be what the cells say; the table of it is in docs/closing.md:
//
//	TPRELAY_WRITE_DOCS=1 go test ./internal/e2e -run TestClosingMatrix
func TestClosingMatrix(t *testing.T) {
	results := results{}
	complete := true
	for _, c := range combinations() {
		complete = t.Run(c.String(), func(t *testing.T) {
			g := start(t, c.setup())
			p := findPlaces(g)
			p.prepare(g)
			l := g.listenOn(g.H3, p.server)
			for _, batch := range batches(c.relayed()) {
				stages := make([]*stage, len(batch))
				for i, cell := range batch {
					stages[i] = newStage(g, c, p, l, cell)
				}
				g.sub(batch[0].batch(), func() {
					play(g, stages)
					for _, s := range stages {
						if want := s.cell.expected(c); s.outcome() != want {
							g.t.Errorf("%s:\ngot  %v\nwant %v", s.cell.name, s.outcome(), want)
						}
						results.add(s.cell, c, s.outcome())
					}
				})
			}
		}) && complete
	}
	if complete && results.complete() {
		compareDocument(t, results.render())
	}
}

// combination is a way between the ends. An empty path is no relay at all: h2 routes.
type combination struct {
	path string // splice, buffer or mixed
	mode tproxy.Mode
	v6   bool
}

// combinations are all there are.
func combinations() (all []combination) {
	for _, v6 := range []bool{false, true} {
		all = append(all, combination{mode: tproxy.TPROXY, v6: v6}) // of an engine to which nothing is diverted
	}
	for _, path := range []string{"splice", "buffer", "mixed"} {
		for _, mode := range []tproxy.Mode{tproxy.TPROXY, tproxy.Redirect, tproxy.Forward} {
			for _, v6 := range []bool{false, true} {
				all = append(all, combination{path, mode, v6})
			}
		}
	}
	return all
}

func (c combination) relayed() bool { return c.path != "" }

// buffers: bytes of that direction go through buffers, not by splice.
func (c combination) buffers(upstream bool) bool {
	return c.path == "buffer" || c.path == "mixed" && upstream
}

func (c combination) String() string {
	if !c.relayed() {
		return "direct, " + c.family()
	}
	return fmt.Sprintf("%s, %v, %s", c.path, c.mode, c.family())
}

func (c combination) family() string {
	if c.v6 {
		return "IPv6"
	}
	return "IPv4"
}

// setup says how the gateway is built.
func (c combination) setup() setup {
	s := setup{
		variant: variant{mode: c.mode, v6: c.v6, noSplice: c.path == "buffer"},
		noRules: !c.relayed(),
		// Links of the lab take no time, so an ICMP error for the first SYN may come
		// while connect(2) still holds the socket: then Linux drops it. The
		// second SYN follows after 1 s.
		engine: engine.Options{ConnectTimeout: 1500 * time.Millisecond},
		upstreams: func(g *gateway) []netip.AddrPort {
			p := findPlaces(g)
			return []netip.AddrPort{p.server, p.refused, p.rejected, p.silent, p.backlog, p.beyond, p.absent, p.nowhere}
		},
	}
	if c.path == "mixed" {
		looksOn := intercept.HandlerFunc(func(*intercept.Chunk) intercept.Verdict { return intercept.Forward })
		s.engine.Interceptor = intercept.InterceptorFunc(func(intercept.Pair) intercept.Decision {
			return intercept.Decision{Upstream: looksOn}
		})
	}
	return s
}

// places are where a client may want to go.
type places struct {
	server   netip.AddrPort // somebody listens
	refused  netip.AddrPort // nobody does
	rejected netip.AddrPort // a packet filter answers with an ICMP error
	silent   netip.AddrPort // ... does not answer
	backlog  netip.AddrPort // somebody listens and does not accept
	beyond   netip.AddrPort // behind h3, which says that it is unreachable
	absent   netip.AddrPort // an address of h3's net that nobody has
	nowhere  netip.AddrPort // a net to which h2 knows no way
}

func findPlaces(g *gateway) *places {
	absent, nowhere, beyond := "10.77.2.99", "10.77.9.1", "10.77.3.4"
	if g.v6 {
		absent, nowhere, beyond = "fd77:2::99", "fd77:9::1", "fd77:3::4"
	}
	http := func(host string) netip.AddrPort { return netip.AddrPortFrom(netip.MustParseAddr(host), 80) }
	return &places{
		server: g.at(8001), refused: g.at(8002), rejected: g.at(8003), silent: g.at(8004), backlog: g.at(8005),
		beyond: http(beyond), absent: http(absent), nowhere: http(nowhere),
	}
}

// prepare makes the places what they are, and the hosts ready for the cells.
func (p *places) prepare(g *gateway) {
	g.t.Helper()
	g.nft(g.H3, strings.NewReplacer("REJECTED", fmt.Sprint(p.rejected.Port()), "SILENT", fmt.Sprint(p.silent.Port())).Replace(`table inet closing {
		chain input {
			type filter hook input priority filter;
			tcp dport SILENT drop
			tcp dport REJECTED reject with icmpx type port-unreachable
		}
		chain forward {
			type filter hook forward priority filter;
			reject with icmpx type host-unreachable
		}
	}`))
	g.routeBeyond()
	family := "ipv4"
	if g.v6 {
		family = "ipv6"
	}
	// An end can send all that a cell has it send, FIN included, before the
	// other one reads.
	g.setSysctl(g.H1, "net.ipv4.tcp_wmem", "4096 33554432 33554432")
	g.setSysctl(g.H3, "net.ipv4.tcp_wmem", "4096 33554432 33554432")
	// The relay cannot take as much as an end can send.
	g.setSysctl(g.H2, "net.ipv4.tcp_wmem", "4096 16384 524288")
	g.setSysctl(g.H2, "net.ipv4.tcp_rmem", "4096 131072 524288")
	// Every ICMP error is sent.
	g.setSysctl(g.H2, "net.ipv4.icmp_ratelimit", "0")
	g.setSysctl(g.H3, "net.ipv4.icmp_ratelimit", "0")
	g.setSysctl(g.H2, "net.ipv6.icmp.ratelimit", "0")
	g.setSysctl(g.H3, "net.ipv6.icmp.ratelimit", "0")
	// Hosts give up soon: after 3 s without an answer to a SYN, and 100 ms without a neighbour's.
	g.setSysctl(g.H1, "net.ipv4.tcp_syn_retries", "1")
	g.setSysctl(g.H2, "net."+family+".neigh."+netlab.Right+".mcast_solicit", "1")
	g.setSysctl(g.H2, "net."+family+".neigh."+netlab.Right+".retrans_time_ms", "100")
}

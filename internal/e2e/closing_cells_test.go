package e2e

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/tprelay/tprelay/engine"
	"github.com/tprelay/tprelay/tproxy"
)

// Amounts of bytes in the cells.
const (
	few  = 1000
	much = 8 * mebibyte // no socket buffer takes as much from a sender whose receiver does not read
)

// sections are the headings of the cells.
var sections = [...]string{"A FIN from one end", "A FIN from both ends at once", "An RST", "A FIN and an RST", "Reading is shut down", "No connection to the server"}

// cells are all there are.
func cells() []cell {
	return slices.Concat(finCells(), bothFINCells(), fromEither(resetCells()), fromEither(halfResetCells()), fromEither(shutCells()), dialCells())
}

// fromEither gives each cell twice: with the client as the first end, and with the
// server. What is written of the client is then true of the server.
func fromEither(cells []cell) (both []cell) {
	for _, first := range []string{"client", "server"} {
		for _, c := range cells {
			second := "server"
			c.first = first
			if first == "server" {
				second = "client"
				c.want.client, c.want.server = c.want.server, c.want.client
				if c.direct != nil {
					c.direct = &outcome{client: c.direct.server, server: c.direct.client}
				}
			}
			c.name = strings.NewReplacer("FIRST", first, "SECOND", second).Replace(c.name)
			both = append(both, c)
		}
	}
	return both
}

func why(r engine.Reason) string { return r.String() }

// finCells: the FIN travels behind the last byte, and the other direction goes on.
func finCells() (all []cell) {
	for _, n := range []int64{0, 1, much} {
		for _, back := range []int64{0, 1, much} {
			all = append(all, cell{
				section: 0,
				name:    fmt.Sprintf("FIRST: %s, FIN; SECOND: %s before, and %s, FIN after", amount(n), amount(back), amount(few)),
				want:    outcome{view{back + few, fin}, view{n, fin}, why(engine.ReasonEOF)},
				drive: func(s *stage, first, second *actor) {
					s.open()
					second.say(back)
					first.say(n)
					first.finish()
					second.hear()
					first.listen(back)
					second.say(few)
					second.finish()
					first.hear()
				},
			})
		}
	}
	return fromEither(all)
}

// bothFINCells: neither end has read the other's FIN when it sends its own.
func bothFINCells() (all []cell) {
	for _, n := range []int64{0, few, much} {
		all = append(all, cell{
			section: 1,
			name:    fmt.Sprintf("both: %s, FIN", amount(n)),
			want:    outcome{view{n, fin}, view{n, fin}, why(engine.ReasonEOF)},
			drive: func(s *stage, first, second *actor) {
				s.open()
				for _, a := range []*actor{first, second} {
					a.say(n)
				}
				for _, a := range []*actor{first, second} {
					a.finish()
				}
				for _, a := range []*actor{first, second} {
					a.hear()
				}
			},
		})
	}
	return all
}

// resetCells: what had arrived before the RST is delivered before it.
func resetCells() []cell {
	return []cell{{
		section: 2,
		name:    fmt.Sprintf("%s each way, all read; FIRST: RST", amount(few)),
		want:    outcome{view{bytes: few}, view{few, reset}, why(engine.ReasonReset)},
		drive: func(s *stage, first, second *actor) {
			s.open()
			first.say(few)
			second.listen(few)
			second.say(few)
			first.listen(few)
			first.abort()
			second.hear()
		},
	}, {
		section: 2,
		name:    fmt.Sprintf("FIRST: %s, RST at once", amount(few)),
		want:    outcome{view{}, view{few, reset}, why(engine.ReasonReset)},
		drive: func(s *stage, first, second *actor) {
			s.open()
			first.say(few)
			first.abort()
			second.hear()
		},
	}, {
		// An RST that overtakes what waits in the relay loses bytes that the sender
		// knows to have arrived: envoyproxy/envoy issue 45267.
		section: 2,
		name:    fmt.Sprintf("FIRST: %s, as far as they go while SECOND reads nothing; RST; then SECOND reads", amount(much)),
		want:    outcome{view{}, view{acknowledged, reset}, why(engine.ReasonReset)},
		drive: func(s *stage, first, second *actor) {
			s.open()
			first.stuff()
			first.abort()
			second.hearAcknowledged()
		},
	}, {
		section: 2,
		name:    fmt.Sprintf("SECOND: %s, as far as they go; FIRST reads nothing: RST", amount(much)),
		want:    outcome{view{}, view{0, reset}, why(engine.ReasonReset)},
		drive: func(s *stage, first, second *actor) {
			s.open()
			second.stuff()
			first.abort()
			second.hear()
		},
	}, {
		section: 2,
		name:    fmt.Sprintf("SECOND: %s; FIRST: close(2) without reading them, which sends an RST", amount(few)),
		want:    outcome{view{}, view{0, reset}, why(engine.ReasonReset)},
		drive: func(s *stage, first, second *actor) {
			s.open()
			second.say(few)
			first.awaitInbox(few)
			first.Close()
			second.hear()
		},
	}}
}

// halfResetCells: an RST on a connection of which one direction has ended.
func halfResetCells() []cell {
	return []cell{{
		section: 3,
		name:    fmt.Sprintf("FIRST: %s, FIN; when SECOND has read them, RST", amount(few)),
		want:    outcome{view{}, view{few, finThenReset}, why(engine.ReasonReset)},
		drive: func(s *stage, first, second *actor) {
			s.open()
			first.say(few)
			first.finish()
			second.hear()
			first.abort()
			second.awaitGone()
		},
	}, {
		// The relay may learn of both together.
		section: 3,
		name:    fmt.Sprintf("FIRST: %s, FIN, RST at once", amount(few)),
		want:    outcome{view{}, view{few, finThenReset}, why(engine.ReasonReset)},
		drive: func(s *stage, first, second *actor) {
			s.open()
			first.say(few)
			first.finish()
			first.abort()
			second.hear()
			second.awaitGone()
		},
	}, {
		section: 3,
		name:    fmt.Sprintf("FIRST: FIN; SECOND: %s, RST", amount(few)),
		want:    outcome{view{few, reset}, view{0, fin}, why(engine.ReasonReset)},
		drive: func(s *stage, first, second *actor) {
			s.open()
			first.finish()
			second.hear()
			second.say(few)
			second.abort()
			first.hear()
		},
	}}
}

// shutCells: Linux tells the peer nothing of shutdown(SHUT_RD), and keeps what comes.
func shutCells() []cell {
	return []cell{{
		section: 4,
		name:    fmt.Sprintf("FIRST: shutdown(SHUT_RD); SECOND: %s, FIN; FIRST: %s, FIN", amount(few), amount(few)),
		want:    outcome{view{few, fin}, view{few, fin}, why(engine.ReasonEOF)},
		drive: func(s *stage, first, second *actor) {
			s.open()
			first.shutReading()
			second.say(few)
			first.awaitInbox(few)
			second.finish()
			first.say(few)
			first.finish()
			second.hear()
			first.hear()
		},
	}}
}

// dialCells: the client has its connection to the relay before the relay knows that it
// gets none to the server. So it is told by an RST what connect(2) would have told it.
func dialCells() []cell {
	fails := func(name string, at func(*places) netip.AddrPort, errno string) cell {
		return cell{
			section: 5,
			name:    name,
			want:    outcome{client: view{0, reset}, reason: why(engine.ReasonDialError) + " " + errno},
			direct:  &outcome{client: view{0, errno}},
			slow:    true,
			drive:   func(s *stage, _, _ *actor) { s.call(at(s.places)) },
		}
	}
	absent := fails("no such host on the relay's own link", func(p *places) netip.AddrPort { return p.absent }, "EHOSTUNREACH")
	// The kernel of the relay's host tells the SYN's source address that it found no neighbour.
	// With TPROXY that address is the client's, which ignores it, as its own connection stands.
	absent.except = &exception{
		in:   func(c combination) bool { return c.mode == tproxy.TPROXY },
		want: outcome{client: view{0, reset}, reason: why(engine.ReasonConnectTimeout)},
	}
	timeout := fails("SYNs are dropped on the way", func(p *places) netip.AddrPort { return p.silent }, "ETIMEDOUT")
	timeout.want.reason = why(engine.ReasonConnectTimeout)
	return []cell{
		fails("nobody listens: the server's host answers with an RST", func(p *places) netip.AddrPort { return p.refused }, "ECONNREFUSED"),
		fails("a packet filter refuses: ICMP port unreachable", func(p *places) netip.AddrPort { return p.rejected }, "ECONNREFUSED"),
		fails("a router behind the relay: ICMP host unreachable", func(p *places) netip.AddrPort { return p.beyond }, "EHOSTUNREACH"),
		absent,
		fails("the relay's host has no route", func(p *places) netip.AddrPort { return p.nowhere }, "ENETUNREACH"),
		timeout,
		{
			section: 5,
			name:    "SYNs are dropped on the way, and the client resets before the time is up",
			alone:   true,
			want:    outcome{reason: why(engine.ReasonReset)},
			drive: func(s *stage, _, _ *actor) {
				s.client.TCPConn = s.dial(s.places.silent)
				s.until("the pair", func(now engine.Stats) bool { return now.Active == 1 })
				s.client.abort()
			},
		},
		{
			section: 5,
			name:    "the server's listener is closed before it has accepted the connection",
			want:    outcome{client: view{0, reset}, reason: why(engine.ReasonReset)},
			drive: func(s *stage, _, _ *actor) {
				l := s.listenOn(s.H3, s.places.backlog)
				s.client.TCPConn = s.dial(l.at)
				s.awaitBacklog(l)
				l.Close()
				s.client.hear()
			},
		},
	}
}

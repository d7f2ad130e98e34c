package e2e

import (
	"io"
	"net"
	"testing"

	"github.com/tprelay/tprelay/engine"
	"github.com/tprelay/tprelay/tproxy"
)

// modesAndPaths are all variants of TPROXY, and both families of REDIRECT.
func modesAndPaths() []variant {
	return append(variants(tproxy.TPROXY), families(tproxy.Redirect)...)
}

const mebibyte = 1 << 20

// ends calls f twice, with each end as the first.
func ends(t *testing.T, g *gateway, l *listener, f func(who string, first, second *net.TCPConn)) {
	t.Helper()
	client, server := g.pair(l)
	f("client first", client, server)
	client, server = g.pair(l)
	f("server first", server, client)
}

func TestHalfCloseDeliversLateReply(t *testing.T) {
	each(t, modesAndPaths(), func(t *testing.T, g *gateway) {
		l := g.listen()
		ends(t, g, l, func(who string, first, second *net.TCPConn) {
			sent := send(first, stream(1, mebibyte), true)
			expect(t, who+": second", second, 1, mebibyte)
			if err := <-sent; err != nil {
				t.Fatalf("%s: %v", who, err)
			}
			// Only now that the first has long ended does the second answer.
			sent = send(second, stream(2, mebibyte), true)
			expect(t, who+": first", first, 2, mebibyte)
			if err := <-sent; err != nil {
				t.Fatalf("%s: %v", who, err)
			}
			first.Close()
			second.Close()
		})
		for _, p := range g.endedPairs(2) {
			if p.Reason != engine.ReasonEOF || p.Upstream.Bytes != mebibyte || p.Downstream.Bytes != mebibyte {
				t.Errorf("%+v", p)
			}
		}
	})
}

func TestFINWithBytesStillOnTheOtherWay(t *testing.T) {
	const much = 8 * mebibyte
	each(t, modesAndPaths(), func(t *testing.T, g *gateway) {
		l := g.listen()
		ends(t, g, l, func(who string, first, second *net.TCPConn) {
			// The first reads nothing before its own FIN has arrived, so the other
			// way is full of bytes when that happens.
			slow := send(second, stream(4, much), true)
			sent := send(first, stream(3, mebibyte), true)
			expect(t, who+": second", second, 3, mebibyte)
			expect(t, who+": first", first, 4, much)
			for _, done := range []<-chan error{sent, slow} {
				if err := <-done; err != nil {
					t.Fatalf("%s: %v", who, err)
				}
			}
			first.Close()
			second.Close()
		})
		for _, p := range g.endedPairs(2) {
			if p.Reason != engine.ReasonEOF {
				t.Errorf("%+v", p)
			}
		}
	})
}

func TestResetPassesToTheOtherSide(t *testing.T) {
	each(t, modesAndPaths(), func(t *testing.T, g *gateway) {
		l := g.listen()
		ends(t, g, l, func(who string, first, second *net.TCPConn) {
			if _, err := first.Write([]byte("bye")); err != nil {
				t.Fatal(err)
			}
			// What was read before the reset was delivered before it.
			got := make([]byte, 3)
			if _, err := io.ReadFull(second, got); err != nil || string(got) != "bye" {
				t.Fatalf("%s: %q, %v", who, got, err)
			}
			rst(first)
			expectReset(t, who, second)
			second.Close()
		})
		for _, p := range g.endedPairs(2) {
			if p.Reason != engine.ReasonReset {
				t.Errorf("%+v", p)
			}
		}
	})
}

func TestResetIsNotHeldUpByUnsentBytes(t *testing.T) {
	each(t, modesAndPaths(), func(t *testing.T, g *gateway) {
		l := g.listen()
		ends(t, g, l, func(who string, first, second *net.TCPConn) {
			// The second never reads: its window, the relay and the first's own
			// buffers fill up.
			n := g.Stats().Pauses
			sent := send(first, stream(5, 64*mebibyte), false)
			g.until("a pause", func(s engine.Stats) bool { return s.Pauses > n })
			rst(second)
			if err := <-sent; err == nil {
				t.Fatalf("%s: 64 MiB were taken though nobody read", who)
			}
			first.Close()
		})
		for _, p := range g.endedPairs(2) {
			if p.Reason != engine.ReasonReset {
				t.Errorf("%+v", p)
			}
		}
	})
}

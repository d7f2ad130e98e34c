// Package engine is a TCP relay to embed: it accepts connections, or takes over
// accepted ones, opens a second connection for each, and moves bytes between
// the two, never faster than the receiver takes them.
//
// A complete program, which relays port 9091 of this host to port 80 of another and
// needs no privileges:
//
//	package main
//
//	import (
//		"context"
//		"log"
//		"net/netip"
//		"os/signal"
//		"syscall"
//
//		"github.com/tprelay/tprelay/engine"
//		"github.com/tprelay/tprelay/tproxy"
//	)
//
//	func main() {
//		relay, err := engine.New(engine.Options{Listeners: []engine.Listener{{
//			Address:  netip.MustParseAddrPort("127.0.0.1:9091"),
//			Mode:     tproxy.Forward,
//			Upstream: netip.MustParseAddrPort("192.0.2.7:80"),
//		}}})
//		if err != nil {
//			log.Fatal(err)
//		}
//		ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
//		defer stop()
//		if err := relay.Run(ctx); err != nil {
//			log.Fatal(err)
//		}
//	}
//
// With tproxy.TPROXY as the Mode and no Upstream, the listener is transparent: packet filter rules
// hand it connections that were meant for other hosts, and each goes to its own original
// destination, under the client's address and port. That needs CAP_NET_ADMIN. Package rules makes
// the rules.
//
// # Pairs and directions
//
// The accepted connection is the incoming flow, the one that the engine opens is the
// outgoing flow, and the two are a pair. A pair has two directions that go on by
// themselves: upstream from the client, downstream to it. A FIN is passed on behind
// the last byte of its direction and leaves the other one alone; anything else that
// ends one flow ends both, with an RST, so that nobody takes an accident for a
// clean end. [Reason] names the ways.
//
// # The loops
//
// [Engine.Run] works with one event loop per CPU, each on an edge-triggered
// epoll instance of its own. There is no goroutine per connection. A pair lives
// on one loop from its accept to its end; loops share no pair, no pipe and no
// buffer, so there are no locks on the way of the bytes. Each wake-up collects its
// events, then gives every pair that can do something one turn of a bounded number
// of bytes, so that a fast connection does not keep the others waiting.
//
// Bytes go by splice(2), socket to pipe to socket, and do not enter user space. A
// few bytes at a time, and directions that an interceptor looks at, go through
// buffers. Pipes and buffers are borrowed while bytes wait in them: an idle pair
// holds two descriptors and its record, nothing else.
//
// # Flow control
//
// Bytes that were taken from one side and not yet accepted by the other are
// pending. At [Options].HighWatermark pending bytes a direction stops reading; the
// kernel's receive buffer fills, its window closes, and the sender slows down to
// what the receiver takes. At LowWatermark it reads on. A direction that keeps
// pausing is also throttled through the buffers of its two sockets, which else
// hide megabytes from the sender; that is lifted when the pauses end.
// MemoryLimit bounds the pending bytes of all pairs together.
//
// # Replacing the program
//
// [Engine.HandOver] gives the listeners and the live pairs to the engine of another
// process, which was made by [TakeOver]: connections go on there, pending bytes
// included, and none is refused meanwhile. Whatever breaks off in the middle, each pair has one
// owner, or is reset at both ends.
//
// # Invariants
//
//   - Bytes arrive in order, once, and unchanged unless a handler changes them. A
//     clean end means that all of them did.
//   - A direction reads no more than HighWatermark ahead of its sink, and all
//     directions together no more than MemoryLimit, buffers and pipes counted by
//     capacity. What handlers make of few bytes that they are shown when memory is
//     gone, and what they hold back, comes on top.
//   - A descriptor is registered with epoll once, for everything; what is reported of it
//     never changes. To pause is not to read.
//   - Nothing is allocated per byte, per event, or per pair once the loop has
//     seen as many pairs before; interceptors and observers pay for themselves.
//   - What is called on the loop (interceptors, handlers, [Observer]) must not
//     block: all pairs of that loop would wait. One that takes more than a second is
//     logged. One that panics ends its pair ([ReasonPanicked]); the others go on.
//   - Interceptors, handlers and observers may call the engine. Calls that wait for the loops
//     return [ErrOnLoop] there: Pairs, Ping and HandOver.
//
// # Limits
//
// Linux only, TCP only. IPv4 and IPv6 are not translated into each other in the
// client's name. At most 256 loops, 64 listeners, and a high watermark of 1 GiB.
// A pair never moves to another loop. Names are not resolved: destinations are
// addresses.
package engine

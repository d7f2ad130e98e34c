// Package engine is a TCP relay to embed. It accepts connections, or adopts accepted ones, opens a
// second connection for each, and moves bytes between the two, no faster than the receiver accepts
// them.
//
// A complete program, which relays port 9091 of this host to port 80 of another and needs no
// privileges:
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
// The accepted connection is the incoming flow, the connection that the engine opens is the
// outgoing flow, and the two are a pair. A pair has two directions, which are independent: upstream
// from the client, downstream to it. A FIN is passed on behind the last byte of its direction and
// leaves the other direction open. Everything else that ends one flow resets both, so that no
// program takes a failure for a clean end. [Reason] lists how pairs end.
//
// # Loops
//
// [Engine.Run] runs one event loop per CPU. There is no goroutine per connection. A pair stays on
// one loop from its accept to its end, and loops share no pair, pipe or buffer, so bytes move
// without locks. Each wake-up gives every pair that can move bytes one turn with a bounded number
// of bytes, so that a fast connection does not delay the others.
//
// Bytes go by splice(2), from socket to pipe to socket, and do not enter user space. Messages of a
// few bytes, and directions with a handler, go through buffers. Pipes and buffers are borrowed
// while bytes wait in them: an idle pair holds two descriptors and its record.
//
// # Flow control
//
// Bytes that were read from one side and are not yet accepted by the other are pending. At
// [Options].HighWatermark pending bytes a direction stops reading. The kernel's receive buffer then
// fills, its window closes, and the sender slows down to the receiver's speed. At LowWatermark the
// direction reads again. A direction that keeps stalling is also throttled through the buffers of
// its two sockets, which otherwise hide megabytes from the sender. MemoryLimit bounds the pending
// bytes of all pairs together.
//
// # Callbacks
//
// Interceptors, handlers and the functions of [Observer] are called on the loop of their pair. They
// must not block: all pairs of that loop would wait. A call that takes more than a second is
// logged. A call that panics ends its pair ([ReasonPanicked]) and nothing else. Callbacks may call
// every method of the Engine; those that wait for the loops return [ErrOnLoop] then: Pairs, Ping
// and HandOver.
//
// # Replacing the program
//
// [Engine.HandOver] gives the listeners and the live pairs to the engine of another process, which
// [TakeOver] has made. Connections go on there, with their pending bytes, and no client is refused
// meanwhile. Wherever this breaks off, each pair belongs to one of the two engines, or is reset at
// both ends.
//
// # Guarantees
//
//   - Bytes arrive in order, once, and unchanged unless a handler changes them. A clean end means
//     that all of them arrived.
//   - A direction reads no more than HighWatermark ahead of its sink, and all directions together
//     no more than MemoryLimit, where buffers and pipes count by their capacity. What handlers make
//     of the few bytes that they see when memory is used up, and what they hold back, is not
//     included.
//   - The engine allocates nothing per byte or event, and nothing per pair once a loop has had as
//     many pairs before. Interceptors and observers allocate what they need.
//
// # Limits
//
// Linux only, TCP only. Spoofing cannot translate between IPv4 and IPv6. At most 256 loops, 64
// listeners, and a high watermark of 1 GiB. Destinations are addresses: names are not resolved.
//
// # Stability
//
// From version 1 on, packages engine, intercept and tproxy keep to semantic versioning: what a
// program uses of them keeps compiling and working with every version 1. Packages engine/epoll and
// splice are parts of the engine and may change with any version. Packages admin and rules have no
// promise yet. Engines of different versions can hand over to each other, or the hand-over fails
// before any pair has moved.
package engine

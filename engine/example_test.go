package engine_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync/atomic"
	"syscall"

	"github.com/tprelay/tprelay/engine"
	"github.com/tprelay/tprelay/intercept"
	"github.com/tprelay/tprelay/tproxy"
)

// A relay in forward mode: what connects to it is relayed to one fixed address.
// It needs no privileges.
func Example() {
	server := greeter() // a TCP server that says hello

	relay, err := engine.New(engine.Options{
		Listeners: []engine.Listener{{
			Address:  netip.MustParseAddrPort("127.0.0.1:0"),
			Mode:     tproxy.Forward,
			Upstream: server,
		}},
	})
	if err != nil {
		panic(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error)
	go func() { ended <- relay.Run(ctx) }()

	fmt.Print(ask(relay.Addrs()[0])) // connect to the relay, read to the end
	stop()
	fmt.Println("error:", <-ended)
	fmt.Println("pairs that ended cleanly:", relay.Stats().Ended[engine.ReasonEOF])

	// Output:
	// hello
	// error: <nil>
	// pairs that ended cleanly: 1
}

// An interceptor that puts a line before everything the server says, then lets go:
// the rest of that direction is spliced, and so is the whole other direction.
func Example_interceptor() {
	banner := intercept.InterceptorFunc(func(p intercept.Pair) intercept.Decision {
		return intercept.Decision{
			Downstream: intercept.HandlerFunc(func(c *intercept.Chunk) intercept.Verdict {
				c.WriteString("relayed by tprelay\n")
				return intercept.Detach
			}),
		}
	})

	relay, err := engine.New(engine.Options{
		Interceptor: banner,
		Listeners: []engine.Listener{{
			Address:  netip.MustParseAddrPort("127.0.0.1:0"),
			Mode:     tproxy.Forward,
			Upstream: greeter(),
		}},
	})
	if err != nil {
		panic(err)
	}
	ended := make(chan error)
	go func() { ended <- relay.Run(context.Background()) }()

	fmt.Print(ask(relay.Addrs()[0]))
	relay.Close()
	<-ended

	// Output:
	// relayed by tprelay
	// hello
}

// An observer that counts the connections that their servers refused.
func Example_observer() {
	var refused atomic.Int64
	observer := engine.Observer{
		PairEnded: func(p engine.PairInfo) {
			if errors.Is(p.Err, syscall.ECONNREFUSED) {
				refused.Add(1)
			}
		},
	}

	relay, err := engine.New(engine.Options{
		Observer: observer,
		Listeners: []engine.Listener{{
			Address:  netip.MustParseAddrPort("127.0.0.1:0"),
			Mode:     tproxy.Forward,
			Upstream: netip.MustParseAddrPort("127.0.0.1:1"), // where nothing listens
		}},
	})
	if err != nil {
		panic(err)
	}
	ended := make(chan error)
	go func() { ended <- relay.Run(context.Background()) }()

	conn, err := net.Dial("tcp", relay.Addrs()[0].String())
	if err == nil { // the reset may be as fast
		_, err = conn.Read(make([]byte, 1))
		conn.Close()
	}
	fmt.Println("reset:", errors.Is(err, syscall.ECONNRESET))
	relay.Close()
	<-ended
	fmt.Println("refused:", refused.Load())

	// Output:
	// reset: true
	// refused: 1
}

// greeter serves one connection and gives the address where.
func greeter() netip.AddrPort {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	go func() {
		defer listener.Close()
		conn, err := listener.Accept()
		if err != nil {
			panic(err)
		}
		defer conn.Close()
		io.WriteString(conn, "hello\n")
		io.Copy(io.Discard, conn) // until the client has ended too
	}()
	return netip.MustParseAddrPort(listener.Addr().String())
}

// ask connects to addr, ends its own direction and reads what comes.
func ask(addr netip.AddrPort) string {
	conn, err := net.Dial("tcp", addr.String())
	if err != nil {
		panic(err)
	}
	defer conn.Close()
	conn.(*net.TCPConn).CloseWrite()
	answer, err := io.ReadAll(conn)
	if err != nil {
		panic(err)
	}
	return string(answer)
}

package engine_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/netip"
	"os"
	"time"

	"github.com/tprelay/tprelay/engine"
	"github.com/tprelay/tprelay/tproxy"
)

// With relayVariable set, this binary is a relay in front of the address in it, with
// the options that relayOptionsVariable names. It uses no sockets but the engine's.
const (
	relayVariable        = "TPRELAY_TEST_RELAY"
	relayOptionsVariable = "TPRELAY_TEST_RELAY_OPTIONS"
)

var relayOptions = map[string]engine.Options{
	"":              {Loops: 2},
	"one loop":      {Loops: 1},
	"no splice":     {Loops: 1, NoSplice: true},
	"keep no pipes": {Loops: 2, PipeSize: 4096, Pipes: 3},
}

// serveRelay writes the relay's address, serves until the input ends, and writes what is
// left.
func serveRelay() {
	out := json.NewEncoder(os.Stdout)
	time.Sleep(time.Nanosecond) // with the first timer the runtime opens its own poller, which stays
	before := openDescriptors()
	o, ok := relayOptions[os.Getenv(relayOptionsVariable)]
	if !ok {
		panic("unknown options")
	}
	o.Listeners = []engine.Listener{{
		Address:  netip.MustParseAddrPort("127.0.0.1:0"),
		Mode:     tproxy.Forward,
		Upstream: netip.MustParseAddrPort(os.Getenv(relayVariable)),
	}}
	e, err := engine.New(o)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	done := make(chan error)
	go func() { done <- e.Run(context.Background()) }()
	out.Encode(e.Addrs()[0].String())
	io.Copy(io.Discard, os.Stdin)
	for end := time.Now().Add(patience); e.Stats().Active > 0 && time.Now().Before(end); {
		time.Sleep(10 * time.Millisecond)
	}
	e.Close()
	if err := <-done; err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	out.Encode(map[string]any{"Left": openDescriptors() - before, "Stats": e.Stats()})
}

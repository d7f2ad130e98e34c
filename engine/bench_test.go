package engine_test

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"runtime/debug"
	"strings"
	"testing"
	"time"

	"github.com/tprelay/tprelay/engine"
	"github.com/tprelay/tprelay/tproxy"
)

func benchRelay(b testing.TB, o engine.Options, upstream string) (*engine.Engine, func()) {
	b.Helper()
	o.Listeners = []engine.Listener{{
		Address: netip.MustParseAddrPort("127.0.0.1:0"), Mode: tproxy.Forward, Upstream: netip.MustParseAddrPort(upstream),
	}}
	e, err := engine.New(o)
	if err != nil {
		b.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- e.Run(ctx) }()
	return e, func() {
		e.Close()
		stop()
		if err := <-done; err != nil {
			b.Error(err)
		}
	}
}

// idlePairs is what 8,000 idle pairs cost the relay's process: resident bytes and
// descriptors per pair, with pipes and buffers in use. Both ends of every pair are in
// another process, which is this test binary again.
func idlePairs(t testing.TB, pairs int) (resident, descriptors float64, s engine.Stats) {
	t.Helper()
	ends, err := startEnds()
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := ends.stop(); err != nil {
			t.Error(err)
		}
	}()
	e, done := benchRelay(t, engine.Options{Backlog: 4096}, ends.server)
	defer done()
	settle := func(n int) engine.Stats {
		for end := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
			if s := e.Stats(); s.Opened == uint64(n) && s.Pending == 0 && s.UpstreamSplice == uint64(n*idleBytes) {
				return s
			}
			if time.Now().After(end) {
				t.Fatalf("never opened: %+v", e.Stats())
			}
		}
	}
	if err := ends.connect(e.Addrs()[0].String(), 100); err != nil { // the pools, the slabs' first page
		t.Fatal(err)
	}
	settle(100)
	rss, fds := residentBytes(), openDescriptors()
	if err := ends.connect(e.Addrs()[0].String(), pairs); err != nil {
		t.Fatal(err)
	}
	s = settle(100 + pairs)
	return float64(residentBytes()-rss) / float64(pairs), float64(openDescriptors()-fds) / float64(pairs), s
}

// idleBytes is what every idle pair moved before it fell silent.
const idleBytes = 2000

// TestIdlePairHoldsTwoDescriptors and nothing else.
func TestIdlePairHoldsTwoDescriptors(t *testing.T) {
	resident, descriptors, s := idlePairs(t, 2000)
	if descriptors > 2.01 {
		t.Errorf("%.2f descriptors per pair", descriptors)
	}
	if s.PipesInUse != 0 || s.Buffers != 0 || s.Memory != 0 {
		t.Errorf("idle pairs hold %d pipes, %d buffers, %d bytes", s.PipesInUse, s.Buffers, s.Memory)
	}
	t.Logf("%.0f resident bytes per pair", resident)
}

// BenchmarkIdlePairs prints what an idle pair costs.
func BenchmarkIdlePairs(b *testing.B) {
	for b.Loop() {
		resident, descriptors, s := idlePairs(b, 8000)
		b.ReportMetric(resident, "resident-B/pair")
		b.ReportMetric(descriptors, "fds/pair")
		b.ReportMetric(float64(s.PipesInUse), "pipes")
		b.ReportMetric(float64(s.Buffers), "buffers")
		if resident > 512 {
			b.Errorf("%.0f resident bytes per pair, more than 512", resident)
		}
	}
	b.ReportMetric(0, "ns/op")
}

// residentBytes is the anonymous memory of this process after all that can be given
// back has been.
func residentBytes() int {
	runtime.GC()
	debug.FreeOSMemory()
	status, _ := os.ReadFile("/proc/self/status")
	for _, line := range strings.Split(string(status), "\n") {
		var kb int
		if _, err := fmt.Sscanf(line, "RssAnon: %d kB", &kb); err == nil {
			return kb << 10
		}
	}
	return 0
}

// serveEnds is the other process: a server that swallows what comes, and clients that
// connect on command.
func serveEnds(in *bufio.Scanner) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(ln.Addr())
	var held []net.Conn // an unreachable connection would be closed by the collector
	accepted := make(chan net.Conn, 20_000)
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			accepted <- c
		}
	}()
	data := noise(idleBytes)
	for in.Scan() {
		var addr string
		var n int
		fmt.Sscan(in.Text(), &addr, &n)
		for range n {
			c, err := net.Dial("tcp", addr)
			if err == nil {
				_, err = c.Write(data)
			}
			if err != nil {
				fmt.Println(err)
				return
			}
			held = append(held, c, <-accepted)
		}
		fmt.Println("ok")
	}
	runtime.KeepAlive(held)
}

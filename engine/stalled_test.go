package engine_test

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tprelay/tprelay/engine"
)

// spareDescriptors are what Go's runtime may open of its own, and /proc/PID/fd.
const spareDescriptors = 4

// smallBuffers: those of thousands of stalled connections would otherwise come to
// net.ipv4.tcp_mem, which is one for the whole machine.
var smallBuffers = map[string]string{
	"tcp_rmem": "4096 16384 32768", "tcp_wmem": "4096 16384 32768", "ip_local_port_range": "10000 65000",
}

// stalled has clients send as much as they can to servers that do not read, looks at the
// relay, and lets the servers read: no pair and no byte was lost. It gives by how
// much the resident memory of the relay's process has grown at most.
func stalled(t *testing.T, o measuredOptions, pairs int) (grown int64) {
	engine.PrivateNetwork(t, smallBuffers)
	e, err := startChild("stalled ends")
	if err != nil {
		t.Fatal(err)
	}
	e.stopAtEnd(t)
	if o.Upstream, err = e.line(); err != nil {
		t.Fatal(err)
	}
	r := startMeasured(t, o)
	descriptors, base := r.descriptors(), r.status("VmRSS")

	if s, err := e.ask("send", r.address, pairs); err != nil || s != "ok" {
		t.Fatalf("the other ends: %s %v", s, err)
	}
	r.until("all pairs", func(s measuredStats) bool { return s.Opened == uint64(pairs) })
	// The clients are stopped when 20 looks in a row find that they have sent no more. They probe
	// closed windows after 0.2, 0.4, 0.8 and 1.6 s, and go on if one has opened meanwhile.
	var sent string
	for same, end := 0, time.Now().Add(patience); same < 20; time.Sleep(100 * time.Millisecond) {
		now, err := e.ask("sent")
		if err != nil {
			t.Fatal(err)
		}
		if same++; now != sent || now == "0" {
			sent, same = now, 0
		}
		if time.Now().After(end) {
			t.Fatal("the clients were never stopped")
		}
	}
	before, used := r.stats(), r.processorTime()
	const watched = 2 * time.Second
	time.Sleep(watched) // nobody reads
	after := r.stats()
	used = r.processorTime() - used
	t.Logf("stalled: %s bytes sent, %d MiB pending, %d bytes charged, %d pipes, %d buffers, starved %d times; resident %d MiB more than %d, at most %d more; in %v %v of processor time and %d waits",
		sent, after.Pending>>20, after.Memory, after.PipesInUse, after.Buffers, after.Starved,
		(r.status("VmRSS")-base)>>20, base>>20, (r.status("VmHWM")-base)>>20, watched, used, after.Waits-before.Waits)
	if after.Starved == 0 {
		t.Error("nobody was starved: this test proves nothing")
	}
	if after.Active != int64(pairs) {
		t.Errorf("%d pairs, want %d", after.Active, pairs)
	}
	if after.Memory > o.MemoryLimit+512<<10 { // 128 KiB and a chunk for each loop; see settleAt
		t.Errorf("%d bytes charged, the limit is %d", after.Memory, o.MemoryLimit)
	}
	// Not a matter of speed: a loop that spins uses all of a processor (with the race detector,
	// everything takes much). There is one wait per loop and tick, and those for what is asked of
	// it.
	if !engine.RaceEnabled && used > watched/5 || after.Waits-before.Waits > 400 {
		t.Errorf("while nothing can move: %v of processor time in %v, %d waits", used, watched, after.Waits-before.Waits)
	}

	if s, err := e.ask("read"); err != nil || s != "ok" {
		t.Fatalf("the other ends: %s %v", s, err)
	}
	s := r.until("the end", func(s measuredStats) bool {
		return s.Active == 0 && r.descriptors() <= descriptors+2*int(s.PipesIdle)+spareDescriptors
	})
	if s.Pending != 0 || s.Memory != 0 || s.PipesInUse != 0 || s.Buffers != 0 || s.Ended["eof"] != uint64(pairs) {
		t.Errorf("left behind: %+v", s)
	}
	grown = r.status("VmHWM") - base
	t.Logf("in the end: resident %d MiB more, at most %d more", (r.status("VmRSS")-base)>>20, grown>>20)
	return grown
}

// onBothPaths runs f with and without splice.
func onBothPaths(t *testing.T, f func(t *testing.T, o measuredOptions)) {
	t.Run("splice", func(t *testing.T) { f(t, measuredOptions{}) })
	t.Run("buffer", func(t *testing.T) { f(t, measuredOptions{NoSplice: true}) })
}

// TestMemoryLimitHoldsUnderStalledPairs: a starved pair waits, without work for the
// relay, and goes on in the end.
func TestMemoryLimitHoldsUnderStalledPairs(t *testing.T) {
	onBothPaths(t, func(t *testing.T, o measuredOptions) {
		o.MemoryLimit = 4 << 20
		stalled(t, o, 1500)
	})
}

// TestMemoryLimitBoundsResidentMemory: what the process has from the kernel grows by no
// more than 15 % above the limit, at any time. Pipes are not part of that: the
// kernel holds them, and Stats.Memory counts them by capacity.
func TestMemoryLimitBoundsResidentMemory(t *testing.T) {
	if engine.RaceEnabled {
		t.Skip("the race detector's shadow memory counts as resident too")
	}
	onBothPaths(t, func(t *testing.T, o measuredOptions) {
		o.MemoryLimit = 64 << 20
		if !o.NoSplice { // a pair then has a few KiB in user space, or a pipe
			o.MemoryLimit = 24 << 20
		}
		if grown := stalled(t, o, 5000); grown > o.MemoryLimit*115/100 {
			t.Errorf("resident memory grew by up to %d MiB, the limit is %d", grown>>20, o.MemoryLimit>>20)
		}
	})
}

// serveStalledEnds is the other process: clients that send, and servers that read only
// when told to. Each server answers with the sum of what it has read.
func serveStalledEnds(commands *bufio.Scanner) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(ln.Addr())
	var sent, accepted atomic.Int64
	var clients, servers sync.WaitGroup
	read := make(chan struct{})
	failed := make(chan error, 1) // the first
	fail := func(err error) {
		select {
		case failed <- err:
		default:
		}
	}
	servers.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			accepted.Add(1)
			servers.Go(func() {
				defer c.Close()
				<-read
				h := crc32.New(castagnoli)
				n, err := io.CopyBuffer(h, struct{ io.Reader }{c}, make([]byte, 16<<10))
				if err == nil {
					_, err = c.Write(binary.BigEndian.AppendUint64(h.Sum(nil), uint64(n)))
				}
				if err != nil {
					fail(fmt.Errorf("server, after %d bytes: %w", n, err))
				}
			})
		}
	})
	data := noise(1 << 20)
	client := func(c *net.TCPConn, at int) error {
		defer c.Close()
		h, n := crc32.New(castagnoli), 0
		for {
			at = (at + 16<<10) % len(data)
			m, err := c.Write(data[at:min(at+16<<10, len(data))])
			h.Write(data[at : at+m])
			n += m
			sent.Add(int64(m))
			if err != nil {
				return err
			}
			select {
			case <-read:
			default:
				continue
			}
			break
		}
		if err := c.CloseWrite(); err != nil {
			return err
		}
		got, err := io.ReadAll(c)
		if err != nil {
			return err
		}
		if want := binary.BigEndian.AppendUint64(h.Sum(nil), uint64(n)); string(got) != string(want) {
			return fmt.Errorf("the server had %x, not %x", got, want)
		}
		return nil
	}
	for commands.Scan() {
		var command, addr string
		var n int
		fmt.Sscan(commands.Text(), &command, &addr, &n)
		switch command {
		case "send":
			for i := range n {
				c, err := net.Dial("tcp", addr)
				if err != nil {
					fmt.Println(err)
					return
				}
				clients.Go(func() {
					if err := client(c.(*net.TCPConn), i*13); err != nil {
						fail(fmt.Errorf("client %d: %w", i, err))
					}
				})
			}
			for accepted.Load() < int64(n) {
				time.Sleep(time.Millisecond)
			}
			fmt.Println("ok")
		case "sent":
			fmt.Println(sent.Load())
		case "read":
			close(read)
			clients.Wait()
			ln.Close()
			servers.Wait()
			select {
			case err := <-failed:
				fmt.Println(err)
			default:
				fmt.Println("ok")
			}
		}
	}
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

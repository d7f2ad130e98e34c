package engine_test

import (
	"errors"
	"io"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tprelay/tprelay/engine"
	"github.com/tprelay/tprelay/intercept"
)

// fromEitherEnd runs f with the client as the first end, and with the server.
func fromEitherEnd(t *testing.T, o engine.Options, f func(t *testing.T, r *rig, from, to *net.TCPConn)) {
	for _, who := range []string{"client", "server"} {
		t.Run(who+" sends", func(t *testing.T) {
			r := newRig(t, o)
			from, to := r.pair()
			if who == "server" {
				from, to = to, from
			}
			f(t, r, from, to)
		})
	}
}

// readSlowly reads n bytes, or all, in pieces with pauses between them.
func readSlowly(t *testing.T, c *net.TCPConn, n, piece int, pause time.Duration) (got []byte) {
	t.Helper()
	buf := make([]byte, piece)
	for len(got) < n {
		m, err := c.Read(buf)
		got = append(got, buf[:m]...)
		if err == io.EOF {
			return got
		}
		if err != nil {
			t.Fatalf("after %d bytes: %v", len(got), err)
		}
		time.Sleep(pause) // the reader is slow
	}
	return got
}

// TestReaderMayPauseLongerThanTheHalfCloseTimeout: the sender has closed, and its bytes wait
// in the kernel. The receiver's kernel is there, so it gets them whenever it reads.
func TestReaderMayPauseLongerThanTheHalfCloseTimeout(t *testing.T) {
	for name, o := range map[string]engine.Options{"splice": {}, "buffer": {NoSplice: true}} {
		o.HalfCloseTimeout = 300 * time.Millisecond
		t.Run(name, func(t *testing.T) {
			fromEitherEnd(t, o, func(t *testing.T, r *rig, from, to *net.TCPConn) {
				if err := to.SetReadBuffer(16 << 10); err != nil {
					t.Fatal(err)
				}
				data := noise(200_000)
				if err := <-sendAll(from, data, true); err != nil {
					t.Fatal(err)
				}
				r.until("FIN passed on", func(engine.Stats) bool {
					i := r.only()
					return i.Upstream.FinSent || i.Downstream.FinSent
				})
				time.Sleep(4 * o.HalfCloseTimeout) // the reader pauses
				expect(t, "receiver", to, data)
				to.Close()
				r.ended(engine.ReasonEOF, 1)
			})
		})
	}
}

// TestSlowReaderIsNotSilent: a receiver that takes a little all the time keeps its pair,
// although the relay itself has nothing to read or write.
func TestSlowReaderIsNotSilent(t *testing.T) {
	for name, o := range map[string]engine.Options{
		"half-closed": {HalfCloseTimeout: 300 * time.Millisecond},
		"idle":        {HalfCloseTimeout: -1, IdleTimeout: time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			fromEitherEnd(t, o, func(t *testing.T, r *rig, from, to *net.TCPConn) {
				if err := to.SetReadBuffer(16 << 10); err != nil {
					t.Fatal(err)
				}
				data := noise(250_000)
				if err := <-sendAll(from, data, true); err != nil {
					t.Fatal(err)
				}
				got := readSlowly(t, to, len(data)+1, 4000, 25*time.Millisecond)
				if sum(got) != sum(data) {
					t.Errorf("%d of %d bytes", len(got), len(data))
				}
			})
		})
	}
}

// TestStoppedReaderIsIdle: bytes that nobody takes are no activity, although the receiver's
// kernel answers probes.
func TestStoppedReaderIsIdle(t *testing.T) {
	o := engine.Options{IdleTimeout: time.Second, HalfCloseTimeout: 300 * time.Millisecond}
	fromEitherEnd(t, o, func(t *testing.T, r *rig, from, to *net.TCPConn) {
		<-sendAll(from, noise(500_000), true)
		r.ended(engine.ReasonIdleTimeout, 1)
		expectReset(t, "receiver", to)
	})
}

// TestHalfCloseTimeoutBeginsWhenAllIsAcknowledged: the timer ends a pair whose open end says
// nothing, once that end has everything.
func TestHalfCloseTimeoutBeginsWhenAllIsAcknowledged(t *testing.T) {
	o := engine.Options{HalfCloseTimeout: 500 * time.Millisecond}
	fromEitherEnd(t, o, func(t *testing.T, r *rig, from, to *net.TCPConn) {
		if err := to.SetReadBuffer(16 << 10); err != nil {
			t.Fatal(err)
		}
		data := noise(500_000)
		<-sendAll(from, data, true)
		time.Sleep(3 * o.HalfCloseTimeout) // the reader pauses
		expect(t, "receiver", to, data)
		r.ended(engine.ReasonHalfCloseTimeout, 1)
	})
}

// TestResetWaitsForSlowReader: the sender has reset, and the receiver goes on reading at
// 100 KB/s. It gets all that was acknowledged to the sender, however rarely there is room
// for the relay to write.
func TestResetWaitsForSlowReader(t *testing.T) {
	for name, o := range map[string]engine.Options{"splice": {}, "buffer": {NoSplice: true}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, o)
			client, server := r.pair()
			exchange(t, client, server, []byte("go"))
			if err := client.SetReadBuffer(64 << 10); err != nil {
				t.Fatal(err)
			}
			sent := sendAll(server, noise(64<<20), false)
			r.until("full", func(s engine.Stats) bool { return s.Pauses > 0 })
			before := acknowledged(t, server) - len("go")
			rst(server)
			<-sent
			got := readSlowly(t, client, 700_000, 10_000, 100*time.Millisecond)
			got = append(got, expectReset(t, "client", client)...)
			if len(got) < before || sum(got) != sum(noise(64 << 20)[:len(got)]) {
				t.Errorf("%d bytes, of which at least %d were acknowledged to the sender", len(got), before)
			}
			r.ended(engine.ReasonReset, 1)
		})
	}
}

// acknowledged is how many bytes c's other end has acknowledged.
func acknowledged(t *testing.T, c *net.TCPConn) (n int) {
	t.Helper()
	raw, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	raw.Control(func(fd uintptr) {
		info, infoErr := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO)
		if err = infoErr; err == nil {
			n = int(info.Bytes_acked)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// holding are interceptors that hold back "ab" at the end of what was sent: it may become
// "abc", which they replace.
func holding(t *testing.T) map[string]intercept.Interceptor {
	t.Helper()
	replace, err := intercept.Replace("abc", "x")
	if err != nil {
		t.Fatal(err)
	}
	other, err := intercept.Replace("yz", "w")
	if err != nil {
		t.Fatal(err)
	}
	return map[string]intercept.Interceptor{"replace": replace, "chain": intercept.Chain(other, replace)}
}

// TestHeldBytesArriveBeforeTheReset: what a handler holds back was acknowledged to the
// sender, so it goes out in front of the RST, however the pair ends.
func TestHeldBytesArriveBeforeTheReset(t *testing.T) {
	for name, interceptor := range holding(t) {
		for reason, end := range map[engine.Reason]func(r *rig, from *net.TCPConn){
			engine.ReasonReset:       func(_ *rig, from *net.TCPConn) { rst(from) },
			engine.ReasonIdleTimeout: func(*rig, *net.TCPConn) {},
			engine.ReasonDrained:     func(r *rig, _ *net.TCPConn) { r.Close() },
		} {
			t.Run(name+" "+reason.String(), func(t *testing.T) {
				o := engine.Options{Interceptor: interceptor}
				if reason == engine.ReasonIdleTimeout {
					o.IdleTimeout = 500 * time.Millisecond
				}
				fromEitherEnd(t, o, func(t *testing.T, r *rig, from, to *net.TCPConn) {
					<-sendAll(from, []byte("abc.ab"), false)
					if _, err := io.ReadFull(to, make([]byte, len("x."))); err != nil {
						t.Fatal(err)
					}
					end(r, from)
					if got := expectReset(t, "receiver", to); string(got) != "ab" {
						t.Errorf("got %q before the reset, want what was held back", got)
					}
					r.until("end", func(s engine.Stats) bool { return s.Ended[reason] == 1 })
				})
			})
		}
	}
}

// TestHandlerIsToldOfTheCut: a stream that was reset is not taken for one that has ended.
func TestHandlerIsToldOfTheCut(t *testing.T) {
	var ends, cuts atomic.Int32
	r := handle(t, engine.Options{}, func(c *intercept.Chunk) intercept.Verdict {
		switch {
		case c.Cut:
			cuts.Add(1)
		case c.End:
			ends.Add(1)
		}
		return intercept.Forward
	})
	client, server := r.pair()
	exchange(t, client, server, []byte("one"))
	rst(client)
	expectReset(t, "server", server)
	r.ended(engine.ReasonReset, 1)
	client, server = r.pair()
	<-sendAll(client, []byte("two"), true)
	expect(t, "server", server, []byte("two"))
	server.Close()
	r.ended(engine.ReasonEOF, 1)
	if cuts.Load() != 1 || ends.Load() == 0 {
		t.Errorf("%d cuts and %d ends, want 1 and some", cuts.Load(), ends.Load())
	}
}

// TestAcknowledgedIsWhatTheReceiversKernelHas: bytes in the relay's send buffer are not taken
// for bytes that arrived.
func TestAcknowledgedIsWhatTheReceiversKernelHas(t *testing.T) {
	o := engine.Options{IdleTimeout: 500 * time.Millisecond, HalfCloseTimeout: -1}
	for _, finish := range []bool{false, true} {
		ended := make(chan engine.PairInfo, 1)
		o.Observer.PairEnded = func(i engine.PairInfo) { ended <- i }
		r := newRig(t, o)
		client, server := r.pair()
		if err := client.SetReadBuffer(16 << 10); err != nil {
			t.Fatal(err)
		}
		if err := <-sendAll(server, noise(300_000), finish); err != nil {
			t.Fatal(err)
		}
		d := (<-ended).Downstream
		got, err := io.ReadAll(client)
		if !errors.Is(err, unix.ECONNRESET) {
			t.Errorf("client: %v", err)
		}
		if d.Bytes != 300_000 || d.Acknowledged != uint64(len(got)) {
			t.Errorf("%d bytes accepted, %d acknowledged; the client has %d", d.Bytes, d.Acknowledged, len(got))
		}
	}
}

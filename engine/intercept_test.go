package engine_test

import (
	"bytes"
	"io"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/tprelay/tprelay/engine"
	"github.com/tprelay/tprelay/intercept"
)

// handle is a rig whose upstream direction goes through f.
func handle(t *testing.T, o engine.Options, f intercept.HandlerFunc) *rig {
	t.Helper()
	o.Interceptor = intercept.InterceptorFunc(func(intercept.Pair) intercept.Decision {
		return intercept.Decision{Upstream: f}
	})
	return newRig(t, o)
}

func TestHandlerSeesEveryByteInOrder(t *testing.T) {
	var seen bytes.Buffer
	var ends atomic.Int32
	r := handle(t, engine.Options{Loops: 1}, func(c *intercept.Chunk) intercept.Verdict {
		seen.Write(c.Data)
		if c.End {
			ends.Add(1)
		}
		return intercept.Forward
	})
	client, server := r.pair()
	data := noise(5 << 20)
	sent := sendAll(client, data, true)
	expect(t, "server", server, data)
	<-sent
	server.Close()
	r.ended(engine.ReasonEOF, 1)
	r.end()
	if !bytes.Equal(seen.Bytes(), data) || ends.Load() != 1 {
		t.Errorf("the handler saw %d of %d bytes, and %d ends", seen.Len(), len(data), ends.Load())
	}
}

func TestHandlerChangesBytes(t *testing.T) {
	for name, c := range map[string]struct {
		handler intercept.HandlerFunc
		want    string
	}{
		"in place": {func(c *intercept.Chunk) intercept.Verdict {
			copy(c.Data, bytes.ToUpper(c.Data))
			return intercept.Forward
		}, "HELLO, WORLD"},
		"more": {func(c *intercept.Chunk) intercept.Verdict {
			if !c.End {
				c.WriteString("<")
				c.Data = append(c.Data, '>')
			}
			return intercept.Forward
		}, "<hello, world>"},
		"fewer": {func(c *intercept.Chunk) intercept.Verdict {
			c.Data = bytes.TrimSuffix(c.Data, []byte(", world"))
			return intercept.Forward
		}, "hello"},
		"none": {func(c *intercept.Chunk) intercept.Verdict { c.Data = nil; return intercept.Forward }, ""},
		"at the end": {func(c *intercept.Chunk) intercept.Verdict {
			if c.End {
				c.Data = append(c.Data, " (end)"...)
			}
			return intercept.Forward
		}, "hello, world (end)"},
		"hold until the end": {func(c *intercept.Chunk) intercept.Verdict {
			if c.End {
				c.WriteString("all: ")
			}
			return intercept.Hold
		}, "all: hello, world"},
	} {
		t.Run(name, func(t *testing.T) {
			r := handle(t, engine.Options{}, c.handler)
			client, server := r.pair()
			<-sendAll(client, []byte("hello, world"), true)
			expect(t, "server", server, []byte(c.want))
		})
	}
}

func TestHeldBytesComeAgain(t *testing.T) {
	// Passes only whole lines of ten bytes.
	r := handle(t, engine.Options{}, func(c *intercept.Chunk) intercept.Verdict {
		whole := len(c.Data) / 10 * 10
		c.Write(c.Data[:whole])
		c.Data = c.Data[whole:]
		return intercept.Hold
	})
	client, server := r.pair()
	data := noise(1<<20 + 7)
	sent := sendAll(client, data, true)
	expect(t, "server", server, data)
	<-sent
}

func TestHoldingTooMuchResets(t *testing.T) {
	r := handle(t, engine.Options{}, func(c *intercept.Chunk) intercept.Verdict { return intercept.Hold })
	client, _ := r.pair()
	sendAll(client, noise(1<<20), false)
	expectReset(t, "client", client)
	r.ended(engine.ReasonIntercepted, 1)
}

// TestDetachInMidStream: after the handler let go, the rest is spliced, and the
// counters go on.
func TestDetachInMidStream(t *testing.T) {
	for _, held := range []bool{false, true} {
		seen := 0
		r := handle(t, engine.Options{Loops: 1}, func(c *intercept.Chunk) intercept.Verdict {
			seen += len(c.Data)
			switch {
			case held && len(c.Data) < 3000:
				seen -= len(c.Data)
				return intercept.Hold
			case seen < 100_000:
				return intercept.Forward
			}
			return intercept.Detach
		})
		client, server := r.pair()
		data := noise(20 << 20)
		sent := sendAll(client, data, false)
		got := make([]byte, len(data))
		if _, err := io.ReadFull(server, got); err != nil || !bytes.Equal(got, data) {
			t.Fatalf("bytes were lost or changed: %v", err)
		}
		if err := <-sent; err != nil {
			t.Fatal(err)
		}
		if i := r.only(); i.Upstream.Path != engine.PathDetached || i.Upstream.Bytes != uint64(len(data)) {
			t.Errorf("%+v", i.Upstream)
		}
		s := r.Stats()
		if s.UpstreamBuffer == 0 || s.UpstreamSplice < 10<<20 || s.UpstreamBuffer+s.UpstreamSplice != uint64(len(data)) {
			t.Errorf("%d buffered, %d spliced", s.UpstreamBuffer, s.UpstreamSplice)
		}
	}
}

func TestHandlerCloses(t *testing.T) {
	r := handle(t, engine.Options{}, func(c *intercept.Chunk) intercept.Verdict {
		if i := bytes.IndexByte(c.Data, '!'); i >= 0 {
			c.Data = c.Data[:i+1]
			return intercept.Close
		}
		return intercept.Forward
	})
	client, server := r.pair()
	sendAll(client, []byte("stop! and this is lost"), true)
	expect(t, "server", server, []byte("stop!"))
	expect(t, "client", client, nil)
	server.Close()
	r.ended(engine.ReasonIntercepted, 1)
}

func TestHandlerResets(t *testing.T) {
	r := handle(t, engine.Options{}, func(c *intercept.Chunk) intercept.Verdict { return intercept.Reset })
	client, server := r.pair()
	sendAll(client, []byte("hello"), false)
	expectReset(t, "client", client)
	expectReset(t, "server", server)
	r.ended(engine.ReasonIntercepted, 1)
}

func TestInterceptorRefuses(t *testing.T) {
	r := newRig(t, engine.Options{Interceptor: intercept.InterceptorFunc(func(p intercept.Pair) intercept.Decision {
		return intercept.Decision{Refuse: true}
	})})
	r.dialReset()
	r.ended(engine.ReasonRejected, 1)
	if s := r.Stats(); s.Opened != 0 {
		t.Errorf("%+v", s)
	}
}

func TestInterceptorChoosesAnotherDestination(t *testing.T) {
	other := newRig(t, engine.Options{})
	elsewhere := netip.MustParseAddrPort(other.server.Addr().String())
	var asked intercept.Pair
	r := newRig(t, engine.Options{Interceptor: intercept.InterceptorFunc(func(p intercept.Pair) intercept.Decision {
		asked = p
		return intercept.Decision{Destination: elsewhere}
	})})
	client := r.dial()
	server := other.accept()
	exchange(t, client, server, noise(100_000))
	i := r.only()
	if i.Connected != elsewhere || i.Destination.String() != r.server.Addr().String() {
		t.Errorf("%+v", i)
	}
	if asked.Client.String() != client.LocalAddr().String() || asked.ID != i.ID || asked.Listener != r.Addrs()[0] || asked.Destination != i.Destination {
		t.Errorf("the interceptor was told %+v", asked)
	}
	if i.Upstream.Path != engine.PathSplice {
		t.Errorf("path %v", i.Upstream.Path)
	}
}

type closer struct {
	intercept.Handler
	closed *atomic.Int32
}

func (c *closer) Close() error { c.closed.Add(1); return nil }

func TestHandlersAreClosedOnce(t *testing.T) {
	var closed atomic.Int32
	pass := intercept.HandlerFunc(func(*intercept.Chunk) intercept.Verdict { return intercept.Detach })
	r := newRig(t, engine.Options{Interceptor: intercept.InterceptorFunc(func(intercept.Pair) intercept.Decision {
		return intercept.Decision{Upstream: &closer{pass, &closed}, Downstream: &closer{pass, &closed}}
	})})
	for i := range 3 {
		client, server := r.pair()
		exchange(t, client, server, noise(10))
		if i == 1 {
			rst(client)
		} else {
			client.Close()
		}
		server.Close()
	}
	r.until("all ended", func(s engine.Stats) bool { return s.Active == 0 })
	r.end()
	if n := closed.Load(); n != 6 {
		t.Errorf("closed %d times, want 6", n)
	}
}

func TestSlowReceiverBehindGrowingHandler(t *testing.T) {
	r := handle(t, engine.Options{}, func(c *intercept.Chunk) intercept.Verdict {
		c.Data = bytes.Repeat(c.Data, 3)
		return intercept.Forward
	})
	client, server := r.pair()
	data := noise(8 << 20)
	sent := sendAll(client, data, true)
	s := stopped(t, r)
	if most := int64(engine.DefaultHighWatermark + 3*64<<10); s.Pending > most {
		t.Errorf("%d bytes pending, want at most the watermark and one read's growth: %d", s.Pending, most)
	}
	got, err := io.ReadAll(server)
	if err != nil || len(got) != 3*len(data) {
		t.Fatalf("%d bytes: %v", len(got), err)
	}
	<-sent
}

func TestReplaceAcrossReads(t *testing.T) {
	ic, err := intercept.Parse("replace=needle:pin")
	if err != nil {
		t.Fatal(err)
	}
	r := newRig(t, engine.Options{Interceptor: ic})
	client, server := r.pair()
	text := strings.Repeat("hay hay needle hay nee", 50_000)
	sent := sendAll(client, []byte(text), true)
	expect(t, "server", server, []byte(strings.ReplaceAll(text, "needle", "pin")))
	<-sent
}

package engine_test

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"testing"

	"github.com/tprelay/tprelay/engine"
	"github.com/tprelay/tprelay/engine/internal/handover/handovertest"
	"github.com/tprelay/tprelay/intercept"
)

// linkPair is what two processes would have between them.
func linkPair(t testing.TB) (old, new *net.UnixConn) {
	t.Helper()
	old, new, err := handovertest.Pair()
	if err != nil {
		t.Fatal(err)
	}
	return old, new
}

// handOver lets a new engine take over and drops the old one, which must end by itself
// unless pairs are to stay.
func (r *rig) handOver(o engine.Options, stay int) (old *rig) {
	r.t.Helper()
	a, b := linkPair(r.t)
	defer a.Close()
	before := *r
	type result struct {
		left int
		err  error
	}
	done := make(chan result, 1)
	go func() {
		left, err := before.HandOver(context.Background(), a, nil)
		done <- result{left, err}
	}()
	o.Listeners = []engine.Listener{r.listener}
	e, err := engine.TakeOver(context.Background(), o, b)
	if err != nil {
		r.t.Fatal(err)
	}
	r.Engine = e
	r.run()
	if got := <-done; got.err != nil || got.left != stay {
		r.t.Fatalf("%d pairs left, want %d: %v", got.left, stay, got.err)
	}
	if stay == 0 {
		if err := before.wait(); err != nil {
			r.t.Fatal(err)
		}
		before.end()
	}
	// The new engine may still have to read the last commit.
	moved := before.Stats().HandedOver
	r.until("all taken over", func(s engine.Stats) bool { return s.TakenOver == moved })
	return &before
}

// TestTransfersSurviveTenHandOvers: bulk both ways, pairs that are paused, half-closed
// and idle ones go on as if nothing had happened.
func TestTransfersSurviveTenHandOvers(t *testing.T) {
	onEveryPath(t, func(t *testing.T, o engine.Options) {
		if o.Interceptor != nil {
			return // these stay: see TestHandledPairsStay
		}
		r := newRig(t, o)
		const size = 32 << 20
		up, down := noise(size), noise(size)
		client, server := r.pair()
		sending := []<-chan error{sendAll(client, up, true), sendAll(server, down, true)}
		received, gate := make(chan [32]byte, 2), make(chan struct{})
		for _, c := range []*net.TCPConn{client, server} {
			go func() {
				got, _ := io.ReadAll(&gated{c, size / 4, gate})
				received <- sum(got)
			}()
		}
		var idle [50][2]*net.TCPConn
		for i := range idle {
			idle[i][0], idle[i][1] = r.pair()
		}
		half, other := r.pair()
		half.CloseWrite()
		expect(t, "server", other, nil)
		paused, reader := r.pair()
		blocked := noise(8 << 20)
		filling := sendAll(paused, blocked, true)
		r.until("full", func(s engine.Stats) bool { return s.Pauses > 0 })

		for range 10 {
			r.handOver(o, 0)
			r.until("all pairs", func(s engine.Stats) bool { return s.TakenOver == 53 })
			for _, pair := range idle {
				exchange(t, pair[0], pair[1], []byte("still here?"))
			}
			c, s := r.pair() // and new ones come in
			exchange(t, c, s, noise(100))
			c.Close()
			s.Close()
		}
		close(gate)
		expectAfter(t, filling, "reader", reader, blocked)
		expectAfter(t, sendAll(other, []byte("tail"), true), "half-closed", half, []byte("tail"))
		for _, done := range sending {
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
		for range 2 {
			if got := <-received; got != sum(up) && got != sum(down) {
				t.Error("the transfer is damaged")
			}
		}
	})
}

// gated reads small pieces; after the first bytes, only when the gate has opened.
type gated struct {
	io.Reader
	free int
	gate <-chan struct{}
}

func (g *gated) Read(b []byte) (int, error) {
	if g.free <= 0 {
		<-g.gate
	}
	n, err := g.Reader.Read(b[:min(len(b), 4096)])
	g.free -= n
	return n, err
}

func expectAfter(t *testing.T, sent <-chan error, who string, c *net.TCPConn, want []byte) {
	t.Helper()
	expect(t, who, c, want)
	if err := <-sent; err != nil {
		t.Error(err)
	}
}

// TestHandOverKeepsTheAccount: what a pair has done and where it comes from is known on the
// other side, and its id stays.
func TestHandOverKeepsTheAccount(t *testing.T) {
	r := newRig(t, engine.Options{})
	client, server := r.pair()
	exchange(t, client, server, noise(1000))
	was := r.only()
	r.handOver(engine.Options{}, 0)
	is := r.only()
	if is.ID != was.ID || is.Client != was.Client || is.Destination != was.Destination || is.Listener != was.Listener ||
		is.Since.Sub(was.Since).Abs() > patience || !is.Established || is.Upstream.Bytes != was.Upstream.Bytes || is.Downstream.Bytes != was.Downstream.Bytes {
		t.Errorf("was %+v\nis  %+v", was, is)
	}
	second, other := r.pair()
	exchange(t, second, other, noise(10))
	ids := map[uint64]bool{}
	r.Pairs(func(i engine.PairInfo) bool { ids[i.ID] = true; return true })
	if len(ids) != 2 {
		t.Errorf("ids %v", ids)
	}
}

// TestHandledPairsStay: a handler's state is its own, so its pair ends where it is; one
// that has let go moves.
func TestHandledPairsStay(t *testing.T) {
	once := func(c *intercept.Chunk) intercept.Verdict {
		if strings.Contains(string(c.Data), "detach") {
			return intercept.Detach
		}
		return intercept.Forward
	}
	o := engine.Options{Interceptor: intercept.InterceptorFunc(func(intercept.Pair) intercept.Decision {
		return intercept.Decision{Upstream: intercept.HandlerFunc(once)}
	})}
	r := newRig(t, o)
	watched, server := r.pair()
	exchange(t, watched, server, noise(100))
	free, other := r.pair()
	exchange(t, free, other, []byte("detach"))
	old := r.handOver(o, 1)
	exchange(t, free, other, noise(100))
	exchange(t, watched, server, noise(100))
	if s := r.Stats(); s.TakenOver != 1 || s.Active != 1 {
		t.Errorf("%d taken over, %d active, want 1", s.TakenOver, s.Active)
	}
	watched.Close()
	server.Close()
	if err := old.wait(); err != nil {
		t.Error(err)
	}
	old.end()
}

// TestFailedHandOverLosesNothing: the other side goes away, at whatever point; the engine
// goes on.
func TestFailedHandOverLosesNothing(t *testing.T) {
	r := newRig(t, engine.Options{Loops: 2})
	var pairs [40][2]*net.TCPConn
	for i := range pairs {
		pairs[i][0], pairs[i][1] = r.pair()
	}
	blocked := noise(16 << 20)
	paused, reader := r.pair()
	filling := sendAll(paused, blocked, true)
	r.until("full", func(s engine.Stats) bool { return s.Pauses > 0 })

	for name, words := range map[string]string{
		"at once":     "",
		"no frame":    "what is this about?",
		"ready":       "TPRR\x00\x00\x00\x02\x00\x00\x00\x00{}",
		"wrong frame": "TPRD\x00\x00\x00\x02\x00\x00\x00\x00{}",
		"huge frame":  "TPRR\xff\x00\x00\x02\x00\x00\x00\x00{}",
	} {
		t.Run(name, func(t *testing.T) {
			a, b := linkPair(t)
			defer a.Close()
			go func() {
				b.Write([]byte(words))
				b.CloseWrite()
				io.Copy(io.Discard, b) // takes frames, and what is in them, and never answers
				b.Close()
			}()
			if left, err := r.HandOver(context.Background(), a, nil); err == nil {
				t.Errorf("no error; %d left", left)
			}
			for _, pair := range pairs {
				exchange(t, pair[0], pair[1], []byte("still here?"))
			}
			c, s := r.pair()
			exchange(t, c, s, noise(100))
			c.Close()
			s.Close()
		})
	}
	expectAfter(t, filling, "reader", reader, blocked)
}

// TestHandOverWhileConnecting: the outgoing connection is opened by the one, and stands in
// the other; a client that a reset has told goodbye meanwhile gets its reset there.
func TestHandOverWhileConnecting(t *testing.T) {
	r, full := newBlackHole(t, engine.Options{})
	client := r.dial()
	r.until("accepted", func(s engine.Stats) bool { return s.Active == 1 })
	r.handOver(engine.Options{}, 0)
	r.until("taken over", func(s engine.Stats) bool { return s.Active == 1 && s.TakenOver == 1 })
	rst(client)
	r.ended(engine.ReasonReset, 1)
	full()
}

// TestCancelledContextEndsTheWait, of both sides, for an engine that says nothing. The old one goes
// on, after failed has been called.
func TestCancelledContextEndsTheWait(t *testing.T) {
	r := newRig(t, engine.Options{})
	client, server := r.pair()
	cause := errors.New("it took too long")
	for what, wait := range map[string]func(ctx context.Context, conn *net.UnixConn) error{
		"HandOver": func(ctx context.Context, conn *net.UnixConn) error {
			failed := 0
			_, err := r.HandOver(ctx, conn, func() { failed++ })
			if failed != 1 {
				t.Errorf("failed was called %d times", failed)
			}
			return err
		},
		"TakeOver": func(ctx context.Context, conn *net.UnixConn) error {
			_, err := engine.TakeOver(ctx, engine.Options{}, conn)
			return err
		},
	} {
		a, b := linkPair(t)
		ctx, cancel := context.WithCancelCause(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- wait(ctx, a) }()
		cancel(cause)
		if err := <-ended; !errors.Is(err, cause) {
			t.Errorf("%s: %v, want %v", what, err, cause)
		}
		// The connection is still the caller's, without a deadline.
		go b.Write([]byte("x"))
		if what == "TakeOver" {
			if n, err := a.Read(make([]byte, 1)); n != 1 || err != nil {
				t.Errorf("%s: %v", what, err)
			}
		}
		a.Close()
		b.Close()
	}
	exchange(t, client, server, []byte("still here?"))
}

// TestCancelledContextIsTooLateWhenAllHaveMoved: the other engine has everything, so the hand-over
// succeeds.
func TestCancelledContextIsTooLateWhenAllHaveMoved(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	r := newRig(t, engine.Options{Loops: 1, Observer: engine.Observer{PairEnded: func(i engine.PairInfo) {
		if i.Reason == engine.ReasonHandedOver {
			cancel()
		}
	}}})
	client, server := r.pair()
	m := newMiddle(t, nil)
	done := r.beginHandOver(ctx, m)
	e, err := engine.TakeOver(t.Context(), engine.Options{Loops: 1, Listeners: []engine.Listener{r.listener}}, m.New)
	if err != nil {
		t.Fatal(err)
	}
	after := r.successor(e)
	if err := <-done; err != nil {
		t.Error(err)
	}
	exchange(t, client, server, []byte("still here?"))
	client.Close()
	server.Close()
	m.Close()
	after.end()
}

// TestTakeOverFails: with nobody there, or with options that cannot be, nothing is left
// behind, and the old one goes on.
func TestTakeOverFails(t *testing.T) {
	r := newRig(t, engine.Options{})
	client, server := r.pair()
	a, b := linkPair(t)
	done := make(chan error, 1)
	go func() {
		_, err := r.HandOver(t.Context(), a, nil)
		done <- err
	}()
	if _, err := engine.TakeOver(t.Context(), engine.Options{Listeners: []engine.Listener{r.listener}, Loops: -1}, b); err == nil {
		t.Error("-1 loops")
	}
	b.Close()
	if err := <-done; err == nil {
		t.Error("handed over to nobody")
	}
	a.Close()
	exchange(t, client, server, noise(100))

	a, b = linkPair(t)
	a.Close()
	if _, err := engine.TakeOver(t.Context(), engine.Options{}, b); err == nil {
		t.Error("took over from nobody")
	}
	b.Close()

	never, err := engine.New(engine.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer never.Close()
	if _, err := never.HandOver(t.Context(), nil, nil); err != engine.ErrNotRunning {
		t.Errorf("an engine that does not run hands over: %v", err)
	}
}

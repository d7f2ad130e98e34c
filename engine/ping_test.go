package engine_test

import (
	"context"
	"errors"
	"net"
	"testing"
	"time"

	"github.com/tprelay/tprelay/engine"
	"github.com/tprelay/tprelay/intercept"
	"github.com/tprelay/tprelay/internal/leak"
)

func TestPingTellsLoopsThatAreStuck(t *testing.T) {
	release := make(chan struct{})
	blocks := func(engine.PairInfo) { <-release } // which no observer may
	r := newRig(t, engine.Options{Observer: engine.Observer{PairEnded: blocks}, Loops: 3})
	if err := r.Ping(context.Background()); err != nil {
		t.Error(err)
	}
	client, _ := r.pair()
	rst(client)
	for {
		ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
		err := r.Ping(ctx)
		cancel()
		if errors.Is(err, context.DeadlineExceeded) && err.Error() == "1 of 3 loops do not answer: context deadline exceeded" {
			break
		}
	}
	close(release)
	if err := r.Ping(context.Background()); err != nil {
		t.Error(err)
	}
	r.end()
	if err := r.Ping(context.Background()); !errors.Is(err, engine.ErrClosed) {
		t.Errorf("after the end: %v", err)
	}
	fresh, err := engine.New(engine.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer fresh.Close()
	if err := fresh.Ping(context.Background()); !errors.Is(err, engine.ErrNotRunning) {
		t.Errorf("before Run: %v", err)
	}
}

// TestCallsAtTheWrongTimeSayWhy: an engine that does not run yet, runs already or has ended.
func TestCallsAtTheWrongTimeSayWhy(t *testing.T) {
	r := newRig(t, engine.Options{})
	if err := r.Run(context.Background()); !errors.Is(err, engine.ErrRunning) {
		t.Errorf("Run, twice: %v", err)
	}
	if err := r.Ping(context.Background()); err != nil {
		t.Errorf("the second Run has ended the first: %v", err)
	}
	r.end()
	if err := r.Run(context.Background()); !errors.Is(err, engine.ErrClosed) {
		t.Errorf("Run after the end: %v", err)
	}
	fresh, err := engine.New(engine.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := fresh.HandOver(context.Background(), nil, nil); !errors.Is(err, engine.ErrNotRunning) {
		t.Errorf("HandOver before Run: %v", err)
	}
	fresh.Close()
	if _, err := fresh.HandOver(context.Background(), nil, nil); !errors.Is(err, engine.ErrClosed) {
		t.Errorf("HandOver after Close: %v", err)
	}
}

// TestCloseInsteadOfRunDialsNobody: adopted connections are reset, and the observer is called,
// which may call the engine.
func TestCloseInsteadOfRunDialsNobody(t *testing.T) {
	leak.Check(t)
	server, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	var e *engine.Engine
	var told []engine.PairInfo
	observer := engine.Observer{PairEnded: func(i engine.PairInfo) {
		told = append(told, i)
		e.Close()
		e.Stats()
		if err := e.Ping(context.Background()); !errors.Is(err, engine.ErrClosed) {
			t.Errorf("Ping: %v", err)
		}
	}}
	asked := intercept.InterceptorFunc(func(intercept.Pair) intercept.Decision {
		t.Error("the interceptor was asked")
		return intercept.Decision{}
	})
	if e, err = engine.New(engine.Options{Observer: observer, Interceptor: asked}); err != nil {
		t.Fatal(err)
	}
	client, conn := accepted(t)
	defer client.Close()
	if err := e.Adopt(conn, engine.Adoption{Destination: server.Addr().(*net.TCPAddr).AddrPort(), Prefix: []byte("hello")}); err != nil {
		t.Fatal(err)
	}
	conn.Close()
	e.Close()
	expectReset(t, "client", client)
	if len(told) != 1 || told[0].Reason != engine.ReasonDrained {
		t.Errorf("the observer was told %+v", told)
	}
	server.SetDeadline(time.Now())
	if c, err := server.Accept(); err == nil {
		c.Close()
		t.Error("the server was dialed")
	}
}

package engine_test

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/netip"
	"reflect"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/tprelay/tprelay/engine"
	"github.com/tprelay/tprelay/intercept"
	"github.com/tprelay/tprelay/tproxy"
)

type log struct {
	mu            sync.Mutex
	opened, ended []engine.PairInfo
}

func (l *log) observer() engine.Observer {
	note := func(list *[]engine.PairInfo) func(engine.PairInfo) {
		return func(i engine.PairInfo) { l.mu.Lock(); *list = append(*list, i); l.mu.Unlock() }
	}
	return engine.Observer{PairOpened: note(&l.opened), PairEnded: note(&l.ended)}
}

func TestObserverIsToldOfEveryPair(t *testing.T) {
	var l log
	r := newRig(t, engine.Options{Observer: l.observer()})
	client, server := r.pair()
	exchange(t, client, server, noise(1000))
	exchange(t, server, client, noise(2000))
	local := client.LocalAddr().String()
	<-sendAll(client, nil, true)
	<-sendAll(server, nil, true)
	r.ended(engine.ReasonEOF, 1)
	client, server = r.pair()
	rst(client)
	expectReset(t, "server", server)
	r.ended(engine.ReasonReset, 1)
	r.server.Close()
	r.dialReset()
	r.ended(engine.ReasonDialError, 1)
	r.end()

	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.opened) != 2 || len(l.ended) != 3 {
		t.Fatalf("told of %d pairs that opened and %d that ended", len(l.opened), len(l.ended))
	}
	i := l.ended[0]
	if i.Client.String() != local || i.Upstream.Bytes != 1000 || i.Downstream.Bytes != 2000 || i.Reason != engine.ReasonEOF ||
		i.ID != l.opened[0].ID || !i.Established || !i.Upstream.FinSent || !i.Downstream.EOF || i.Mode != tproxy.Forward ||
		i.Upstream.Messages == 0 || i.Since.After(time.Now()) || i.Err != nil {
		t.Errorf("%+v", i)
	}
	if i := l.ended[2]; i.Established || i.Reason != engine.ReasonDialError || !errors.Is(i.Err, syscall.ECONNREFUSED) {
		t.Errorf("%+v", i)
	}
}

// TestPairInfoInJSON: an error is its text, and every field is there under its own name.
func TestPairInfoInJSON(t *testing.T) {
	for _, c := range []struct {
		err  error
		want string
	}{{syscall.ECONNREFUSED, "connection refused"}, {nil, ""}} {
		text, err := json.Marshal(engine.PairInfo{ID: 7, Reason: engine.ReasonDialError, Err: c.err})
		if err != nil {
			t.Fatal(err)
		}
		var got map[string]any
		if err := json.Unmarshal(text, &got); err != nil {
			t.Fatal(err)
		}
		if got["Err"] != c.want || got["ID"] != 7.0 || got["Reason"] != "dial-error" || len(got) != reflect.TypeFor[engine.PairInfo]().NumField() {
			t.Errorf("%s", text)
		}
	}
}

func TestPairsAreListedAcrossLoops(t *testing.T) {
	r := newRig(t, engine.Options{Loops: 4})
	const n = 1200 // more than a loop describes at once
	for range n {
		c := r.dial()
		defer c.Close()
		s := r.accept()
		defer s.Close()
	}
	r.until("open", func(s engine.Stats) bool { return s.Opened == n })
	ids := map[uint64]bool{}
	r.Pairs(func(i engine.PairInfo) bool { ids[i.ID] = true; return true })
	if len(ids) != n {
		t.Errorf("%d pairs with ids of their own, want %d", len(ids), n)
	}
	calls := 0
	r.Pairs(func(engine.PairInfo) bool { calls++; return calls < 5 })
	if calls != 5 {
		t.Errorf("called %d times after it said stop at 5", calls)
	}
}

func TestOptionsThatCannotWork(t *testing.T) {
	ok := netip.MustParseAddrPort("127.0.0.1:0")
	for want, o := range map[string]engine.Options{
		"Options.Loops: -1 is not between 1 and 256":           {Loops: -1},
		"Options.Spoof: unknown spoof(9)":                      {Spoof: 9},
		"Options.HighWatermark: 100 bytes":                     {HighWatermark: 100},
		"Options.LowWatermark: 8192 bytes":                     {HighWatermark: 8192, LowWatermark: 8192},
		"Options.LowWatermark: -1 bytes":                       {LowWatermark: -1},
		"Options.MemoryLimit: 5 bytes":                         {MemoryLimit: 5},
		"Options.PipeSize: 1 bytes":                            {PipeSize: 1},
		"Options.Pipes: -1 is negative; to use none":           {Pipes: -1},
		"Options.Backlog: -1":                                  {Backlog: -1},
		"Options.UserTimeout: 1ns":                             {UserTimeout: 1},
		"Options.KeepAlive.Count: 128":                         {KeepAlive: net.KeepAliveConfig{Enable: true, Count: 128}},
		"Options.Deny[1]: not a network":                       {Deny: []netip.Prefix{netip.MustParsePrefix("::/0"), {}}},
		"Options.Interceptor: a nil *intercept.Recorder":       {Interceptor: (*intercept.Recorder)(nil)},
		"Options.Interceptor: a nil intercept.InterceptorFunc": {Interceptor: intercept.InterceptorFunc(nil)},
		"Options.Listeners[0].Address: not set":                {Listeners: []engine.Listener{{}}},
		"Options.Listeners[0].Mode: not set; choose":           {Listeners: []engine.Listener{{Address: ok}}},
		"Options.Listeners[0].Mode: unknown mode(9)":           {Listeners: []engine.Listener{{Address: ok, Mode: 9}}},
		"Options.Listeners[0].Upstream: forward mode":          {Listeners: []engine.Listener{{Address: ok, Mode: tproxy.Forward}}},
		"Options.Listeners[0].Upstream: only for forward":      {Listeners: []engine.Listener{{Address: ok, Mode: tproxy.Redirect, Upstream: ok}}},
		"Options.Listeners[0].Sockets[1]: nil":                 {Listeners: []engine.Listener{{Mode: tproxy.Redirect, Sockets: []syscall.Conn{new(net.TCPListener), (*net.TCPListener)(nil)}}}},
		"Options.Listeners[0].Sockets[0]: nil":                 {Listeners: []engine.Listener{{Mode: tproxy.Redirect, Sockets: []syscall.Conn{nil}}}},
		"Options.Listeners: 65 are more than 64":               {Listeners: make([]engine.Listener, 65)},
		"no interface":                                         {Listeners: []engine.Listener{{Address: netip.MustParseAddrPort("192.0.2.1:0"), Mode: tproxy.Redirect}}},
		"from the thread":                                      {ThreadInit: func() error { return errors.New("from the thread") }, Listeners: []engine.Listener{{Address: ok, Mode: tproxy.Redirect}}},
	} {
		e, err := engine.New(o)
		if err == nil {
			e.Close()
			t.Errorf("%q was taken", want)
		} else if !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%q: %v", want, err)
		}
	}
}

// TestNegativeIsOff: New accepts a negative value in every field in which something can be turned
// off, also where that is the default.
func TestNegativeIsOff(t *testing.T) {
	r := newRig(t, engine.Options{
		MaxPairs: -1, MaxPairsPerSource: -1, DescriptorReserve: -1, ConnectTimeout: -1, IdleTimeout: -1, HalfCloseTimeout: -1, DrainTimeout: -1,
		UserTimeout: -1, KeepAlive: net.KeepAliveConfig{Idle: -1},
	})
	client, server := r.pair()
	exchange(t, client, server, noise(1000))
	client.CloseWrite()
	expect(t, "server", server, nil)
	r.stop() // it does not wait for the other direction
	expectReset(t, "client", client)
	r.ended(engine.ReasonDrained, 1)
}

func TestPortInUseIsNotShared(t *testing.T) {
	r := newRig(t, engine.Options{})
	_, err := engine.New(engine.Options{Listeners: []engine.Listener{{Address: r.Addrs()[0], Mode: tproxy.Redirect}}})
	if err == nil || !strings.Contains(err.Error(), "address already in use; choose another port") {
		t.Errorf("%v", err)
	}
}

func TestRunOnce(t *testing.T) {
	r := newRig(t, engine.Options{})
	r.pair() // it runs
	if err := r.Run(context.Background()); !errors.Is(err, engine.ErrRunning) {
		t.Errorf("second Run: %v", err)
	}
	e, err := engine.New(engine.Options{})
	if err != nil {
		t.Fatal(err)
	}
	e.Pairs(func(engine.PairInfo) bool { t.Error("a pair of an engine that does not run"); return true })
	e.Close()
	if err := e.Run(context.Background()); !errors.Is(err, engine.ErrClosed) {
		t.Errorf("Run after Close: %v", err)
	}
}

func TestThreadInitFailureEndsRun(t *testing.T) {
	calls := 0
	e, err := engine.New(engine.Options{Loops: 1, ThreadInit: func() error {
		if calls++; calls > 1 {
			return errors.New("no more threads")
		}
		return nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Run(context.Background()); err == nil || err.Error() != "no more threads" {
		t.Errorf("%v", err)
	}
}

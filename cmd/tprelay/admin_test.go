package main

import (
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"

	"github.com/tprelay/tprelay/engine"
)

func TestAdminFlag(t *testing.T) {
	var a adminFlag
	if err := a.UnmarshalText([]byte("127.0.0.1:9092")); err != nil || a.String() != "127.0.0.1:9092" {
		t.Errorf("%v, %v", a, err)
	}
	for _, bad := range []string{":9092", "localhost:9092", "9092", "127.0.0.1"} {
		if err := a.UnmarshalText([]byte(bad)); err == nil || !strings.Contains(err.Error(), "want ADDR:PORT") {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func TestAdminShowsTheRelay(t *testing.T) {
	relay, err := engine.New(engine.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer relay.Close()
	var lines strings.Builder
	log := slog.New(slog.NewTextHandler(&lines, nil))
	end, err := adminFlag{netip.MustParseAddrPort("127.0.0.1:0")}.serve(relay, 0, log)
	if err != nil {
		t.Fatal(err)
	}
	_, url, ok := strings.Cut(lines.String(), "url=")
	if !ok {
		t.Fatal(lines.String())
	}
	url = strings.TrimSpace(url)
	r, err := http.Get(url + "metrics")
	if err != nil {
		t.Fatal(err)
	}
	body, _ := io.ReadAll(r.Body)
	r.Body.Close()
	if !strings.Contains(string(body), "\ntprelay_pairs 0\n") {
		t.Errorf("%s: %s", r.Status, body)
	}
	end.stop()
	if _, err := net.Dial("tcp", strings.TrimSuffix(strings.TrimPrefix(url, "http://"), "/")); err == nil {
		t.Error("still there after stop")
	}
	http.DefaultClient.CloseIdleConnections()
}

func TestAdminPortInUse(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, err = adminFlag{l.Addr().(*net.TCPAddr).AddrPort()}.serve(nil, 0, slog.New(slog.DiscardHandler))
	if err == nil || !strings.Contains(err.Error(), "address already in use; choose another port") {
		t.Error(err)
	}
	end, err := adminFlag{}.serve(nil, 0, nil)
	if err != nil || end != nil {
		t.Fatal(end, err)
	}
	end.stop() // does nothing
}

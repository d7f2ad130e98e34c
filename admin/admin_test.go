package admin_test

import (
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/tprelay/tprelay/admin"
	"github.com/tprelay/tprelay/engine"
	"github.com/tprelay/tprelay/tproxy"
)

// served is a relay that has moved some bytes on one pair that still lives, had one
// dial refused, and is shown over HTTP.
func served(t *testing.T) (web string, relay *engine.Engine) {
	t.Helper()
	server, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { server.Close() })
	relay, err = engine.New(engine.Options{Listeners: []engine.Listener{{
		Address:  netip.MustParseAddrPort("127.0.0.1:0"),
		Mode:     tproxy.Forward,
		Upstream: netip.MustParseAddrPort(server.Addr().String()),
	}}})
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error)
	go func() { ended <- relay.Run(context.Background()) }()
	t.Cleanup(func() {
		relay.Close()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	client, err := net.Dial("tcp", relay.Addrs()[0].String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	c, err := server.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if _, err := client.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(c, make([]byte, 5)); err != nil {
		t.Fatal(err)
	}
	server.Close()
	if refused, err := net.Dial("tcp", relay.Addrs()[0].String()); err == nil {
		io.Copy(io.Discard, refused)
		refused.Close()
	}
	for end := time.Now().Add(time.Minute); relay.Stats().Ended[engine.ReasonDialError] == 0 || relay.Stats().UpstreamSplice < 5; {
		if time.Now().After(end) {
			t.Fatalf("%+v", relay.Stats())
		}
		time.Sleep(time.Millisecond)
	}
	s := httptest.NewServer(admin.Handler(relay, admin.Options{}))
	t.Cleanup(s.Close)
	return s.URL, relay
}

func get(t *testing.T, url string, status int) string {
	t.Helper()
	r, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	body, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	if r.StatusCode != status {
		t.Errorf("%s: %s, want %d", url, r.Status, status)
	}
	return string(body)
}

func TestMetrics(t *testing.T) {
	web, _ := served(t)
	text := get(t, web+"/metrics", 200)
	for _, line := range []string{
		"tprelay_accepted_total 2",
		"tprelay_pairs 1",
		"tprelay_opened_total 1",
		`tprelay_dial_errors_total{errno="ECONNREFUSED"} 1`,
		`tprelay_ended_total{reason="dial-error"} 1`,
		`tprelay_spoof_total{level="none"} 1`,
		`tprelay_delivered_bytes_total{direction="upstream",path="splice"} 5`,
		`tprelay_delivered_bytes_total{direction="downstream",path="buffer"} 0`,
	} {
		if !strings.Contains(text, "\n"+line+"\n") {
			t.Errorf("no line %q in\n%s", line, text)
		}
	}
	if !strings.Contains(text, "\ntprelay_kernel_memory_bytes ") {
		t.Errorf("no memory of the kernel in\n%s", text)
	}
}

func TestStatsAndPairs(t *testing.T) {
	web, relay := served(t)
	var stats struct {
		Accepted uint64
		Ended    map[string]uint64
	}
	if err := json.Unmarshal([]byte(get(t, web+"/stats", 200)), &stats); err != nil {
		t.Fatal(err)
	}
	if stats.Accepted != 2 || stats.Ended["dial-error"] != 1 {
		t.Errorf("%+v", stats)
	}
	var pairs []struct {
		Destination, Listener, Mode, SpoofLevel string
		Upstream                                struct {
			Bytes uint64
			Path  string
		}
	}
	if err := json.Unmarshal([]byte(get(t, web+"/pairs", 200)), &pairs); err != nil {
		t.Fatal(err)
	}
	if len(pairs) != 1 || pairs[0].Upstream.Bytes != 5 || pairs[0].Upstream.Path != "splice" || pairs[0].Mode != "forward" ||
		pairs[0].SpoofLevel != "none" || pairs[0].Listener != relay.Addrs()[0].String() {
		t.Errorf("%+v", pairs)
	}
	if text := get(t, web+"/pairs?limit=0", 200); strings.TrimSpace(text) != "[]" {
		t.Errorf("limit 0 gives %s", text)
	}
	if text := get(t, web+"/pairs?limit=many", 400); !strings.Contains(text, `limit "many": want a number`) {
		t.Error(text)
	}
}

func TestPageAndHealth(t *testing.T) {
	web, _ := served(t)
	if text := get(t, web+"/", 200); !strings.Contains(text, "<title>tprelay</title>") {
		t.Error(text)
	}
	if text := get(t, web+"/healthz", 200); text != "ok\n" {
		t.Error(text)
	}
	get(t, web+"/nothing", 404)
	r, err := http.Post(web+"/stats", "text/plain", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Body.Close()
	if r.StatusCode != http.StatusMethodNotAllowed {
		t.Errorf("POST: %s", r.Status)
	}
}

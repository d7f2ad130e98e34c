package admin_test

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tprelay/tprelay/admin"
	"github.com/tprelay/tprelay/engine"
	"github.com/tprelay/tprelay/tproxy"
)

// TestFullRelayStillAnswers: a relay that has taken every descriptor it may leaves some to
// its admin end, which tells why nobody gets in. The test runs itself with few
// descriptors, and is the relay then; clients and server are out here.
func TestFullRelayStillAnswers(t *testing.T) {
	const variable = "TPRELAY_TEST_FULL"
	if upstream := os.Getenv(variable); upstream != "" {
		serveWithFewDescriptors(t, upstream)
		return
	}
	server, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	cmd := exec.Command("/proc/self/exe", "-test.run=^TestFullRelayStillAnswers$", "-test.timeout=120s")
	cmd.Env = append(os.Environ(), variable+"="+server.Addr().String())
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		in.Close()
		if err := cmd.Wait(); err != nil {
			t.Error(err)
		}
	}()
	var web, relay string
	if _, err := fmt.Fscanln(out, &web, &relay); err != nil {
		t.Fatal(err)
	}

	const clients = 150 // 300 descriptors would be needed, and there are 200
	var conns []net.Conn
	for range clients {
		c, err := net.Dial("tcp", relay)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		conns = append(conns, c)
	}
	metric := func(name string) (n float64) {
		// A connection of its own each time: that is what needs descriptors.
		client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: time.Minute}
		r, err := client.Get(web + "/metrics")
		if err != nil {
			t.Error(err)
			return 0
		}
		defer r.Body.Close()
		var text strings.Builder
		if err := r.Write(&text); err != nil || r.StatusCode != http.StatusOK {
			t.Errorf("%s, %v", r.Status, err)
		}
		for line := range strings.Lines(text.String()) {
			fmt.Sscanf(line, name+" %g", &n)
		}
		return n
	}
	until := func(what string, ok func() bool) {
		t.Helper()
		for end := time.Now().Add(time.Minute); !ok(); time.Sleep(10 * time.Millisecond) {
			if t.Failed() || time.Now().After(end) {
				t.Fatalf("never came: %s", what)
			}
		}
	}
	until("pause", func() bool { return metric("tprelay_accept_pauses_total") > 0 })
	if n := metric("tprelay_pairs"); n >= clients || n < 50 {
		t.Errorf("%v pairs", n)
	}
	var wg sync.WaitGroup
	for range 10 { // many at once
		wg.Go(func() { metric("tprelay_pairs") })
	}
	wg.Wait()

	for _, c := range conns {
		c.Close()
	}
	go func() {
		for {
			c, err := server.Accept()
			if err != nil {
				return
			}
			c.Close()
		}
	}()
	until("the end of all", func() bool {
		return metric("tprelay_accepted_total") == clients && metric("tprelay_pairs") == 0
	})
}

// serveWithFewDescriptors is the other process. It ends when its input does.
func serveWithFewDescriptors(t *testing.T, upstream string) {
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 200, Max: 200}); err != nil {
		t.Fatal(err)
	}
	relay, err := engine.New(engine.Options{Listeners: []engine.Listener{{
		Address: netip.MustParseAddrPort("127.0.0.1:0"), Mode: tproxy.Forward, Upstream: netip.MustParseAddrPort(upstream),
	}}})
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- relay.Run(context.Background()) }()
	web := httptest.NewServer(admin.Handler(relay, admin.Options{}))
	defer web.Close()
	fmt.Println(web.URL, relay.Addrs()[0])
	_, _ = os.Stdin.Read(make([]byte, 1))
	relay.Close()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

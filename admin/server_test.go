package admin

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tprelay/tprelay/engine"
)

// nobody is a relay with a number of pairs.
type nobody int

func (nobody) Stats() engine.Stats { return engine.Stats{} }

func (n nobody) Pairs(show func(engine.PairInfo) bool) error {
	for range n {
		if !show(engine.PairInfo{}) {
			break
		}
	}
	return nil
}

func listen(t *testing.T, network string) net.Listener {
	t.Helper()
	address := "127.0.0.1:0"
	if network == "unix" {
		address = t.TempDir() + "/admin"
	}
	l, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// ask sends a request and gives the answer.
func ask(t *testing.T, c net.Conn, request string) *http.Response {
	t.Helper()
	if _, err := io.WriteString(c, request); err != nil {
		t.Fatal(err)
	}
	r, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// TestConnectionsAreBounded: idle ones, those that never sent anything, and those that
// have had an answer, make way for others.
func TestConnectionsAreBounded(t *testing.T) {
	l := listen(t, "tcp")
	s := Serve(l, nobody(0), Options{})
	defer s.Stop(0)
	const clients = 4 * maxConnections
	var conns []net.Conn
	for n := range clients {
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		conns = append(conns, c)
		if n%2 == 0 {
			r := ask(t, c, "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
			if _, err := io.ReadAll(r.Body); err != nil || r.StatusCode != http.StatusOK {
				t.Fatalf("client %d: %s, %v", n, r.Status, err)
			}
		}
	}
	// All but maxConnections are closed. Which, depends on when the server has noted the end of
	// a request.
	closed := make(chan struct{}, clients)
	for _, c := range conns {
		go func() {
			if _, err := c.Read(make([]byte, 1)); err != nil {
				closed <- struct{}{}
			}
		}()
	}
	late := time.After(30 * time.Second)
	for n := range clients - maxConnections {
		select {
		case <-closed:
		case <-late:
			t.Fatalf("%d of %d clients are still connected", clients-n, clients)
		}
	}
	if n := s.conns.count(); n > maxConnections {
		t.Errorf("%d connections", n)
	}
}

func TestRequestsUnderWayAreTheLastToMakeWay(t *testing.T) {
	var c connections
	conns := make([]net.Conn, maxConnections)
	ends := map[net.Conn]net.Conn{}
	dial := func() net.Conn {
		a, b := net.Pipe()
		t.Cleanup(func() { a.Close(); b.Close() })
		ends[a] = b
		c.note(a, http.StateNew)
		return a
	}
	closed := func(a net.Conn) bool {
		ends[a].SetReadDeadline(time.Now().Add(time.Millisecond))
		_, err := ends[a].Read(make([]byte, 1))
		return err == io.EOF
	}
	for n := range conns {
		conns[n] = dial()
		c.note(conns[n], http.StateActive)
	}
	c.note(conns[7], http.StateIdle)
	newcomer := dial()
	if !closed(conns[7]) || closed(conns[0]) {
		t.Error("the idle one did not make way")
	}
	c.note(newcomer, http.StateActive)
	dial()
	if !closed(conns[0]) || closed(conns[1]) || closed(newcomer) {
		t.Error("the oldest request did not make way")
	}
	// What the server says of one that has made way changes nothing.
	before := c.count()
	c.note(conns[0], http.StateIdle)
	c.note(conns[0], http.StateClosed)
	if n := c.count(); n != before || n != maxConnections {
		t.Errorf("%d connections, before %d", n, before)
	}
}

// pipes is a listener whose connections a test makes itself, so that time can be the
// test's own.
type pipes struct {
	conns  chan net.Conn
	closed context.Context
	cancel context.CancelFunc
}

func newPipes() *pipes {
	p := &pipes{conns: make(chan net.Conn)}
	p.closed, p.cancel = context.WithCancel(context.Background())
	return p
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.closed.Done():
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error {
	p.cancel()
	return nil
}

func (*pipes) Addr() net.Addr { return &net.TCPAddr{} }

func TestSilentClientsAreHungUpOn(t *testing.T) {
	const get = "GET /pairs HTTP/1.1\r\nHost: localhost\r\n"
	for what, send := range map[string]string{
		"says nothing":               "",
		"says half":                  get,
		"announces more than it has": get + "Content-Length: 1000000\r\n\r\nx",
		"does not read the answer":   get + "\r\n",
	} {
		synctest.Test(t, func(t *testing.T) {
			listener := newPipes()
			s := Serve(listener, nobody(5000), Options{})
			client, server := net.Pipe()
			listener.conns <- server
			if _, err := io.WriteString(client, send); err != nil {
				t.Error(err)
			}
			time.Sleep(writeTimeout + time.Second) // of synctest's clock
			synctest.Wait()
			if n := s.conns.count(); n != 0 {
				t.Errorf("%s: still connected", what)
			}
			client.Close()
			s.Stop(0)
		})
	}
	synctest.Test(t, func(t *testing.T) {
		listener := newPipes()
		s := Serve(listener, nobody(0), Options{})
		client, server := net.Pipe()
		listener.conns <- server
		r := ask(t, client, get+"\r\n")
		if _, err := io.ReadAll(r.Body); err != nil {
			t.Error(err)
		}
		time.Sleep(idleTimeout + time.Second) // of synctest's clock
		synctest.Wait()
		if n := s.conns.count(); n != 0 {
			t.Error("idle: still connected")
		}
		client.Close()
		s.Stop(0)
	})
}

func TestForeignHostsAreRefused(t *testing.T) {
	l := listen(t, "tcp")
	s := Serve(l, nobody(0), Options{Hosts: []string{"Gateway.example.com"}})
	defer s.Stop(0)
	for host, status := range map[string]int{
		"127.0.0.1": 200, "127.0.0.1:9092": 200, "[::1]:9092": 200, "[::1]": 200, "192.0.2.1:80": 200,
		"localhost": 200, "LOCALHOST:9092": 200, "gateway.example.com:9092": 200, "gateway.example.com.": 200,
		"evil.example": 421, "evil.example:9092": 421, "127.0.0.1.evil.example": 421, "localhost.evil.example": 421, ":9092": 421, "xn--1:1": 421,
	} {
		for _, path := range []string{"/", "/metrics", "/stats", "/pairs", "/healthz"} {
			c, err := net.Dial("tcp", l.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			r := ask(t, c, fmt.Sprintf("GET %s HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n", path, host))
			body, err := io.ReadAll(r.Body)
			c.Close()
			if err != nil || r.StatusCode != status {
				t.Errorf("%s of %s: %s, %v; want %d", path, host, r.Status, err, status)
			}
			if status == 421 && (strings.Count(string(body), "\n") != 1 || !strings.Contains(string(body), "--admin-host")) {
				t.Errorf("%s: it says %q", host, body)
			}
		}
	}
}

func TestClientsThatNameNoHostAreAnswered(t *testing.T) {
	for network, request := range map[string]string{
		"tcp":  "GET /healthz HTTP/1.0\r\n\r\n",
		"unix": "GET /healthz HTTP/1.1\r\nHost: anything\r\n\r\n",
	} {
		l := listen(t, network)
		s := Serve(l, nobody(0), Options{})
		c, err := net.Dial(network, l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		if r := ask(t, c, request); r.StatusCode != http.StatusOK {
			t.Errorf("%s: %s", network, r.Status)
		}
		c.Close()
		s.Stop(time.Minute)
	}
}

func TestNoAnswerIsSniffed(t *testing.T) {
	l := listen(t, "tcp")
	s := Serve(l, nobody(0), Options{})
	defer s.Stop(0)
	for _, request := range []string{
		"GET / HTTP/1.1\r\nHost: localhost", "GET /metrics HTTP/1.1\r\nHost: localhost", "GET /stats HTTP/1.1\r\nHost: localhost",
		"GET /pairs HTTP/1.1\r\nHost: localhost", "GET /pairs?limit=x HTTP/1.1\r\nHost: localhost", "GET /healthz HTTP/1.1\r\nHost: localhost",
		"HEAD / HTTP/1.1\r\nHost: localhost", "POST /stats HTTP/1.1\r\nHost: localhost", "GET /nothing HTTP/1.1\r\nHost: localhost",
		"GET //x HTTP/1.1\r\nHost: localhost", "GET / HTTP/1.1\r\nHost: evil.example", "OPTIONS * HTTP/1.1\r\nHost: localhost",
	} {
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		r := ask(t, c, request+"\r\n\r\n")
		c.Close()
		if got := r.Header.Get("X-Content-Type-Options"); got != "nosniff" {
			t.Errorf("%s: %s with X-Content-Type-Options %q", request, r.Status, got)
		}
	}
}

// FuzzForeignHost: whatever stands before it, the name of somebody else's host is refused.
func FuzzForeignHost(f *testing.F) {
	for _, text := range []string{"localhost", "known.test:80", "[::1]:80", "[::1", "..", ":", "[", "fe80::1%25eth0", "1.2.3.4:5:6"} {
		f.Add(text)
	}
	known := knownHosts([]string{"known.test"})
	f.Fuzz(func(t *testing.T, text string) {
		host := text + ".evil.example"
		if _, err := netip.ParseAddr(hostName(host)); err == nil {
			return // an address with a zone of that name
		}
		for _, host := range []string{host, host + ":80"} {
			if known.allow(&http.Request{Host: host}) {
				t.Fatalf("%q is allowed", host)
			}
		}
	})
}

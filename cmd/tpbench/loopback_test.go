package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/tprelay/tprelay/internal/cli"
)

// testServer is a server in this process.
type testServer struct {
	address netip.AddrPort
	events  <-chan event
	end     func() []event // ends it and gives the events that were not read
}

func startServer(t *testing.T, echo bool, listen string) *testServer {
	t.Helper()
	var at cli.Listen
	if err := at.UnmarshalText([]byte(listen)); err != nil {
		t.Fatal(err)
	}
	r, w := io.Pipe()
	events := make(chan event, 10000)
	go func() {
		defer close(events)
		for dec := json.NewDecoder(bufio.NewReader(r)); ; {
			var e event
			if dec.Decode(&e) != nil {
				return
			}
			events <- e
		}
	}()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		done <- newServer(echo, &printer{to: w, json: true}).run(ctx, at, 2)
		w.Close()
	}()
	s := &testServer{events: events}
	s.end = sync.OnceValue(func() (rest []event) {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		for e := range events {
			rest = append(rest, e)
		}
		return rest
	})
	t.Cleanup(func() { s.end() })
	first := s.await(t, eventListening)
	s.address = *first.Local
	return s
}

// await gives the next event of a kind.
func (s *testServer) await(t *testing.T, kind string) event {
	t.Helper()
	late := time.After(10 * time.Second)
	for {
		select {
		case e, ok := <-s.events:
			if !ok {
				t.Fatalf("ended before %s", kind)
			}
			if e.Event == kind {
				return e
			}
		case <-late:
			t.Fatalf("no %s", kind)
		}
	}
}

// load runs a sender and gives its events.
func load(t *testing.T, s *sender) []event {
	t.Helper()
	var out bytes.Buffer
	s.meter.out = &printer{to: &out, json: true}
	if err := s.run(t.Context()); err != nil {
		t.Fatal(err)
	}
	return decode(t, &out)
}

func decode(t *testing.T, r io.Reader) (events []event) {
	t.Helper()
	for dec := json.NewDecoder(r); ; {
		var e event
		if err := dec.Decode(&e); err == io.EOF {
			return events
		} else if err != nil {
			t.Fatal(err)
		}
		events = append(events, e)
	}
}

func sum(events []event) (intervals int64, total event) {
	for _, e := range events {
		switch e.Event {
		case eventInterval:
			intervals += e.Bytes
		case eventTotal:
			total = e
		}
	}
	return intervals, total
}

func TestSinkCountsAllThatWasSent(t *testing.T) {
	for _, connections := range []int{1, 5} {
		server := startServer(t, false, "127.0.0.1:0")
		const bytes = 50_000_001
		sent := load(t, &sender{target: server.address, connections: connections, block: 64 << 10, bytes: bytes, drain: 10 * time.Second})
		intervals, total := sum(sent)
		if intervals != bytes || total.Bytes != bytes || total.Connections != connections || total.Delivered == nil || !*total.Delivered || total.Returned != 0 {
			t.Errorf("load: intervals of %d bytes, total %v", intervals, total)
		}
		got := server.end()
		intervals, total = sum(got)
		if intervals != bytes || total.Bytes != bytes || total.Connections != connections {
			t.Errorf("serve: intervals of %d bytes, total %v", intervals, total)
		}
		var closed int64
		for _, e := range got {
			if e.Event == eventClose {
				closed += e.Bytes
				if e.Error != "" || *e.Local != server.address {
					t.Errorf("%v", e)
				}
			}
		}
		if closed != bytes {
			t.Errorf("connections took %d bytes", closed)
		}
	}
}

func TestBothEndsNameTheConnectionAlike(t *testing.T) {
	for _, listen := range []string{"127.0.0.1:0", "[::1]:0"} {
		server := startServer(t, false, listen)
		sent := load(t, &sender{target: server.address, connections: 1, block: 1, bytes: 1, drain: 10 * time.Second})
		open := server.await(t, eventOpen)
		if sent[0].Event != eventOpen || *sent[0].Local != *open.Peer || *sent[0].Peer != *open.Local {
			t.Errorf("load says %v, serve says %v", sent[0], open)
		}
	}
}

func TestServerWithoutAddressTakesBothFamilies(t *testing.T) {
	server := startServer(t, false, ":0")
	for _, host := range []string{"127.0.0.1", "::1"} {
		target := netip.AddrPortFrom(netip.MustParseAddr(host), server.address.Port())
		load(t, &sender{target: target, connections: 1, block: 10, bytes: 10, drain: 10 * time.Second})
		if open := server.await(t, eventOpen); open.Peer.Addr() != target.Addr() || *open.Local != target {
			t.Errorf("%v: %v", target, open)
		}
	}
}

func TestSinkAnswersAHalfCloseAfterTheLastByte(t *testing.T) {
	server := startServer(t, false, "127.0.0.1:0")
	c, err := net.Dial("tcp", server.address.String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Write(make([]byte, 5<<20)); err != nil {
		t.Fatal(err)
	}
	if err := c.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if n, err := c.Read(make([]byte, 1)); n != 0 || err != io.EOF {
		t.Errorf("read %d bytes, %v", n, err)
	}
	if closed := server.await(t, eventClose); closed.Bytes != 5<<20 || closed.Error != "" {
		t.Errorf("%v", closed)
	}
}

func TestEchoSendsEverythingBack(t *testing.T) {
	server := startServer(t, true, "127.0.0.1:0")
	const bytes = 20_000_000
	sent := load(t, &sender{target: server.address, connections: 3, block: 64 << 10, bytes: bytes, echo: true, drain: 10 * time.Second})
	if _, total := sum(sent); total.Returned != bytes || !*total.Delivered {
		t.Errorf("%v", total)
	}
}

func TestEchoCutsOffWhoDoesNotRead(t *testing.T) {
	server := startServer(t, true, "127.0.0.1:0")
	c, err := net.Dial("tcp", server.address.String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetWriteDeadline(time.Now().Add(20 * time.Second))
	block := make([]byte, 1<<20)
	for range 2 * mostUnsent >> 20 {
		if _, err = c.Write(block); err != nil {
			break
		}
	}
	if err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("it was not cut off: %v", err)
	}
	if closed := server.await(t, eventClose); closed.Error != errUnread.Error() {
		t.Errorf("%v", closed)
	}
}

func TestSendingForATimeEndsInAReset(t *testing.T) {
	server := startServer(t, false, "127.0.0.1:0")
	sent := load(t, &sender{target: server.address, connections: 2, block: 4096, length: 1200 * time.Millisecond})
	intervals, total := sum(sent)
	if intervals != total.Bytes || total.Bytes == 0 || total.Delivered != nil || total.End < 1.2 {
		t.Errorf("intervals of %d bytes, total %v", intervals, total)
	}
	if closed := server.await(t, eventClose); closed.Error == "" {
		t.Errorf("no reset: %v", closed)
	}
}

// unread listens, and never reads from whom it accepts.
func unread(t *testing.T) netip.AddrPort {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return addrPort(l.Addr())
}

func TestSenderDoesNotWaitForEverForDelivery(t *testing.T) {
	sent := load(t, &sender{target: unread(t), connections: 1, block: 10, bytes: 10, drain: 20 * time.Millisecond})
	if _, total := sum(sent); total.Bytes != 10 || total.Delivered == nil || *total.Delivered {
		t.Errorf("%v", total)
	}
}

func TestBlockedWriteEndsInTime(t *testing.T) {
	sent := load(t, &sender{target: unread(t), connections: 1, block: 32 << 20, length: 100 * time.Millisecond})
	if _, total := sum(sent); total.Bytes == 0 || total.Bytes >= 32<<20 {
		t.Errorf("what a broken-off write got rid of is not counted: %v", total)
	}
}

func TestInterruptEndsASenderThatWaits(t *testing.T) {
	for name, s := range map[string]*sender{
		"to send":     {block: 1 << 20, length: time.Hour},
		"to be read":  {block: 10, bytes: 10, drain: time.Hour},
		"for an echo": {block: 10, bytes: 10, drain: time.Hour, echo: true},
	} {
		s.target, s.connections, s.meter.out = unread(t), 1, &printer{to: io.Discard}
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		done := make(chan struct{})
		go func() {
			s.run(ctx)
			close(done)
		}()
		select {
		case <-done:
		case <-time.After(10 * time.Second):
			t.Fatalf("%s: it waits on", name)
		}
		cancel()
	}
}

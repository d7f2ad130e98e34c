package server

import (
	"bytes"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/tprelay/tprelay/bench/protocol"
	"github.com/tprelay/tprelay/bench/worker"
	"github.com/tprelay/tprelay/bench/worker/workertest"
	"github.com/tprelay/tprelay/internal/leak"
)

// serve starts a server.
func serve(t *testing.T, threads int) (*workertest.Hand, netip.AddrPort) {
	t.Helper()
	address := workertest.Ports(t)
	return workertest.Start(t, t.Context(), New, worker.Job{Kind: worker.Serve, Address: address, Threads: threads}).Ready(), address
}

// requests returns requests, one after the other.
func requests(all ...protocol.Request) []byte {
	var text []byte
	for _, r := range all {
		one := make([]byte, r.Length)
		r.Put(one, protocol.NewPattern(1000))
		text = append(text, one...)
	}
	return text
}

func TestCoalescedAndSplitRequestsAreAnswered(t *testing.T) {
	leak.Check(t)
	_, address := serve(t, 1)
	all := []protocol.Request{
		{Length: 16, Reply: 1, Seed: 250}, {Length: 128, Reply: 128}, {Length: 17, Reply: 70000, Seed: 3},
		{Length: 100_000, Reply: 5, Seed: 9}, {Length: 128, Reply: 1000, Seed: 1, Close: true},
	}
	text := requests(all...)
	var want []byte
	p := protocol.NewPattern(100_000)
	for _, r := range all {
		want = append(want, p.From(int(r.Seed), r.Reply)...)
	}
	for _, piece := range []int{len(text), 1, 7, 15, 16, 17, 1000} {
		c, err := net.Dial("tcp", address.String())
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			for rest := text; len(rest) > 0; {
				n := min(piece, len(rest))
				if len(rest) > len(text)-200 || len(rest) < 200 {
					n = min(n, 16) // the headers are here
				} else {
					n = len(rest) - 150
				}
				if piece == len(text) {
					n = piece
				}
				if _, err := c.Write(rest[:n]); err != nil {
					return
				}
				rest = rest[n:]
			}
		}()
		c.SetDeadline(time.Now().Add(20 * time.Second))
		got, err := io.ReadAll(c)
		c.Close()
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("in pieces of %d: %d of %d bytes, %v", piece, len(got), len(want), err)
		}
	}
}

func TestCloseComesAfterTheLastByte(t *testing.T) {
	leak.Check(t)
	server, address := serve(t, 2)
	p := protocol.NewPattern(8 << 20)
	for _, size := range []int{1, 16 << 10, 64 << 10, 8 << 20} {
		for range 10 {
			c, err := net.Dial("tcp", address.String())
			if err != nil {
				t.Fatal(err)
			}
			if err := c.(*net.TCPConn).SetReadBuffer(16 << 10); err != nil { // the server has to wait with the longest
				t.Fatal(err)
			}
			c.SetDeadline(time.Now().Add(20 * time.Second))
			c.Write(requests(protocol.Request{Length: 128, Reply: size, Seed: 7, Close: true}))
			got, err := io.ReadAll(c)
			c.Close()
			if err != nil || !bytes.Equal(got, p.From(7, size)) {
				t.Fatalf("%d of %d bytes, %v", len(got), size, err)
			}
		}
	}
	if r := server.Measure(time.Millisecond); r.Errors != 0 {
		t.Errorf("errors: %+v", *r)
	}
}

func TestServerHangsUpOnGarbage(t *testing.T) {
	leak.Check(t)
	server, address := serve(t, 1)
	for _, a := range []string{address.String(), worker.Job{Address: address}.StreamAddress().String()} {
		c, err := net.Dial("tcp", a)
		if err != nil {
			t.Fatal(err)
		}
		c.SetDeadline(time.Now().Add(20 * time.Second))
		io.WriteString(c, "GET / HTTP/1.1\r\n")
		if n, err := c.Read(make([]byte, 1)); n != 0 || err == nil {
			t.Errorf("%d bytes, %v", n, err)
		}
		c.Close()
	}
	if r := server.Measure(time.Millisecond); r.Errors != 2 || r.Error == "" {
		t.Errorf("%+v", *r)
	}
}

func TestUploadWithALostByteIsCounted(t *testing.T) {
	leak.Check(t)
	server, address := serve(t, 1)
	c, err := net.Dial("tcp", address.String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	text := requests(protocol.Request{Length: 5000, Reply: 1}, protocol.Request{Length: 5000, Reply: 1})
	c.SetDeadline(time.Now().Add(20 * time.Second))
	c.Write(append(text[:1000:1000], text[1001:]...))
	if n, err := io.ReadAll(c); len(n) > 1 || err == nil && len(n) > 0 {
		t.Errorf("it was answered: %d bytes, %v", len(n), err)
	}
	if r := server.Measure(time.Millisecond); r.Errors != 1 || !strings.Contains(r.Error, "wrong bytes") {
		t.Errorf("%+v", *r)
	}
}

func TestStoppedServerEndsItsConnections(t *testing.T) {
	leak.Check(t)
	server, address := serve(t, 1)
	var conns []net.Conn
	for _, a := range []string{address.String(), worker.Job{Address: address}.StreamAddress().String()} {
		c, err := net.Dial("tcp", a)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		conns = append(conns, c)
	}
	// A reply of which nobody reads more than the first byte, and which is to be followed by a
	// close.
	conns[0].SetDeadline(time.Now().Add(20 * time.Second))
	conns[0].Write(requests(protocol.Request{Length: 16, Reply: 32 << 20, Close: true}))
	if _, err := io.ReadFull(conns[0], make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	if err := server.End(); err != nil {
		t.Error(err)
	}
	for _, c := range conns {
		c.SetDeadline(time.Now().Add(20 * time.Second))
		if n, _ := io.Copy(io.Discard, c); n >= 32<<20-1 {
			t.Error("all was sent")
		}
	}
}

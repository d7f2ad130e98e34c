package ends

import (
	"bytes"
	"io"
	"net"
	"testing"
	"time"

	"github.com/tprelay/tprelay/internal/netlab"
)

// requests makes some of them, one after the other.
func requests(all ...request) []byte {
	var text []byte
	for _, r := range all {
		one := make([]byte, r.length)
		r.put(one)
		text = append(text, one...)
	}
	return text
}

func TestCoalescedAndSplitRequestsAreAnswered(t *testing.T) {
	t.Cleanup(netlab.CheckLeaks(t))
	_, address := serve(t, 1)
	all := []request{
		{length: 16, reply: 1, seed: 250}, {length: 128, reply: 128}, {length: 17, reply: 70000, seed: 3},
		{length: 100_000, reply: 5, seed: 9}, {length: 128, reply: 1000, seed: 1, close: true},
	}
	text := requests(all...)
	var want []byte
	p := newPattern(100_000)
	for _, r := range all {
		want = append(want, p.from(int(r.seed), r.reply)...)
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
	t.Cleanup(netlab.CheckLeaks(t))
	server, address := serve(t, 2)
	p := newPattern(8 << 20)
	for _, size := range []int{1, 16 << 10, 64 << 10, 8 << 20} {
		for range 10 {
			c, err := net.Dial("tcp", address.String())
			if err != nil {
				t.Fatal(err)
			}
			c.SetDeadline(time.Now().Add(20 * time.Second))
			c.Write(requests(request{length: 128, reply: size, seed: 7, close: true}))
			time.Sleep(5 * time.Millisecond) // so that the server has to wait with the longest
			got, err := io.ReadAll(c)
			c.Close()
			if err != nil || !bytes.Equal(got, p.from(7, size)) {
				t.Fatalf("%d of %d bytes, %v", len(got), size, err)
			}
		}
	}
	if r := server.measure(time.Millisecond); r.Errors != 0 {
		t.Errorf("errors: %+v", *r)
	}
}

func TestServerHangsUpOnGarbage(t *testing.T) {
	t.Cleanup(netlab.CheckLeaks(t))
	server, address := serve(t, 1)
	for _, a := range []string{address.String(), Job{Address: address}.bulkAddress().String()} {
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
	if r := server.measure(time.Millisecond); r.Errors != 2 || r.Error == "" {
		t.Errorf("%+v", *r)
	}
}

func TestStoppedServerEndsItsConnections(t *testing.T) {
	t.Cleanup(netlab.CheckLeaks(t))
	server, address := serve(t, 1)
	var conns []net.Conn
	for _, a := range []string{address.String(), Job{Address: address}.bulkAddress().String()} {
		c, err := net.Dial("tcp", a)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		conns = append(conns, c)
	}
	// A reply that nobody reads, which is to be followed by a close.
	conns[0].Write(requests(request{length: 16, reply: 32 << 20, close: true}))
	time.Sleep(20 * time.Millisecond)
	if err := server.end(); err != nil {
		t.Error(err)
	}
	for _, c := range conns {
		c.SetDeadline(time.Now().Add(20 * time.Second))
		if n, _ := io.Copy(io.Discard, c); n >= 32<<20 {
			t.Error("all was sent")
		}
	}
}

package engine_test

import (
	"bytes"
	"io"
	"net"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tprelay/tprelay/engine"
)

func TestBothWaysAtOnce(t *testing.T) {
	onEveryPath(t, func(t *testing.T, o engine.Options) {
		r := newRig(t, o)
		client, server := r.pair()
		up, down := noise(20<<20), noise(17<<20+1)
		sentUp, sentDown := sendAll(client, up, true), sendAll(server, down, true)
		gotDown := make(chan struct{})
		go func() {
			defer close(gotDown)
			expect(t, "client", client, down)
		}()
		expect(t, "server", server, up)
		<-gotDown
		if err := <-sentUp; err != nil {
			t.Error(err)
		}
		if err := <-sentDown; err != nil {
			t.Error(err)
		}
		r.ended(engine.ReasonEOF, 1)
		s := r.Stats()
		if n := s.UpstreamSplice + s.UpstreamBuffer; n != uint64(len(up)) {
			t.Errorf("%d bytes counted upstream, %d sent", n, len(up))
		}
		if n := s.DownstreamSplice + s.DownstreamBuffer; n != uint64(len(down)) {
			t.Errorf("%d bytes counted downstream, %d sent", n, len(down))
		}
	})
}

// TestTinySegmentsFillPipesBySlots: a pipe counts fragments, not bytes, so that
// segments of 536 bytes fill one page of pipe at once, and 16 slots at 8 KiB
// (sozu-proxy/sozu PR 1323).
func TestTinySegmentsFillPipesBySlots(t *testing.T) {
	onEveryPath(t, func(t *testing.T, o engine.Options) {
		r := newRig(t, o)
		small := net.Dialer{Timeout: patience, Control: func(_, _ string, raw syscall.RawConn) error {
			return raw.Control(func(fd uintptr) { unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_MAXSEG, 536) })
		}}
		c, err := small.Dial("tcp", r.address())
		if err != nil {
			t.Fatal(err)
		}
		client, server := r.keep(c), r.accept()
		data := noise(16 << 20)
		sentUp, sentDown := sendAll(client, data, true), sendAll(server, data, true)
		go func() { io.Copy(io.Discard, client) }()
		expect(t, "server", server, data)
		if err := <-sentUp; err != nil {
			t.Error(err)
		}
		if err := <-sentDown; err != nil {
			t.Error(err)
		}
	})
}

// TestOneByteSegmentsDoNotHang sends single bytes without waiting, which fill a
// pipe's slots with a byte each, while the receiver reads nothing at first.
func TestOneByteSegmentsDoNotHang(t *testing.T) {
	onEveryPath(t, func(t *testing.T, o engine.Options) {
		r := newRig(t, o)
		client, server := r.pair()
		data := noise(20_000)
		sent := make(chan error, 1)
		go func() {
			for i := range data {
				if _, err := client.Write(data[i : i+1]); err != nil {
					sent <- err
					return
				}
			}
			sent <- client.CloseWrite()
		}()
		if err := <-sent; err != nil {
			t.Fatal(err)
		}
		expect(t, "server", server, data)
	})
}

// TestUrgentDataStaysInTheStream: splice(2) sticks at urgent data, and reads end
// early there. Nothing may be lost, and nothing may hang, in either direction, and
// also where the urgent byte is read before the loop was told of it.
func TestUrgentDataStaysInTheStream(t *testing.T) {
	onEveryPath(t, func(t *testing.T, o engine.Options) {
		r := newRig(t, o)
		for _, piece := range []int{50_000, 7} {
			data := noise(60 * piece)
			client, server := r.pair()
			up, down := sendUrgent(client, data, piece), sendUrgent(server, data, piece)
			expect(t, "server", server, data)
			expect(t, "client", client, data)
			for _, sent := range []chan error{up, down} {
				if err := <-sent; err != nil {
					t.Fatal(err)
				}
			}
		}
	})
}

// sendUrgent sends data, of each piece the last byte as urgent data, and a FIN.
func sendUrgent(c *net.TCPConn, data []byte, piece int) (sent chan error) {
	sent = make(chan error, 1)
	go func() {
		raw, err := c.SyscallConn()
		for rest := data; err == nil && len(rest) > 0; rest = rest[piece:] {
			if _, err = c.Write(rest[:piece-1]); err != nil {
				break
			}
			outside := raw.Write(func(fd uintptr) bool {
				_, err = unix.SendmsgN(int(fd), rest[piece-1:piece], nil, nil, unix.MSG_OOB)
				return err != unix.EAGAIN
			})
			if err == nil {
				err = outside
			}
		}
		if err == nil {
			err = c.CloseWrite()
		}
		sent <- err
	}()
	return sent
}

// TestRepliesOfEverySize goes to and fro with messages around every size at which
// the path changes.
func TestRepliesOfEverySize(t *testing.T) {
	onEveryPath(t, func(t *testing.T, o engine.Options) {
		r := newRig(t, o)
		client, server := r.pair()
		for _, n := range []int{1, 2, 535, 536, 1448, 4095, 4096, 4097, 16<<10 - 1, 16 << 10, 16<<10 + 1,
			64 << 10, 64<<10 + 1, 256 << 10, 1 << 20, 1, 70_000, 3} {
			message := noise(n)
			exchange(t, client, server, message)
			exchange(t, server, client, message)
		}
	})
}

// exchange sends message from one end and reads it at the other.
func exchange(t *testing.T, from, to *net.TCPConn, message []byte) {
	t.Helper()
	sent := sendAll(from, message, false)
	got := make([]byte, len(message))
	if _, err := io.ReadFull(to, got); err != nil {
		t.Fatalf("message of %d bytes: %v", len(message), err)
	}
	if err := <-sent; err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, message) {
		t.Fatalf("message of %d bytes was changed", len(message))
	}
}

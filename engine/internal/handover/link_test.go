package handover_test

import (
	"bytes"
	"context"
	"errors"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tprelay/tprelay/engine/internal/handover"
	"github.com/tprelay/tprelay/engine/internal/handover/handovertest"
)

// links are both ends of a link, with their connections, which the test closes.
func links(t testing.TB) (links [2]*handover.Link, conns [2]*net.UnixConn) {
	t.Helper()
	old, new, err := handovertest.Pair()
	if err != nil {
		t.Fatal(err)
	}
	conns = [2]*net.UnixConn{old, new}
	for i, conn := range conns {
		t.Cleanup(func() { conn.Close() })
		if links[i], err = handover.NewLink(conn); err != nil {
			t.Fatal(err)
		}
	}
	return links, conns
}

// FuzzFrame feeds a link any bytes: whole frames come out as they went in, nothing else
// does, and memory is not taken for what is only announced.
func FuzzFrame(f *testing.F) {
	f.Add([]byte("TPRS\x00\x00\x00\x02\x00\x00\x00\x00{}"))
	f.Add([]byte("TPRP\x00\x00\x00\x02\x00\x00\x00\x03{}abc"))
	f.Add([]byte("TPRP\x00\x00\x00\x02\x7f\xff\xff\xff{}abc"))
	f.Add([]byte("GET / HTTP/1.1\r\n\r\n"))
	f.Fuzz(func(t *testing.T, stream []byte) {
		if len(stream) > 64<<10 { // what the socket takes without a reader
			return
		}
		links, conns := links(t)
		if n, err := conns[0].Write(stream); err != nil || n != len(stream) {
			t.Fatal(n, err)
		}
		conns[0].CloseWrite()
		for rest := stream; ; {
			got, err := links[1].Receive()
			if err != nil {
				break
			}
			const header = 12
			size := header + len(got.Head) + len(got.Body)
			if size > len(rest) || string(rest[header:size]) != string(got.Head)+string(got.Body) || rest[3] != byte(got.Kind) {
				t.Fatalf("%q came out as %c %q %q", rest, got.Kind, got.Head, got.Body)
			}
			_, _ = got.Pair()
			rest = rest[size:]
		}
	})
}

// TestFrameLargerThanTheSocketTakesArrives: in many pieces, and its descriptors once.
func TestFrameLargerThanTheSocketTakesArrives(t *testing.T) {
	links, _ := links(t)
	body := bytes.Repeat([]byte("0123456789abcde\n"), 1<<16)
	sent := make(chan error, 1)
	go func() {
		sent <- links[0].Send(handover.KindPair, map[string]int{"A": 1}, []int{0, 1}, body[:5], nil, body[5:])
	}()
	f, err := links[1].Receive()
	if err := errors.Join(<-sent, err); err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if f.Kind != handover.KindPair || string(f.Head) != `{"A":1}` || !bytes.Equal(f.Body, body) || len(f.FDs) != 2 {
		t.Errorf("%c %s, %d bytes, %d descriptors", f.Kind, f.Head, len(f.Body), len(f.FDs))
	}
}

// TestWaitsEndWithTheContext: a read of what does not come, and a write to a socket that is full.
func TestWaitsEndWithTheContext(t *testing.T) {
	cause := errors.New("it took too long")
	for what, wait := range map[string]func(*handover.Link) error{
		"receive": func(k *handover.Link) error { _, err := k.Receive(); return err },
		"send":    func(k *handover.Link) error { return k.Send(handover.KindPair, nil, nil, make([]byte, 8<<20)) },
	} {
		t.Run(what, func(t *testing.T) {
			links, _ := links(t)
			ctx, cancel := context.WithCancelCause(t.Context())
			release := links[0].Within(ctx)
			failed := make(chan error, 1)
			go func() { failed <- wait(links[0]) }()
			cancel(cause)
			if err := <-failed; !errors.Is(err, cause) {
				t.Errorf("%v, want %v", err, cause)
			}
			// A link that goes on after that waits as before.
			release()
			go links[1].SendNow(handover.KindAck)
			if what == "receive" {
				if _, err := links[0].Receive(); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

// TestSendNowNeverWaits: neither for a full socket nor for a context or deadline that has passed. A
// loop calls it.
func TestSendNowNeverWaits(t *testing.T) {
	links, conns := links(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	defer links[0].Within(ctx)()
	if _, err := links[0].Receive(); !errors.Is(err, context.Canceled) { // the deadline has passed
		t.Fatal(err)
	}
	sent := 0
	for ; ; sent++ {
		if err := links[0].SendNow(handover.KindCommit); err != nil {
			if !errors.Is(err, unix.EAGAIN) {
				t.Fatal(err)
			}
			break
		}
	}
	if sent == 0 {
		t.Fatal("an empty socket takes nothing")
	}
	// What was refused was not sent, not even in part.
	conns[0].Close()
	for n := range sent {
		if _, err := links[1].Expect(handover.KindCommit); err != nil {
			t.Fatalf("commit %d of %d: %v", n, sent, err)
		}
	}
	if _, err := links[1].Receive(); !errors.Is(err, handover.ErrPeerGone) {
		t.Errorf("behind the last commit: %v", err)
	}
}

// TestEndOfTheLinkIsKnown: whichever way it ends, and wherever in a frame, both reading and writing
// say that the other side is gone. An error of this side is another one.
func TestEndOfTheLinkIsKnown(t *testing.T) {
	for what, c := range map[string]struct {
		end  func(conns [2]*net.UnixConn)
		want error
	}{
		"closed":                   {func(c [2]*net.UnixConn) { c[1].Close() }, handover.ErrPeerGone},
		"closed, words unread":     {func(c [2]*net.UnixConn) { c[0].Write([]byte("TPR")); c[1].Close() }, handover.ErrPeerGone},
		"in the header":            {func(c [2]*net.UnixConn) { c[1].Write([]byte("TPRS\x00\x00")); c[1].Close() }, handover.ErrPeerGone},
		"in the head":              {func(c [2]*net.UnixConn) { c[1].Write([]byte("TPRS\x00\x00\x00\x02\x00\x00\x00\x00{")); c[1].Close() }, handover.ErrPeerGone},
		"in the body":              {func(c [2]*net.UnixConn) { c[1].Write([]byte("TPRS\x00\x00\x00\x02\x00\x00\x00\x02{}a")); c[1].Close() }, handover.ErrPeerGone},
		"shut down by this side":   {func(c [2]*net.UnixConn) { handovertest.Shutdown(c[0], unix.SHUT_RDWR) }, handover.ErrPeerGone},
		"shut down by the other":   {func(c [2]*net.UnixConn) { handovertest.Shutdown(c[1], unix.SHUT_RDWR) }, handover.ErrPeerGone},
		"closed by this side":      {func(c [2]*net.UnixConn) { c[0].Close() }, net.ErrClosed},
		"a deadline of somebody's": {func(c [2]*net.UnixConn) { c[0].SetDeadline(time.Unix(1, 0)) }, os.ErrDeadlineExceeded},
	} {
		t.Run(what, func(t *testing.T) {
			links, conns := links(t)
			c.end(conns)
			if _, err := links[0].Receive(); !errors.Is(err, c.want) {
				t.Errorf("Receive: %v, want %v", err, c.want)
			}
			if err := links[0].Send(handover.KindSync, nil, nil); !errors.Is(err, c.want) {
				t.Errorf("Send: %v, want %v", err, c.want)
			}
			if err := links[0].SendNow(handover.KindSync); c.want != os.ErrDeadlineExceeded && !errors.Is(err, c.want) {
				t.Errorf("SendNow: %v, want %v", err, c.want)
			}
		})
	}
	if _, err := handover.NewLink(new(net.UnixConn)); err == nil {
		t.Error("a link of nothing")
	}
}

// TestLostDescriptorsAreAnError: the kernel drops descriptors that the receiver has no numbers for,
// and delivers the bytes. The frame fails, names the limit, and leaves no descriptor open.
func TestLostDescriptorsAreAnError(t *testing.T) {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	links, _ := links(t)
	if err := links[0].Send(handover.KindPair, nil, []int{0, 1}); err != nil {
		t.Fatal(err)
	}
	before := lowestFree(t)
	low := limit
	low.Cur = uint64(before) + 1 // room for one of two
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &low); err != nil {
		t.Fatal(err)
	}
	_, err := links[1].Receive()
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	if err == nil || !strings.Contains(err.Error(), "ulimit -n") {
		t.Errorf("%v", err)
	}
	if after := lowestFree(t); after != before {
		t.Errorf("descriptor %d is open", before)
	}
}

// lowestFree is the lowest number that no descriptor has.
func lowestFree(t *testing.T) int {
	t.Helper()
	fd, err := unix.Open("/", unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	unix.Close(fd)
	return fd
}

// TestWhatIsNoFrameIsRefused, and its descriptors are closed.
func TestWhatIsNoFrameIsRefused(t *testing.T) {
	for what, c := range map[string]struct {
		bytes string
		fds   int
		want  string
	}{
		"other words":          {"GET / HTTP/1.1\r\n\r\n", 0, "this is no frame"},
		"a huge head":          {"TPRP\x00\x01\x00\x01\x00\x00\x00\x00", 1, "too large"},
		"a huge body":          {"TPRP\x00\x00\x00\x02\xff\xff\xff\xff{}", 2, "too large"},
		"too many descriptors": {"TPRP\x00\x00\x00\x02\x00\x00\x00\x00{}", 3, "descriptors were lost"},
	} {
		t.Run(what, func(t *testing.T) {
			links, conns := links(t)
			var rights []byte
			if c.fds > 0 {
				rights = unix.UnixRights(make([]int, c.fds)...)
			}
			if _, _, err := conns[0].WriteMsgUnix([]byte(c.bytes), rights, nil); err != nil {
				t.Fatal(err)
			}
			before := lowestFree(t)
			if _, err := links[1].Receive(); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, want %s", err, c.want)
			}
			if after := lowestFree(t); after != before {
				t.Errorf("descriptor %d is open", before)
			}
		})
	}
}

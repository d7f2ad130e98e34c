package tokenbucket

import (
	"bytes"
	"context"
	"crypto/rand"
	"io"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/tprelay/tprelay/internal/leak"
	"github.com/tprelay/tprelay/internal/netlab/netlabtest"
)

func TestMain(m *testing.M) {
	os.Exit(netlabtest.Main(m)) // for IP_TRANSPARENT
}

func TestSixMegabitArePassedAs7500BytesPerTick(t *testing.T) {
	for rate, want := range map[uint64]int{6_000_000: 7500, 12_000_000: 15000, 8000: 1500} {
		r := Relay{Rate: rate}
		if got := r.threshold(); got != want {
			t.Errorf("%d bit/s: %d bytes, want %d", rate, got, want)
		}
	}
}

// pipe is a connection over loopback.
func pipe(t *testing.T) (one, other *net.TCPConn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	a, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close() })
	return c.(*net.TCPConn), a.(*net.TCPConn)
}

// counting remembers how much it got at once.
type counting struct {
	bytes.Buffer
	most int
}

func (c *counting) Write(b []byte) (int, error) {
	c.most = max(c.most, len(b))
	return c.Buffer.Write(b)
}

func TestNoMoreThanTheThresholdPassesAtOnce(t *testing.T) {
	leak.Check(t)
	sender, from := pipe(t)
	sent := make([]byte, 50_000)
	rand.Read(sent)
	go func() {
		sender.Write(sent)
		sender.CloseWrite()
	}()
	r, got := Relay{Rate: 6_000_000}, counting{}
	began := time.Now()
	if err := r.pass(&got, from); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got.Bytes(), sent) {
		t.Error("what came is not what was sent")
	}
	if got.most > 7500 {
		t.Errorf("%d bytes at once", got.most)
	}
	if took := time.Since(began); took < 6*tick { // the first of seven does not wait
		t.Errorf("it took %v", took)
	}
}

func TestRequestDoesNotWaitForMore(t *testing.T) {
	leak.Check(t)
	sender, from := pipe(t)
	answered, w := io.Pipe()
	r := Relay{Rate: 6_000_000}
	done := make(chan error, 1)
	go func() { done <- r.pass(w, from) }()
	for range 3 {
		if _, err := sender.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(answered, make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
	}
	sender.CloseWrite()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestContextEndsIt(t *testing.T) {
	leak.Check(t)
	ctx, stop := context.WithCancel(context.Background())
	stop()
	relay := Relay{Listen: netip.MustParseAddrPort("127.0.0.1:0"), Rate: 6_000_000}
	if err := relay.Run(ctx); err != nil {
		t.Error(err)
	}
}

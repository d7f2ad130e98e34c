package sock

import (
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// pair is a TCP connection on loopback, which is closed with the test.
func pair(t *testing.T) (client, server int) {
	t.Helper()
	client, server = openPair(t)
	t.Cleanup(func() { unix.Close(client) })
	return client, server
}

// openPair is pair whose client the test closes.
func openPair(t *testing.T) (client, server int) {
	t.Helper()
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	listener, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	check(err)
	defer unix.Close(listener)
	check(unix.Bind(listener, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}))
	check(unix.Listen(listener, 1))
	at, err := LocalAddr(listener)
	check(err)
	client, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	check(err)
	check(Connect(client, unix.AF_INET, at))
	server, _, err = Accept(listener)
	check(err)
	t.Cleanup(func() { unix.Close(server) })
	return client, server
}

// until waits for what the other end does.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("never: %s", what)
		}
	}
}

func TestBytesAreCountedUntilTheyAreRead(t *testing.T) {
	client, server := pair(t)
	if _, err := Recv(server, make([]byte, 1)); err != unix.EAGAIN {
		t.Errorf("nothing to read: %v", err)
	}
	a, b := []byte("several "), []byte("places")
	vector := make([]unix.Iovec, 2)
	vector[0].Base, vector[1].Base = &a[0], &b[0]
	vector[0].SetLen(len(a))
	vector[1].SetLen(len(b))
	if n, err := SendVector(client, vector); n != 14 || err != nil {
		t.Errorf("sent %d, %v", n, err)
	}
	if n, err := Send(client, []byte(", and more"), false); n != 10 || err != nil {
		t.Errorf("sent %d, %v", n, err)
	}
	until(t, "all bytes", func() bool { return Unread(server) == 24 })
	until(t, "the acknowledgement", func() bool { return Unsent(client) == 0 })
	if m, ok := Memory(server); !ok || m.Receive == 0 || m.Queued() < 24 || m.All() < m.Queued() {
		t.Errorf("memory: %+v, %v", m, ok)
	}
	text := make([]byte, 30)
	for _, read := range []func(int, []byte) (int, error){Peek, Recv} {
		if n, err := read(server, text); string(text[:n]) != "several places, and more" || err != nil {
			t.Errorf("read %q, %v", text[:n], err)
		}
	}
	if n := Unread(server); n != 0 {
		t.Errorf("%d bytes left", n)
	}
	var info unix.TCPInfo
	if !TCPInfo(server, &info) || info.Bytes_received != 24 {
		t.Errorf("TCP_INFO has %d bytes", info.Bytes_received)
	}
}

// TestFINIsToldFromReset: also when both have come before anything was read.
func TestFINIsToldFromReset(t *testing.T) {
	for _, c := range []struct {
		what       string
		act        func(fd int)
		fin, reset bool
	}{
		{"nothing", func(int) {}, false, false},
		{"FIN", func(fd int) { unix.Shutdown(fd, unix.SHUT_WR) }, true, false},
		{"FIN, then RST", func(fd int) { unix.Shutdown(fd, unix.SHUT_WR); Disconnect(fd) }, true, true},
		{"RST", func(fd int) { Disconnect(fd) }, false, true},
	} {
		t.Run(c.what, func(t *testing.T) {
			client, server := pair(t)
			if _, err := Send(client, []byte("last words"), false); err != nil {
				t.Fatal(err)
			}
			until(t, "the bytes", func() bool { return Unread(server) > 0 })
			c.act(client)
			if c.fin {
				until(t, "the FIN", func() bool { return FINReceived(server) })
			}
			if c.reset {
				var info unix.TCPInfo
				until(t, "the RST", func() bool { return TCPInfo(server, &info) && info.State == unix.BPF_TCP_CLOSE })
			}
			if got := FINReceived(server); got != c.fin {
				t.Errorf("FIN received: %v", got)
			}
			if err := Error(server); (err != nil) != c.reset {
				t.Errorf("error: %v", err)
			}
			if err := Error(server); err != nil {
				t.Errorf("a second time: %v", err)
			}
		})
	}
}

// TestWaysToClose: what the other end gets after bytes that it has not read.
func TestWaysToClose(t *testing.T) {
	for _, c := range []struct {
		what  string
		close func(fd int)
		want  error
	}{
		{"with a FIN", CloseWithFIN, nil},
		{"with an RST", CloseWithRST, unix.ECONNRESET},
	} {
		t.Run(c.what, func(t *testing.T) {
			client, server := openPair(t)
			err := ConnOptions{}.Apply(client) // with SO_LINGER of 0 s, as relayed connections have
			c.close(client)
			if err != nil {
				t.Fatal(err)
			}
			var n int
			until(t, "the end", func() bool { n, err = Recv(server, make([]byte, 1)); return err != unix.EAGAIN })
			if n != 0 || (err == nil) != (c.want == nil) || c.want != nil && err != c.want {
				t.Errorf("read %d, %v; want %v", n, err, c.want)
			}
		})
	}
}

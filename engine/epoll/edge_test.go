package epoll_test

import (
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tprelay/tprelay/engine/epoll"
)

func TestNewPollerIsSilent(t *testing.T) {
	silent(t, poller(t, 8))
}

func TestNewConnectionIsWritableOnce(t *testing.T) {
	p := poller(t, 8)
	near, _ := connection(t)
	check(t, p.Add(near.fd, epoll.Token{}))
	ev := until(t, p, "writable", epoll.Event.Writable)
	if ev.Readable() || ev.Ending() || ev.Broken() || ev.Hup() || ev.Urgent() || ev.Wake() {
		t.Errorf("a quiet connection has event %+v", ev)
	}
	silent(t, p)
}

func TestEventIsNotRepeated(t *testing.T) {
	p := poller(t, 8)
	near, far := connection(t)
	check(t, p.Add(near.fd, epoll.Token{}))
	settle(t, p)
	far.send("one")
	until(t, p, "readable", epoll.Event.Readable)
	silent(t, p) // "one" is still unread

	far.send("two")
	until(t, p, "readable", epoll.Event.Readable) // what is new is told, read or not
	silent(t, p)
}

func TestReadingPartOfItBringsNoEvent(t *testing.T) {
	p := poller(t, 8)
	near, far := connection(t)
	check(t, p.Add(near.fd, epoll.Token{}))
	far.send("half")
	until(t, p, "readable", epoll.Event.Readable)
	if _, err := unix.Read(near.fd, make([]byte, 2)); err != nil {
		t.Fatal(err)
	}
	silent(t, p)
}

func TestBytesBeforeAddAreTold(t *testing.T) {
	p := poller(t, 8)
	near, far := connection(t)
	far.send("early")
	fds := []unix.PollFd{{Fd: int32(near.fd), Events: unix.POLLIN}}
	if n, err := unix.Poll(fds, patience); n != 1 {
		t.Fatal("nothing came", err)
	}
	check(t, p.Add(near.fd, epoll.Token{}))
	until(t, p, "readable", epoll.Event.Readable)
}

func TestFullSocketIsWritableAgainOnceItHasRoom(t *testing.T) {
	p := poller(t, 8)
	near, far := connection(t)
	check(t, p.Add(near.fd, epoll.Token{}))
	settle(t, p)
	stuffing := near.stuff()
	settle(t, p)
	near.stuff()
	silent(t, p)
	b := make([]byte, 64<<10)
	for got := 0; got < stuffing; {
		n, err := unix.Read(far.fd, b)
		if err == unix.EAGAIN {
			_, err = unix.Poll([]unix.PollFd{{Fd: int32(far.fd), Events: unix.POLLIN}}, patience)
		}
		if err != nil && err != unix.EINTR {
			t.Fatal(err)
		}
		got += max(n, 0)
	}
	until(t, p, "writable", epoll.Event.Writable)
}

func TestListenerIsReadableWhenAConnectionWaits(t *testing.T) {
	p := poller(t, 8)
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	check(t, err)
	defer unix.Close(fd)
	check(t, unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}))
	check(t, unix.Listen(fd, 8))
	check(t, p.Add(fd, epoll.Token{Key: 3}))
	silent(t, p)
	addr, err := unix.Getsockname(fd)
	check(t, err)
	client, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	check(t, err)
	defer unix.Close(client)
	check(t, unix.Connect(client, addr))
	if ev := until(t, p, "readable", epoll.Event.Readable); ev.Token().Key != 3 {
		t.Errorf("event %+v", ev)
	}
}

func TestFINIsEndingButNotHup(t *testing.T) {
	p := poller(t, 8)
	near, far := connection(t)
	check(t, p.Add(near.fd, epoll.Token{}))
	far.send("last words")
	check(t, unix.Shutdown(far.fd, unix.SHUT_WR))
	ev := until(t, p, "ending", epoll.Event.Ending)
	if !ev.FIN() || !ev.Readable() || ev.Hup() || ev.Broken() {
		t.Errorf("after a FIN: %+v", ev)
	}
	b := make([]byte, 100)
	if n, err := unix.Read(near.fd, b); err != nil || string(b[:n]) != "last words" {
		t.Errorf("the bytes before the FIN: %q, %v", b[:max(n, 0)], err)
	}
}

func TestFINBothWaysIsHup(t *testing.T) {
	p := poller(t, 8)
	near, far := connection(t)
	check(t, p.Add(near.fd, epoll.Token{}))
	check(t, unix.Shutdown(near.fd, unix.SHUT_WR))
	check(t, unix.Shutdown(far.fd, unix.SHUT_WR))
	ev := until(t, p, "hup", epoll.Event.Hup)
	if ev.FIN() || !ev.Ending() || !ev.Readable() || !ev.Writable() || ev.Broken() {
		t.Errorf("after both FINs: %+v", ev)
	}
}

func TestRSTIsBroken(t *testing.T) {
	p := poller(t, 8)
	near, far := connection(t)
	check(t, p.Add(near.fd, epoll.Token{}))
	settle(t, p)
	far.reset()
	ev := until(t, p, "broken", epoll.Event.Broken)
	if ev.FIN() || !ev.Hup() || !ev.Ending() || !ev.Readable() || !ev.Writable() {
		t.Errorf("after an RST: %+v", ev)
	}
}

func TestRefusedConnectIsBroken(t *testing.T) {
	p := poller(t, 8)
	closed, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	check(t, err)
	defer unix.Close(closed) // bound and not listening: nobody else gets the port
	check(t, unix.Bind(closed, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}))
	addr, err := unix.Getsockname(closed)
	check(t, err)
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	check(t, err)
	defer unix.Close(fd)
	if err := unix.Connect(fd, addr); err != unix.EINPROGRESS {
		t.Fatalf("connect: %v", err)
	}
	check(t, p.Add(fd, epoll.Token{}))
	until(t, p, "broken", func(ev epoll.Event) bool { return ev.Broken() && ev.Writable() })
	if e, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR); err != nil || unix.Errno(e) != unix.ECONNREFUSED {
		t.Errorf("SO_ERROR is %v, %v", unix.Errno(e), err)
	}
}

func TestUrgentDataIsTold(t *testing.T) {
	p := poller(t, 8)
	near, far := connection(t)
	check(t, unix.SetsockoptInt(near.fd, unix.SOL_SOCKET, unix.SO_OOBINLINE, 1))
	check(t, p.Add(near.fd, epoll.Token{}))
	far.send("calm")
	if ev := until(t, p, "readable", epoll.Event.Readable); ev.Urgent() {
		t.Errorf("calm bytes came as %+v", ev)
	}
	check(t, unix.Sendto(far.fd, []byte("!"), unix.MSG_OOB, nil))
	until(t, p, "urgent", epoll.Event.Urgent)
	silent(t, p)
}

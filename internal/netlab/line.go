package netlab

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// A line is a link with a delay, for kernels without netem: a TAP device at
// either end, and this process as the cable between them, which passes each
// frame on when its time has come. Like a cable it keeps their order and drops
// nothing; rate and queue are the token buckets' of the devices, before it.
//
//	h1 eth0 [tbf] -> TAP ---> read, wait, write ---> TAP -> left h2
//	              <-         <--- and back ---           <- [tbf]
//
// Super-packets of TCP pass whole where the token bucket lets them, from some
// 525 Mbit/s on (Link.BurstBytes); below, each packet of 1,514 bytes is a read and
// a write.
type line struct {
	ways [2]*way
	done sync.WaitGroup // the goroutines
}

// newLine connects two hosts by a line, in place of a veth pair.
func newLine(a *Host, aName string, b *Host, bName string, delay time.Duration) (*line, error) {
	var fds []int
	fail := func(err error) (*line, error) {
		for _, fd := range fds {
			unix.Close(fd)
		}
		return nil, err
	}
	for _, end := range []struct {
		host  *Host
		iface string
	}{{a, aName}, {b, bName}} {
		err := end.host.Do(func() error {
			fd, err := openTAP(end.iface)
			if err != nil {
				return err
			}
			fds = append(fds, fd)
			link, err := netlink.LinkByName(end.iface)
			if err != nil {
				return err
			}
			return netlink.LinkSetTxQLen(link, tapQueue)
		})
		if err != nil {
			return fail(fmt.Errorf("delay line %s %s - %s %s: %w", a.Name, aName, b.Name, bName, err))
		}
	}
	for range 2 {
		fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
		if err != nil {
			return fail(fmt.Errorf("delay line: eventfd: %w", err))
		}
		fds = append(fds, fd)
	}
	l := &line{ways: [2]*way{{from: fds[0], to: fds[1], wake: fds[2]}, {from: fds[1], to: fds[0], wake: fds[3]}}}
	for _, w := range l.ways {
		w.delay.Store(int64(delay))
		l.done.Go(w.run)
	}
	a.ways[aName], b.ways[bName] = l.ways[0], l.ways[1]
	return l, nil
}

// close ends the line, and with it its two devices. What is on its way is lost.
func (l *line) close() error {
	for _, w := range l.ways {
		w.stop.Store(true)
		w.poke()
	}
	l.done.Wait()
	var errs []error
	for _, w := range l.ways {
		errs = append(errs, unix.Close(w.from), unix.Close(w.wake))
	}
	return errors.Join(errs...)
}

// A way is one direction of a line. It has a goroutine that waits for frames, for
// the time of the oldest, and for a poke: in the kernel, whose timers are more
// exact than the milliseconds of Go's poller.
type way struct {
	from, to int // TAP devices
	wake     int // an eventfd, to poke the goroutine

	delay   atomic.Int64 // in ns
	stop    atomic.Bool
	passed  atomic.Uint64
	dropped atomic.Uint64
	waiting atomic.Int64

	backlog backlog // the goroutine's own
}

// setDelay holds for frames that are on their way, too.
func (w *way) setDelay(d time.Duration) {
	w.delay.Store(int64(d))
	w.poke()
}

func (w *way) poke() {
	one := [8]byte{1, 1} // in any byte order something that is not 0
	_, _ = unix.Write(w.wake, one[:])
}

// run ends when it is told to, or when its device is gone.
func (w *way) run() {
	begin := time.Now()
	poll := []unix.PollFd{{Fd: int32(w.from), Events: unix.POLLIN}, {Fd: int32(w.wake), Events: unix.POLLIN}}
	var drain [8]byte
	for readable := true; !w.stop.Load(); {
		if readable {
			var err error
			if readable, err = w.read(begin); err != nil {
				return
			}
		}
		wait := w.write(begin)
		var timeout unix.Timespec
		var limit *unix.Timespec // none: wait for ever
		if readable {
			wait = 0
		}
		if wait >= 0 {
			timeout = unix.NsecToTimespec(int64(wait))
			limit = &timeout
		}
		if _, err := unix.Ppoll(poll, limit, nil); err != nil {
			continue // EINTR; what can be read then is read the next time
		}
		readable = readable || poll[0].Revents != 0
		if poll[1].Revents != 0 {
			_, _ = unix.Read(w.wake, drain[:])
		}
	}
}

// read takes what the device has, but not so much that frames whose time has
// come would wait for it: more reports whether there may be more.
func (w *way) read(begin time.Time) (more bool, err error) {
	const most = 64
	var trash []byte
	for range most {
		into := w.backlog.room()
		full := into == nil
		if full {
			if trash == nil {
				trash = make([]byte, frameRoom)
			}
			into = trash
		}
		n, err := unix.Read(w.from, into)
		switch {
		case err == unix.EAGAIN:
			return false, nil
		case err == unix.EINTR:
			continue
		case err != nil:
			return false, err
		case full:
			w.dropped.Add(1)
			continue
		}
		w.backlog.push(n, time.Since(begin))
		w.waiting.Add(1)
	}
	return true, nil
}

// write passes on the frames whose time has come, and returns how long the next
// one still has to wait, or -1 if there is none.
func (w *way) write(begin time.Time) time.Duration {
	for {
		frame, came := w.backlog.first()
		if frame == nil {
			return -1
		}
		if wait := came + time.Duration(w.delay.Load()) - time.Since(begin); wait > 0 {
			return wait
		}
		// An error says that the device is down: nobody is there to take it.
		if _, err := unix.Write(w.to, frame); err != nil {
			w.dropped.Add(1)
		} else {
			w.passed.Add(1)
		}
		w.backlog.pop()
		w.waiting.Add(-1)
	}
}

// LineStats is what a delay line did with frames that left through an interface.
// With TCP one frame can be a super-packet of up to 64 KiB.
type LineStats struct {
	Passed  uint64 // frames that arrived
	Dropped uint64 // for which the line had no room (256 MiB), or whose receiver was down
	Waiting int64  // frames that are on their way right now
}

// LineStats returns the counters of the delay line behind an interface of the
// host, and whether there is one: the link was made with a Delay, and the kernel
// has no netem.
//
// A line is this process carrying frames from one TAP device (/dev/net/tun) to
// another. It is never early, and late by what its goroutines wait for a CPU:
// one-byte round trips over a line of 20 ms took 40.5 ms, and TCP's under 500
// Mbit/s over two lines of 10 ms 40.1 to 41.6 ms. Its CPU time is this process':
// of one CPU (2 of a virtual machine) bulk in one direction took 12 % per line at
// 1 Gbit/s, 17 % at 500 Mbit/s, where packets are small, and 6 % at 100 Mbit/s.
// The sender's kernel may be the limit on long and fast paths: hosts copy the
// machine's net.ipv4.tcp_wmem, whose usual 4 MiB carry 2 to 3 MB per round trip.
func (h *Host) LineStats(iface string) (stats LineStats, ok bool) {
	w, ok := h.ways[iface]
	if !ok {
		return LineStats{}, false
	}
	return LineStats{Passed: w.passed.Load(), Dropped: w.dropped.Load(), Waiting: w.waiting.Load()}, true
}

package engine

import (
	"golang.org/x/sys/unix"

	"github.com/tprelay/tprelay/engine/epoll"
	"github.com/tprelay/tprelay/internal/sock"
	"github.com/tprelay/tprelay/tproxy"
)

const (
	maxListeners = 64
	// acceptBatch is how many connections a listener gives in one turn.
	acceptBatch = 64
	// listenerKey is the first token key of listeners; pairs have those below.
	listenerKey = 1 << 30
)

// listener is a loop's own socket for one of the configured addresses.
type listener struct {
	fd    int
	index int // in Options.Listeners
	// multipath: what it accepts did not inherit all of its options.
	multipath bool
	ready     bool
	waiting   bool // until the next tick, or longer: descriptors, memory or pairs ran out
}

func listenerToken(i int) epoll.Token { return epoll.Token{Key: listenerKey + int32(i)} }

func tokenListener(t epoll.Token) (int, bool) {
	return int(t.Key - listenerKey), t.Key >= listenerKey
}

func (l *loop) listenerReady() bool {
	for i := range l.listeners {
		if l.listeners[i].ready {
			return true
		}
	}
	return false
}

// listenerWaiting: every listener that is ready waits for a tick.
func (l *loop) listenerWaiting() bool {
	for i := range l.listeners {
		if l.listeners[i].ready && !l.listeners[i].waiting {
			return false
		}
	}
	return true
}

// accept takes connections from every listener that may have some.
func (l *loop) accept() {
	for i := range l.listeners {
		ln := &l.listeners[i]
		if ln.ready && !ln.waiting {
			l.acceptFrom(ln, acceptBatch)
		}
	}
}

// acceptFrom takes up to most connections. Its events are edge-triggered: as long
// as the kernel has not said EAGAIN, the listener stays ready.
func (l *loop) acceptFrom(ln *listener, most int) {
	for range most {
		if !l.engine.admit() {
			l.hold(ln)
			return
		}
		fd, client, err := tproxy.Accept(ln.fd)
		if err == nil {
			l.count.accepted++
			if ln.multipath {
				// An error is that of a connection that has failed meanwhile: its event tells.
				_, _ = sock.UseConn(fd, l.engine.options.conn())
			}
			l.open(fd, client, ln.index)
			if ln.waiting {
				return
			}
			continue
		}
		l.engine.leave()
		switch err {
		case unix.EAGAIN:
			ln.ready = false
			return
		case unix.EMFILE, unix.ENFILE, unix.ENOBUFS, unix.ENOMEM:
			l.count.acceptErrors++
			l.hold(ln)
			return
		case unix.EINTR, unix.ECONNABORTED:
		case unix.EBADF, unix.EINVAL, unix.ENOTSOCK, unix.EFAULT:
			l.count.acceptErrors++
			ln.ready = false // it will not get better
			l.engine.options.Logger.Error("listener failed", "listen", l.engine.addrs[ln.index], "err", err)
			return
		default:
			// Errors of the connection that was to be accepted, not of the
			// listener: accept(2) names EPERM, EPROTO, ENETDOWN and more.
			l.count.acceptErrors++
		}
	}
}

// hold lets a listener wait until resumeListeners. The kernel's backlog keeps who comes.
func (l *loop) hold(ln *listener) {
	if !ln.waiting {
		ln.waiting = true
		l.count.acceptPauses++
	}
}

// holdListeners lets all of them wait.
func (l *loop) holdListeners() {
	for i := range l.listeners {
		l.hold(&l.listeners[i])
	}
}

// resumeListeners lets them go on, unless there are pairs that need a descriptor first:
// each that was accepted meanwhile would take another one.
func (l *loop) resumeListeners() {
	for i := range l.listeners {
		l.listeners[i].waiting = l.fdWaiters > 0 || l.holding
	}
}

// closeListeners takes those who wait in the backlogs now, and closes them: who comes
// meanwhile would have no end.
func (l *loop) closeListeners() {
	for i := range l.listeners {
		ln := &l.listeners[i]
		if !ln.waiting && l.tcpInfo(ln.fd) {
			l.acceptFrom(ln, int(l.tcp.Unacked)) // of a listener: how many can be accepted
		}
	}
	l.discardListeners()
}

// discardListeners closes the listeners. They may have duplicates in another process, so
// closing alone would not take them off the poller.
func (l *loop) discardListeners() {
	for i := range l.listeners {
		l.poller.Remove(l.listeners[i].fd)
		unix.Close(l.listeners[i].fd)
	}
	l.listeners = nil
}

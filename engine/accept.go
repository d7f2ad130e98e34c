package engine

import (
	"slices"

	"golang.org/x/sys/unix"

	"github.com/tprelay/tprelay/engine/epoll"
	"github.com/tprelay/tprelay/internal/sock"
	"github.com/tprelay/tprelay/tproxy"
)

const (
	maxListeners = 64
	// acceptBatch is how many connections are accepted from a listener in one turn.
	acceptBatch = 64
	// listenerKey is the first token key of listeners. Keys below it are those of pairs.
	listenerKey = 1 << 30
)

// listener is a loop's own socket for one of the configured addresses.
type listener struct {
	fd        int
	index     int  // in Options.Listeners
	multipath bool // its connections do not inherit all of its options
	ready     bool // connections may wait in the backlog
	waiting   bool // until resumeListeners, because descriptors, memory or pairs ran out
}

func listenerToken(i int) epoll.Token { return epoll.Token{Key: listenerKey + int32(i)} }

func tokenListener(t epoll.Token) (int, bool) {
	return int(t.Key - listenerKey), t.Key >= listenerKey
}

// listenerReady reports whether connections may wait in the backlog of any listener.
func (l *loop) listenerReady() bool {
	return slices.ContainsFunc(l.listeners, func(ln listener) bool { return ln.ready })
}

// mayAccept reports whether accept has something to do.
func (l *loop) mayAccept() bool { return slices.ContainsFunc(l.listeners, listener.mayAccept) }

// mayAccept reports whether ln is ready, and does not wait for a tick.
func (ln listener) mayAccept() bool { return ln.ready && !ln.waiting }

// accept takes connections from every listener that is ready.
func (l *loop) accept() {
	for i := range l.listeners {
		ln := &l.listeners[i]
		if ln.mayAccept() {
			l.acceptFrom(ln, acceptBatch)
		}
	}
}

// acceptFrom takes up to most connections from ln. Events are edge-triggered, so the listener stays
// ready until the kernel says EAGAIN.
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
				// An error means that the connection has failed meanwhile. An event will report it.
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
			ln.ready = false // the socket cannot recover
			l.engine.options.Logger.Error("listener failed", "listen", l.engine.addrs[ln.index], "err", err)
			return
		default:
			// The error is that of the connection, not of the listener: accept(2) lists
			// EPERM, EPROTO, ENETDOWN and more.
			l.count.acceptErrors++
		}
	}
}

// hold lets a listener wait until resumeListeners. New connections stay in the kernel's backlog.
func (l *loop) hold(ln *listener) {
	if !ln.waiting {
		ln.waiting = true
		l.count.acceptPauses++
	}
}

// holdListeners lets all listeners wait.
func (l *loop) holdListeners() {
	for i := range l.listeners {
		l.hold(&l.listeners[i])
	}
}

// resumeListeners lets all listeners go on, unless pairs still need a descriptor: each connection
// that was accepted meanwhile would take one more.
func (l *loop) resumeListeners() {
	for i := range l.listeners {
		l.listeners[i].waiting = l.fdWaiters > 0 || l.holding
	}
}

// closeListeners accepts the connections that are in the backlogs now, and closes the listeners. It
// does not wait for an empty backlog, because a busy listener never has one.
func (l *loop) closeListeners() {
	for i := range l.listeners {
		ln := &l.listeners[i]
		if !ln.waiting && l.tcpInfo(ln.fd) {
			l.acceptFrom(ln, int(l.tcp.Unacked)) // of a listener: the length of its accept queue
		}
	}
	l.discardListeners()
}

// discardListeners closes the listeners. It removes them from the poller first: they may have
// duplicates in another process, and then closing does not.
func (l *loop) discardListeners() {
	for i := range l.listeners {
		l.poller.Remove(l.listeners[i].fd)
		unix.Close(l.listeners[i].fd)
	}
	l.listeners = nil
}

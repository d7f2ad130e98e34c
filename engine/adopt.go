package engine

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/tprelay/tprelay/engine/internal/pump"
	"github.com/tprelay/tprelay/internal/sock"
	"github.com/tprelay/tprelay/tproxy"
)

// Adoption says what Adopt does with a connection.
type Adoption struct {
	// Destination is where the connection goes, unless an interceptor chooses another one. It must
	// be an address and a port.
	Destination netip.AddrPort
	// Prefix has bytes that the caller has read from the connection already. They are sent to the
	// destination first, and handlers see them first. Adopt copies them, and they count towards
	// MemoryLimit. Default: none.
	Prefix []byte
}

// Adopt relays a connection that the caller has accepted: a *net.TCPConn, or an *os.File of a TCP
// socket, also of Multipath TCP. MaxPairs and MaxPairsPerSource do not apply: the program that
// accepts decides how many.
//
// The engine works on a duplicate of the descriptor. On success the caller closes conn, at once or
// later, and does nothing else with it: it must not read, write, shut down or set options. On
// error, the socket is as it was.
//
// Adopt does not wait, and may be called before Run and in a callback. The error is ErrDraining or
// ErrClosed when the engine takes no more connections, and ErrMemory when MemoryLimit leaves no
// room for the prefix.
func (e *Engine) Adopt(conn syscall.Conn, a Adoption) error {
	if err := e.adopt(conn, a); err != nil {
		return fmt.Errorf("adopt: %w", err)
	}
	return nil
}

func (e *Engine) adopt(conn syscall.Conn, a Adoption) error {
	if isNil(conn) {
		return errors.New("the connection is nil; pass one that Accept returned without an error")
	}
	if !a.Destination.IsValid() || a.Destination.Port() == 0 {
		return fmt.Errorf("destination %v is not an address and port", a.Destination)
	}
	destination, err := sock.NumericZone(a.Destination)
	if err != nil {
		return fmt.Errorf("destination %v: %w", a.Destination, err)
	}
	a.Destination = destination
	if err := e.takes(); err != nil {
		return err
	}
	fd, err := duplicate(conn)
	if err != nil {
		return err
	}
	client, err := sock.PeerAddr(fd)
	switch {
	case err != nil:
		err = fmt.Errorf("getpeername: %w", err)
	case !client.IsValid():
		err = errors.New("not a TCP connection")
	default:
		err = e.assign(fd, client, a)
	}
	if err != nil {
		unix.Close(fd)
	}
	return err
}

// assign gives fd to the next loop in turn.
func (e *Engine) assign(fd int, client netip.AddrPort, a Adoption) error {
	size := int64(len(a.Prefix))
	if e.memory.Add(size) > e.options.MemoryLimit && size > 0 {
		e.memory.Add(-size)
		return fmt.Errorf("a prefix of %d bytes: %w", size, ErrMemory)
	}
	undo, err := sock.UseConn(fd, e.options.conn())
	if err != nil {
		e.memory.Add(-size)
		return err
	}
	prefix := slices.Clone(a.Prefix)
	if !e.postNext(func(l *loop) { l.adopt(fd, client, prefix, a.Destination) }) {
		e.memory.Add(-size)
		undo()
		return ErrClosed
	}
	return nil
}

// postNext counts a pair in, and leaves begin, which begins it, for the next loop in turn. False:
// the loop has ended, and begin will not run.
func (e *Engine) postNext(begin func(*loop)) bool {
	e.active.Add(1)
	ok := e.loops[e.next.Add(1)%uint64(len(e.loops))].mailbox.post(begin)
	if !ok {
		e.leave()
	}
	return ok
}

// takes returns nil if the engine takes connections.
func (e *Engine) takes() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	switch {
	case e.closed:
		return ErrClosed
	case e.draining.Load():
		return ErrDraining
	}
	return nil
}

// duplicate opens a descriptor of the engine's own for conn's socket. That of an *os.File or
// net.Conn is closed when the value is garbage-collected, and its number may then belong to another
// file.
func duplicate(conn syscall.Conn) (fd int, err error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return -1, err
	}
	closed := raw.Control(func(n uintptr) { fd, err = unix.FcntlInt(n, unix.F_DUPFD_CLOEXEC, 0) })
	if err = errors.Join(closed, err); err != nil {
		return -1, fmt.Errorf("duplicate the socket: %w", err)
	}
	return fd, nil
}

// adopt begins a pair with a connection that the embedder accepted.
func (l *loop) adopt(fd int, client netip.AddrPort, prefix []byte, destination netip.AddrPort) {
	defer func() {
		l.env.Budget.Settle()
		l.engine.memory.Add(-int64(len(prefix))) // Adopt's charge; the loop has charged what is kept
	}()
	l.count.adopted++
	p := l.begin(fd, client)
	p.shared = true
	p.setDestination(destination)
	if l.over {
		l.end(p, ReasonDrained, nil)
		return
	}
	p.level = l.engine.options.Spoof.First(tproxy.Forward)
	r := p.ref()
	l.route(p, destination)
	switch {
	case l.find(r) == nil || len(prefix) == 0:
	case p.dir[upstream].Is(pump.Handled):
		r := p.dir[upstream].Show(&l.env, l.ends(p, upstream), prefix)
		l.act(p, upstream, &r)
	default:
		p.dir[upstream].Keep(&l.env, prefix)
	}
}

// Package handovertest stands between two engines while one hands over to the other.
package handovertest

import (
	"encoding/binary"
	"errors"
	"net"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/tprelay/tprelay/engine/internal/handover"
)

// Pair is a pair of connected sockets, as two processes would have them. The caller closes both.
func Pair() (old, new *net.UnixConn, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, err
	}
	old, errOld := connOf(fds[0])
	new, errNew := connOf(fds[1])
	return old, new, errors.Join(errOld, errNew)
}

func connOf(fd int) (*net.UnixConn, error) {
	file := os.NewFile(uintptr(fd), "link")
	defer file.Close()
	conn, err := net.FileConn(file)
	if err != nil {
		return nil, err
	}
	return conn.(*net.UnixConn), nil
}

// Shutdown is shutdown(2) of a connection.
func Shutdown(conn *net.UnixConn, how int) {
	if raw, err := conn.SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) { _ = unix.Shutdown(int(fd), how) })
	}
}

// Way is the way that a frame goes.
type Way int

// The ways of frames.
const (
	Down Way = 0 // from the old engine to the new one
	Up   Way = 1
)

// Frame is a frame on its way.
type Frame struct {
	Kind  handover.Kind
	Bytes []byte
	FDs   []int
	Parts []int // so many bytes of it end in the middle of its header, its head and its body
}

// Whole is what a fate returns to have a frame carried on whole.
const Whole = -1

// Fate says after how many bytes of a frame the link is cut, or Whole. Each way numbers its frames
// from 0. Fate may change the frame.
type Fate func(way Way, number int, f *Frame) int

// Middle carries frames between two engines, notes them, and can stop anywhere.
type Middle struct {
	Old *net.UnixConn // for HandOver; Close closes it
	New *net.UnixConn // for TakeOver; its user closes it

	inside [2]*net.UnixConn
	fate   Fate
	wg     sync.WaitGroup

	mu   sync.Mutex
	cut  bool
	seen [2][]Frame
}

// NewMiddle carries frames until an end is closed, or fate, if it is not nil, says otherwise.
func NewMiddle(fate Fate) (m *Middle, err error) {
	m = &Middle{fate: fate}
	if m.Old, m.inside[Down], err = Pair(); err != nil {
		return nil, err
	}
	if m.inside[Up], m.New, err = Pair(); err != nil {
		return nil, err
	}
	for way := range m.inside {
		m.wg.Go(func() { m.carry(Way(way)) })
	}
	return m, nil
}

// carry carries frames one way, until an end is closed or the link is cut.
func (m *Middle) carry(way Way) {
	defer m.Shutdown()
	link, err := handover.NewLink(m.inside[way])
	if err != nil {
		return
	}
	for i := 0; ; i++ {
		received, err := link.Receive()
		if err != nil {
			return
		}
		f := frameOf(received)
		m.mu.Lock()
		m.seen[way] = append(m.seen[way], Frame{Kind: f.Kind, Bytes: f.Bytes, Parts: f.Parts})
		m.mu.Unlock()
		n := Whole
		if m.fate != nil {
			n = m.fate(way, i, &f)
		}
		if n >= 0 && n < len(f.Bytes) {
			m.mu.Lock()
			m.cut = true
			m.mu.Unlock()
			f.Bytes = f.Bytes[:n]
		}
		err = write(m.inside[1-way], f)
		received.Close()
		if n != Whole || err != nil {
			return
		}
	}
}

// frameOf encodes a frame once more.
func frameOf(r handover.Frame) Frame {
	b := append([]byte("TPR"), byte(r.Kind))
	b = binary.BigEndian.AppendUint32(b, uint32(len(r.Head)))
	b = binary.BigEndian.AppendUint32(b, uint32(len(r.Body)))
	parts := []int{len(b) / 2, len(b) + len(r.Head)/2}
	b = append(append(b, r.Head...), r.Body...)
	if len(r.Body) > 0 {
		parts = append(parts, len(b)-(len(r.Body)+1)/2)
	}
	return Frame{r.Kind, b, r.FDs, parts}
}

// write writes what is left of a frame.
func write(to *net.UnixConn, f Frame) error {
	var rights []byte
	if len(f.FDs) > 0 {
		rights = unix.UnixRights(f.FDs...)
	}
	for b := f.Bytes; len(b) > 0; rights = nil {
		n, _, err := to.WriteMsgUnix(b, rights, nil)
		if err != nil {
			return err
		}
		b = b[n:]
	}
	return nil
}

// Shutdown ends the link, but leaves in it what nobody has read.
func (m *Middle) Shutdown() {
	for _, conn := range m.inside {
		Shutdown(conn, unix.SHUT_RDWR)
	}
}

// Close ends the link, if it has not ended yet, and closes all of it but New.
func (m *Middle) Close() {
	m.Shutdown()
	m.wg.Wait()
	for _, conn := range append(m.inside[:], m.Old) {
		conn.Close()
	}
}

// Cut reports whether a frame was not carried on whole.
func (m *Middle) Cut() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.cut
}

// Seen are the frames that came one way, without their descriptors.
func (m *Middle) Seen(way Way) []Frame {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.seen[way]
}

// Place is somewhere on the link: so many bytes into the frame with that number.
type Place struct {
	Way           Way
	Frame, Offset int
}

// Places are all places at which the conversation that was seen can be cut, both ways: before each
// frame, in the middle of each of its parts, and at the end.
func (m *Middle) Places() (places []Place) {
	for _, way := range []Way{Down, Up} {
		frames := m.Seen(way)
		for i, f := range frames {
			for _, n := range append([]int{0}, f.Parts...) {
				places = append(places, Place{way, i, n})
			}
		}
		places = append(places, Place{way, len(frames) - 1, 1 << 30})
	}
	return places
}

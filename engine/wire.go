package engine

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tprelay/tprelay/tproxy"
)

// What two engines say to each other while one hands over to the other (see HandOver), on a
// stream socket of the Unix domain:
//
//	old                                              new
//	hello, and each listening socket  ------------>
//	                                  <------------  ready: its loops run, room for so many pairs
//	some pairs, sync                  ------------>  holds them
//	                                  <------------  ack: it has all of them
//	commit                            ------------>  serves them
//	... until none is left
//	done                              ------------>  accepts
//
// A pair is transferred in two phases, so that at no time both engines serve it:
//
//	old engine               link              new engine
//
//	 serving
//	    | freeze
//	    v        --- pairs, sync --->
//	 frozen                                 held: descriptors open, on no epoll, no byte moved
//	    |        <------ ack --------
//	    | commit
//	    v        ----- commit ------>
//	 gone                                   serving
//
// Invariants:
//
//   - frozen -> gone: the old engine has an acknowledgement of the whole batch, and sendmsg took
//     the commit. A stream socket takes a message of this size whole or not at all, and what it
//     took the new engine can read even if the link is shut down afterwards. The old engine
//     closes its descriptors and never touches the pair again.
//   - frozen -> serving (thaw): in every other case. The new engine cannot start the pair, because
//     no commit was sent and none will be.
//   - held -> serving: the new engine has read the commit.
//   - held -> closed: the link came to an end before that. The new engine only closes its
//     descriptors. If the old one is gone as well, this is the last reference to the sockets,
//     and the kernel resets both connections: see [sock.ConnOptions] on SO_LINGER.
//
// So a pair has one owner, or none and is reset at both ends. Done is the commit of the
// listeners: until the new engine has read it, or the link has come to its end because the old
// process is gone, only the old engine accepts.
//
// A frame is a header of 12 bytes, a head in JSON and a body of raw bytes. Descriptors travel
// with the header. The head is JSON because the two engines may be of different versions: an
// engine ignores the fields that it does not know.

// wireVersion changes when an older engine could not understand, or would lose something.
const wireVersion = 2

type frameKind byte

const (
	frameHello    frameKind = 'H'
	frameListener frameKind = 'L'
	frameReady    frameKind = 'R'
	framePair     frameKind = 'P'
	frameSync     frameKind = 'S'
	frameAck      frameKind = 'A'
	frameCommit   frameKind = 'C'
	frameDone     frameKind = 'D'
)

const (
	frameHeader = 12
	maxHead     = 64 << 10
	maxBody     = 1 << 31
	maxFDs      = 2
)

type helloState struct {
	Version    int
	Generation uint64 // of the one who speaks: how many took over before it
	Sockets    int    // listener frames that follow
	Pairs      int    // that will come, more or less
}

type readyState struct {
	Room int // pairs that there are descriptors for
}

type listenerState struct {
	Address netip.AddrPort
	Mode    tproxy.Mode
}

// pairState is a pair without its descriptors and its pending bytes. Directions are
// upstream, downstream; so is the order of pending bytes in the body.
type pairState struct {
	ID          uint64
	Duration    time.Duration // that it has lived, by the monotonic clock
	Silent      time.Duration // since its last activity
	Client      netip.AddrPort
	Destination netip.AddrPort
	Connected   netip.AddrPort // where it was sent instead, if it was
	Listener    listenerState  `json:",omitzero"` // adopted pairs have none
	Step        tproxy.SpoofLevel
	State       string // waiting, connecting, open
	Opened      bool
	Cause       uint8 // errno, if a flow has failed
	Directions  [2]directionState
}

// directionState is one direction; Broken is about its source.
type directionState struct {
	Bytes, Messages                        uint64
	Pending                                int
	Pauses                                 uint32
	PausedFor                              time.Duration
	EOF, FinSent, Ending, Urgent, Buffered bool
	FINCame                                bool
	Detached, Closing, Broken, Throttled   bool
	ACKHeld                                bool
	Most                                   uint32
}

type frame struct {
	kind frameKind
	head []byte
	body []byte
	fds  []int // who receives a frame owns them
}

// close gives the frame's descriptors back.
func (f *frame) close() {
	for _, fd := range f.fds {
		unix.Close(fd)
	}
	f.fds = nil
}

// parse reads the head into v.
func (f *frame) parse(v any) error {
	if err := json.Unmarshal(f.head, v); err != nil {
		return fmt.Errorf("hand-over: frame %c: %w", f.kind, err)
	}
	return nil
}

// link is one end of the socket between two engines. Calls block, until the socket is shut down
// in either direction.
type link struct{ fd int }

var errLink = errors.New("the other side closed the connection")

// send sends a frame; the other side gets duplicates of fds.
func (k link) send(kind frameKind, head any, fds []int, body ...[]byte) error {
	b, err := encode(kind, head, body...)
	if err != nil {
		return fmt.Errorf("hand-over: %w", err)
	}
	var rights []byte
	if len(fds) > 0 {
		rights = unix.UnixRights(fds...)
	}
	if err = k.write(b, rights); err != nil {
		return fmt.Errorf("hand-over: send: %w", err)
	}
	for _, b := range body {
		if err = k.write(b, nil); err != nil {
			return fmt.Errorf("hand-over: send: %w", err)
		}
	}
	return nil
}

// sendOnce sends a frame without head and body by one call that does not wait. On error nothing
// was sent.
func (k link) sendOnce(kind frameKind) error {
	b, err := encode(kind, nil)
	if err == nil {
		_, err = k.sendmsg(b, nil)
	}
	if err != nil {
		return fmt.Errorf("hand-over: send: %w", err)
	}
	return nil
}

// encode gives a frame's header and head, for the body that follows.
func encode(kind frameKind, head any, body ...[]byte) ([]byte, error) {
	text := []byte("{}")
	if head != nil {
		var err error
		if text, err = json.Marshal(head); err != nil {
			return nil, err
		}
	}
	size := 0
	for _, b := range body {
		size += len(b)
	}
	b := make([]byte, 0, frameHeader+len(text))
	b = append(b, 'T', 'P', 'R', byte(kind))
	b = binary.BigEndian.AppendUint32(b, uint32(len(text)))
	b = binary.BigEndian.AppendUint32(b, uint32(size))
	return append(b, text...), nil
}

// write sends b, with rights at its beginning.
func (k link) write(b, rights []byte) error {
	for len(b) > 0 {
		n, err := k.sendmsg(b, rights)
		switch {
		case err == unix.EAGAIN:
			err = k.waitWritable()
		case n > 0:
			b, rights = b[n:], nil
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// sendmsg does not wait: a blocked call would not notice that SHUT_RD was called on the socket.
func (k link) sendmsg(b, rights []byte) (int, error) {
	for {
		n, err := unix.SendmsgN(k.fd, b, rights, nil, unix.MSG_NOSIGNAL|unix.MSG_DONTWAIT)
		switch err {
		case unix.EINTR:
			continue
		case unix.EPIPE, unix.ECONNRESET:
			err = errLink
		}
		return n, err
	}
}

// waitWritable waits until the socket takes bytes, or has been shut down.
func (k link) waitWritable() error {
	for {
		poll := []unix.PollFd{{Fd: int32(k.fd), Events: unix.POLLOUT | unix.POLLRDHUP}}
		switch _, err := unix.Poll(poll, -1); {
		case err == unix.EINTR:
		case err != nil:
			return err
		case poll[0].Revents&(unix.POLLRDHUP|unix.POLLHUP|unix.POLLERR) != 0:
			return errLink
		default:
			return nil
		}
	}
}

// receive waits for a frame.
func (k link) receive() (f frame, err error) {
	defer func() {
		if err != nil {
			f.close()
			err = fmt.Errorf("hand-over: receive: %w", err)
		}
	}()
	header := make([]byte, frameHeader)
	for got := 0; got < len(header); {
		n, fds, err := k.recvmsg(header[got:])
		f.fds = append(f.fds, fds...)
		if err != nil {
			return f, err
		}
		got += n
	}
	if string(header[:3]) != "TPR" {
		return f, errors.New("this is no frame")
	}
	f.kind = frameKind(header[3])
	head, body := binary.BigEndian.Uint32(header[4:]), binary.BigEndian.Uint32(header[8:])
	if head > maxHead || body > maxBody || len(f.fds) > maxFDs {
		return f, fmt.Errorf("frame %q of %d and %d bytes with %d descriptors is too large", byte(f.kind), head, body, len(f.fds))
	}
	if f.head, err = k.read(int64(head)); err != nil {
		return f, err
	}
	f.body, err = k.read(int64(body))
	return f, err
}

// expect waits for a frame of that kind.
func (k link) expect(kind frameKind) (frame, error) {
	f, err := k.receive()
	if err == nil && f.kind != kind {
		f.close()
		err = fmt.Errorf("hand-over: the other side said %q, not %q", byte(f.kind), byte(kind))
	}
	return f, err
}

// read reads n bytes. It does not believe n: memory is taken for what came.
func (k link) read(n int64) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(linkReader{k}, n))
	if err == nil && int64(len(b)) < n {
		err = errLink
	}
	return b, err
}

type linkReader struct{ link }

// Read is recvmsg without descriptors.
func (r linkReader) Read(b []byte) (int, error) {
	n, fds, err := r.recvmsg(b)
	for _, fd := range fds {
		unix.Close(fd) // they come with headers only
	}
	if err == errLink {
		err = io.EOF
	}
	return n, err
}

func (k link) recvmsg(b []byte) (n int, fds []int, err error) {
	rights := make([]byte, unix.CmsgSpace(4*maxFDs))
	n, size, flags, _, err := unix.Recvmsg(k.fd, b, rights, unix.MSG_CMSG_CLOEXEC)
	for err == unix.EINTR {
		n, size, flags, _, err = unix.Recvmsg(k.fd, b, rights, unix.MSG_CMSG_CLOEXEC)
	}
	if err == unix.ECONNRESET {
		err = errLink
	}
	if err != nil {
		return 0, nil, err
	}
	messages, err := unix.ParseSocketControlMessage(rights[:size])
	if err != nil {
		return n, nil, err
	}
	for i := range messages {
		got, err := unix.ParseUnixRights(&messages[i])
		if err != nil {
			return n, fds, err
		}
		fds = append(fds, got...)
	}
	switch {
	case flags&unix.MSG_CTRUNC != 0:
		return n, fds, errors.New("descriptors were lost on the way; is the limit for them (ulimit -n) too low?")
	case n == 0 && len(b) > 0:
		return 0, fds, errLink
	}
	return n, fds, nil
}

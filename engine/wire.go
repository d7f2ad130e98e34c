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

// What two engines say to each other while the one hands over to the other (see
// HandOver), on a stream socket of the Unix domain:
//
//	old                                              new
//	hello, and each listening socket  ------------>
//	                                  <------------  ready: it serves, with the same sockets
//	some pairs, sync                  ------------>
//	                                  <------------  ack: they are its own now
//	... until none is left
//	done                              ------------>
//	                                  <------------  ack
//
// A frame is a header of 12 bytes, a head in JSON and a body of raw bytes. Descriptors
// travel with the header. JSON, because the two may be of different versions: what one of
// them does not know it leaves out or passes over.

// wireVersion changes when an older engine could not understand, or would lose something.
const wireVersion = 1

type frameKind byte

const (
	frameHello    frameKind = 'H'
	frameListener frameKind = 'L'
	frameReady    frameKind = 'R'
	framePair     frameKind = 'P'
	frameSync     frameKind = 'S'
	frameAck      frameKind = 'A'
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
}

type listenerState struct {
	Address netip.AddrPort
	Mode    tproxy.Mode
}

// pairState is a pair without its descriptors and its pending bytes. Directions are
// upstream, downstream; so is the order of pending bytes in the body.
type pairState struct {
	ID          uint64
	Since       time.Time
	Client      netip.AddrPort
	Destination netip.AddrPort
	Connected   netip.AddrPort // where it was sent instead, if it was
	Listener    listenerState
	Step        tproxy.Step
	State       string // waiting, connecting, open
	Opened      bool
	Shared      bool
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
	Detached, Closing, Broken, Throttled   bool
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

// link is one end of the socket between two engines. Calls block.
type link struct{ fd int }

var errLink = errors.New("the other side closed the connection")

// send sends a frame; the other side gets duplicates of fds.
func (k link) send(kind frameKind, head any, fds []int, body ...[]byte) error {
	text := []byte("{}")
	if head != nil {
		var err error
		if text, err = json.Marshal(head); err != nil {
			return fmt.Errorf("hand-over: %w", err)
		}
	}
	size := 0
	for _, b := range body {
		size += len(b)
	}
	header := make([]byte, 0, frameHeader+len(text))
	header = append(header, 'T', 'P', 'R', byte(kind))
	header = binary.BigEndian.AppendUint32(header, uint32(len(text)))
	header = binary.BigEndian.AppendUint32(header, uint32(size))
	header = append(header, text...)
	var rights []byte
	if len(fds) > 0 {
		rights = unix.UnixRights(fds...)
	}
	n, err := k.sendmsg(header, rights)
	if err == nil {
		err = k.write(header[n:])
	}
	for _, b := range body {
		if err == nil {
			err = k.write(b)
		}
	}
	if err != nil {
		return fmt.Errorf("hand-over: send: %w", err)
	}
	return nil
}

func (k link) write(b []byte) error {
	for len(b) > 0 {
		n, err := k.sendmsg(b, nil)
		if err != nil {
			return err
		}
		b = b[n:]
	}
	return nil
}

func (k link) sendmsg(b, rights []byte) (int, error) {
	for {
		n, err := unix.SendmsgN(k.fd, b, rights, nil, unix.MSG_NOSIGNAL)
		switch err {
		case unix.EINTR:
			continue
		case unix.EPIPE, unix.ECONNRESET:
			err = errLink
		}
		return n, err
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

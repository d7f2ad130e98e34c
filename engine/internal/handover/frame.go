package handover

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// A frame is a header, a head in JSON and a body of raw bytes. Descriptors travel with the header.
// The head is JSON because the two engines may be of different versions: an engine ignores the
// fields that it does not know.
//
//	 0       3      4             8             12
//	+-------+------+-------------+-------------+---------------+------+
//	| "TPR" | kind | size of the | size of the | head, in JSON | body |
//	|       |      | head        | body        |               |      |
//	+-------+------+-------------+-------------+---------------+------+
//
// The sizes are big-endian.

// Kind is what a frame says.
type Kind byte

// The kinds of frames, in the order in which they come.
const (
	KindHello    Kind = 'H'
	KindListener Kind = 'L'
	KindReady    Kind = 'R'
	KindPair     Kind = 'P'
	KindSync     Kind = 'S'
	KindAck      Kind = 'A'
	KindCommit   Kind = 'C'
	KindDone     Kind = 'D'
)

const (
	magic      = "TPR"
	headerSize = 12
	maxHead    = 64 << 10
	maxBody    = 1 << 31
	maxFDs     = 2
)

// Frame is a frame that was received. Its descriptors are the receiver's.
type Frame struct {
	Kind Kind
	Head []byte
	Body []byte
	FDs  []int
}

// Close closes the frame's descriptors.
func (f *Frame) Close() {
	closeAll(f.FDs)
	f.FDs = nil
}

func closeAll(fds []int) {
	for _, fd := range fds {
		unix.Close(fd)
	}
}

// parse reads the head into v.
func (f *Frame) parse(v any) error {
	if err := json.Unmarshal(f.Head, v); err != nil {
		return fmt.Errorf("hand-over: frame %c: %w", f.Kind, err)
	}
	return nil
}

// encode returns a frame's header and head; the body is to follow.
func encode(kind Kind, head any, body ...[]byte) ([]byte, error) {
	text := []byte("{}")
	if head != nil {
		var err error
		if text, err = json.Marshal(head); err != nil {
			return nil, fmt.Errorf("hand-over: frame %c: %w", kind, err)
		}
	}
	size := 0
	for _, b := range body {
		size += len(b)
	}
	b := append(make([]byte, 0, headerSize+len(text)), magic...)
	b = append(b, byte(kind))
	b = binary.BigEndian.AppendUint32(b, uint32(len(text)))
	b = binary.BigEndian.AppendUint32(b, uint32(size))
	return append(b, text...), nil
}

// decode reads a header: the kind of the frame, and the sizes of its head and its body.
func decode(header []byte) (kind Kind, head, body uint32, err error) {
	if string(header[:len(magic)]) != magic {
		return 0, 0, 0, errors.New("this is no frame")
	}
	kind = Kind(header[len(magic)])
	head, body = binary.BigEndian.Uint32(header[4:]), binary.BigEndian.Uint32(header[8:])
	if head > maxHead || body > maxBody {
		return kind, head, body, fmt.Errorf("frame %q of %d and %d bytes is too large", byte(kind), head, body)
	}
	return kind, head, body, nil
}

package engine

import "golang.org/x/sys/unix"

// Frame is what engines say to each other, as bytes. Parts are how many bytes of it end in the
// middle of its header, its head and its body.
type Frame struct {
	Kind  byte
	Bytes []byte
	FDs   []int
	Parts []int
}

// ReceiveFrame reads a frame from a link. Its descriptors are the caller's.
func ReceiveFrame(fd int) (Frame, error) {
	f, err := link{fd}.receive()
	if err != nil {
		return Frame{}, err
	}
	b := []byte{'T', 'P', 'R', byte(f.kind)}
	for _, n := range []int{len(f.head), len(f.body)} {
		b = append(b, byte(n>>24), byte(n>>16), byte(n>>8), byte(n))
	}
	b = append(append(b, f.head...), f.body...)
	parts := []int{frameHeader / 2, frameHeader + len(f.head)/2}
	if len(f.body) > 0 {
		parts = append(parts, len(b)-(len(f.body)+1)/2)
	}
	return Frame{byte(f.kind), b, f.fds, parts}, nil
}

// WriteFrame writes bytes of a frame, and duplicates of descriptors, to a link.
func WriteFrame(fd int, b []byte, fds []int) error {
	var rights []byte
	if len(fds) > 0 {
		rights = unix.UnixRights(fds...)
	}
	return link{fd}.write(b, rights)
}

// Package splice moves bytes from socket to socket through a pipe, inside the kernel: splice(2). It
// is part of the engine and may change with any version, also within version 1.
//
//	pool := splice.NewPool(splice.Limits{Size: 64<<10, Pipes: 512, Keep: 64})
//	defer pool.Close()
//	if id, ok := pool.Get(); ok {
//		p := pool.Pipe(id)
//		n, st, err := p.Fill(source, 1<<20)  // socket -> pipe
//		m, st, err := p.Drain(sink)          // pipe -> socket
//		pool.Put(id)
//	}
//
// Nothing here blocks; sockets must be non-blocking. A pool belongs to one
// event loop: no method is safe for concurrent use.
//
// # What a pipe holds
//
// A pipe counts slots, not bytes: each slot takes one fragment of a socket buffer, however small.
// 16 segments of 1,448 bytes fill a pipe of 64 KiB, and a partly drained slot stays in use. So
// splice(2) says EAGAIN both when the socket is empty and when the pipe is full. Whether the pipe
// is empty tells the two apart: see Pipe.Fill.
package splice

import (
	"golang.org/x/sys/unix"
)

// Status is how a move ended.
type Status uint8

const (
	// Moved: bytes were moved. The source may have more, even when they were fewer than asked
	// for.
	Moved Status = iota
	// Empty: the source has nothing now. An event will come when it has.
	Empty
	// Full: the receiving side takes no more. From Fill: drain the pipe until it is empty, then
	// try again, because the source may have more and no event will say so. From Drain: the
	// sink's event will come.
	Full
	// End: the source has ended.
	End
	// Refused: this descriptor cannot be spliced (EINVAL), or no longer.
	Refused
	// Failed: the connection is broken; the error says how.
	Failed
)

// Pipe is a pipe and what is in it.
type Pipe struct {
	read, write int
	size        int // capacity in bytes, as the kernel gave it
	pending     int
}

// Size is the pipe's capacity in bytes (pages times the page size).
func (p *Pipe) Size() int { return p.size }

// Pending is the number of bytes in the pipe.
func (p *Pipe) Pending() int { return p.pending }

// flags do not include SPLICE_F_MORE: it holds the last segment back for 200 ms (golang/go issue
// 10948).
const flags = unix.SPLICE_F_NONBLOCK | unix.SPLICE_F_MOVE

// Fill moves up to max bytes, at least one, from socket source into the pipe.
//
// EAGAIN with an empty pipe means that the source is empty. With bytes in the pipe it may be the
// pipe that is full, and is reported as Full. To mistake a full pipe for an empty source would lose
// the only edge-triggered event, and hang the connection.
func (p *Pipe) Fill(source, max int) (n int, st Status, err error) {
	n, errno := move(source, p.write, max)
	switch {
	case errno == 0 && n > 0:
		p.pending += n
		return n, Moved, nil
	case errno == 0:
		return 0, End, nil
	case errno == unix.EAGAIN && p.pending == 0:
		return 0, Empty, nil
	case errno == unix.EAGAIN:
		return 0, Full, nil
	case errno == unix.EINVAL:
		return 0, Refused, nil
	}
	return 0, Failed, errno
}

// Drain moves what is in the pipe to socket sink. With Full, less than all was moved, or nothing:
// the sink's send buffer is full, and its event will come.
//
// Only EAGAIN means Full. A short splice does not: the kernel also stops between two slots when a
// signal is pending, and Go's scheduler sends signals. The sink may have room then, and no event
// would come.
func (p *Pipe) Drain(sink int) (n int, st Status, err error) {
	for p.pending > 0 {
		m, errno := move(p.read, sink, p.pending)
		switch {
		case errno == 0 && m > 0:
			p.pending -= m
			n += m
		case errno == 0, errno == unix.EAGAIN:
			return n, Full, nil
		case errno == unix.EINVAL:
			return n, Refused, nil
		default:
			return n, Failed, errno
		}
	}
	return n, Moved, nil
}

// Read takes bytes out of the pipe into b, for a sink that refuses splice.
func (p *Pipe) Read(b []byte) (int, error) {
	n, err := unix.Read(p.read, b)
	if n > 0 {
		p.pending -= n
	}
	return n, err
}

func move(from, to, max int) (int, unix.Errno) {
	for {
		n, _, errno := unix.RawSyscall6(unix.SYS_SPLICE, uintptr(from), 0, uintptr(to), 0, uintptr(max), flags)
		if errno == unix.EINTR {
			continue
		}
		if errno != 0 {
			return 0, errno
		}
		return int(n), 0
	}
}

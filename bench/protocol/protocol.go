// Package protocol is what the benchmark's clients and server say to each other over TCP.
//
// The server listens on two ports. On the first it answers requests: each says how long its reply
// shall be, and whether the server closes the connection after it. On the second it takes streams:
// it reads or writes bytes as fast as they go, as the client wants.
//
// All payload, of requests, replies and streams, is a [Pattern]. Each read is checked at both its
// ends, so bytes that a relay loses, repeats or mixes up are found, for next to no time.
package protocol

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// HeaderSize is the length of the header of a request and of a stream, in bytes.
const HeaderSize = 16

// MaxMessage is the most bytes that a request or a reply may have.
const MaxMessage = 64 << 20

// The first four bytes of a header.
const (
	requestMagic = 0x74707271 // "tprq"
	streamMagic  = 0x74707374 // "tpst"
)

// Request is the header of a request.
type Request struct {
	Length int  // of the request, header included, in bytes
	Reply  int  // bytes of the reply
	Seed   byte // place in the pattern where the request's payload and the reply begin
	Close  bool // the server closes the connection after the reply
}

const closeFlag = 1

// Put writes the request into to, which has r.Length bytes.
func (r Request) Put(to []byte, payload Pattern) {
	binary.BigEndian.PutUint32(to, requestMagic)
	binary.BigEndian.PutUint32(to[4:], uint32(r.Length))
	binary.BigEndian.PutUint32(to[8:], uint32(r.Reply))
	flags := uint32(r.Seed) << 8
	if r.Close {
		flags |= closeFlag
	}
	binary.BigEndian.PutUint32(to[12:], flags)
	at := int(r.Seed)
	for rest := to[HeaderSize:]; len(rest) > 0; {
		n := copy(rest, payload.From(at, len(rest)))
		rest, at = rest[n:], at+n
	}
}

// ParseRequest reads a header of [HeaderSize] bytes.
func ParseRequest(h []byte) (Request, error) {
	flags := binary.BigEndian.Uint32(h[12:])
	r := Request{
		Length: int(binary.BigEndian.Uint32(h[4:])),
		Reply:  int(binary.BigEndian.Uint32(h[8:])),
		Seed:   byte(flags >> 8),
		Close:  flags&closeFlag != 0,
	}
	if binary.BigEndian.Uint32(h) != requestMagic || r.Length < HeaderSize || r.Length > MaxMessage ||
		r.Reply < 1 || r.Reply > MaxMessage || flags>>16 != 0 || flags&0xff > closeFlag || int(r.Seed) >= Period {
		return Request{}, fmt.Errorf("not a request: % x", h[:HeaderSize])
	}
	return r, nil
}

// RequestReader finds the requests in a stream of bytes, however it is split, and checks their
// payload. The zero value expects the first byte of a request.
type RequestReader struct {
	header [HeaderSize]byte
	have   int     // bytes of the header
	left   int     // bytes of payload to come
	now    Request // the one whose payload it is
}

// Next consumes data up to the end of a request, and returns the rest. If found is false, the
// request does not end in data, and rest is empty.
func (q *RequestReader) Next(data []byte) (r Request, rest []byte, found bool, err error) {
	if q.have < HeaderSize {
		n := copy(q.header[q.have:], data)
		q.have += n
		data = data[n:]
		if q.have < HeaderSize {
			return r, nil, false, nil
		}
		if q.now, err = ParseRequest(q.header[:]); err != nil {
			return r, nil, false, err
		}
		q.left = q.now.Length - HeaderSize
	}
	n := min(q.left, len(data))
	if n > 0 {
		if err := Check(data[:n], int(q.now.Seed)+q.now.Length-HeaderSize-q.left); err != nil {
			return r, nil, false, fmt.Errorf("request of %d bytes: %w", q.now.Length, err)
		}
	}
	q.left -= n
	if q.left > 0 {
		return r, nil, false, nil
	}
	q.have = 0
	return q.now, data[n:], true, nil
}

// What the client of a stream wants of the server.
const (
	RoleSink   = 1 // the server reads
	RoleSource = 2 // the server writes
)

// PutStream writes the header of a stream, which the server sends back.
func PutStream(to []byte, role, number uint32) {
	binary.BigEndian.PutUint32(to, streamMagic)
	binary.BigEndian.PutUint32(to[4:], role)
	binary.BigEndian.PutUint32(to[8:], number)
	binary.BigEndian.PutUint32(to[12:], 0)
}

// ParseStream reads a header of [HeaderSize] bytes.
func ParseStream(h []byte) (role uint32, err error) {
	role = binary.BigEndian.Uint32(h[4:])
	if binary.BigEndian.Uint32(h) != streamMagic || role != RoleSink && role != RoleSource {
		return 0, fmt.Errorf("not the header of a stream: % x", h[:HeaderSize])
	}
	return role, nil
}

// Period is that of the pattern. It is a prime, so that the loss of a round number of bytes shows.
const Period = 251

// Pattern is a run of bytes that repeats with [Period].
type Pattern []byte

// NewPattern returns a pattern of which [Pattern.From] gives up to size bytes from any place.
func NewPattern(size int) Pattern {
	p := make(Pattern, size+Period)
	for i := range p {
		p[i] = byte(i % Period)
	}
	return p
}

// From returns at most n bytes, those from place at on.
func (p Pattern) From(at, n int) []byte {
	at %= Period
	return p[at : at+min(n, len(p)-Period)]
}

// ErrWrongBytes is the error of [Check].
var ErrWrongBytes = errors.New("wrong bytes: not those that were sent, or not in their place")

// Check looks at the first and the last byte of data, which is not empty and begins at place at of
// the pattern.
func Check(data []byte, at int) error {
	if int(data[0]) != at%Period || int(data[len(data)-1]) != (at+len(data)-1)%Period {
		return ErrWrongBytes
	}
	return nil
}

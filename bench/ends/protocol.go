package ends

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// headerSize is the length of a header, of a request and of a bulk stream alike.
const headerSize = 16

// What headers begin with.
const (
	requestMagic = 0x74707271 // "tprq"
	streamMagic  = 0x74707374 // "tpst"
)

// request is the header of a request, the rest of which is padding.
type request struct {
	length int  // of the request as a whole
	reply  int  // bytes that shall come back
	seed   byte // where in the pattern the reply begins
	close  bool // the server closes the connection after the reply
}

const closeFlag = 1

func (r request) put(to []byte) {
	binary.BigEndian.PutUint32(to, requestMagic)
	binary.BigEndian.PutUint32(to[4:], uint32(r.length))
	binary.BigEndian.PutUint32(to[8:], uint32(r.reply))
	flags := uint32(r.seed) << 8
	if r.close {
		flags |= closeFlag
	}
	binary.BigEndian.PutUint32(to[12:], flags)
}

func parseRequest(h []byte) (request, error) {
	flags := binary.BigEndian.Uint32(h[12:])
	r := request{
		length: int(binary.BigEndian.Uint32(h[4:])),
		reply:  int(binary.BigEndian.Uint32(h[8:])),
		seed:   byte(flags >> 8),
		close:  flags&closeFlag != 0,
	}
	if binary.BigEndian.Uint32(h) != requestMagic || r.length < headerSize || r.length > maxMessage ||
		r.reply < 1 || r.reply > maxMessage || flags>>16 != 0 || flags&0xff > closeFlag || int(r.seed) >= period {
		return request{}, fmt.Errorf("no request: % x", h[:headerSize])
	}
	return r, nil
}

// requestReader finds the requests in what comes, in whatever pieces it comes. The
// zero value is at the beginning of one.
type requestReader struct {
	header [headerSize]byte
	have   int     // bytes of the header
	left   int     // bytes of padding to come
	now    request // the one whose padding it is
}

// next takes from data up to the end of a request, and returns what is left of it. If
// found is false, there was no end in it, and nothing is left.
func (q *requestReader) next(data []byte) (r request, rest []byte, found bool, err error) {
	if q.have < headerSize {
		n := copy(q.header[q.have:], data)
		q.have += n
		data = data[n:]
		if q.have < headerSize {
			return r, nil, false, nil
		}
		if q.now, err = parseRequest(q.header[:]); err != nil {
			return r, nil, false, err
		}
		q.left = q.now.length - headerSize
	}
	n := min(q.left, len(data))
	q.left -= n
	if q.left > 0 {
		return r, nil, false, nil
	}
	q.have = 0
	return q.now, data[n:], true, nil
}

// What a stream is for, as the client wants it of the server.
const (
	roleSink   = 1 // the server reads
	roleSource = 2 // the server writes
)

// putStream writes the header of a stream, which the server sends back.
func putStream(to []byte, role, number uint32) {
	binary.BigEndian.PutUint32(to, streamMagic)
	binary.BigEndian.PutUint32(to[4:], role)
	binary.BigEndian.PutUint32(to[8:], number)
	binary.BigEndian.PutUint32(to[12:], 0)
}

func parseStream(h []byte) (role uint32, err error) {
	role = binary.BigEndian.Uint32(h[4:])
	if binary.BigEndian.Uint32(h) != streamMagic || role != roleSink && role != roleSource {
		return 0, fmt.Errorf("no header of a stream: % x", h[:headerSize])
	}
	return role, nil
}

// period is that of the pattern: a prime, so that no loss of a round number of bytes
// goes unnoticed.
const period = 251

// pattern is bytes that repeat with the period, enough for size of them from any
// place in it.
type pattern []byte

func newPattern(size int) pattern {
	p := make(pattern, size+period)
	for i := range p {
		p[i] = byte(i % period)
	}
	return p
}

// from gives at most n bytes, those from the place at on.
func (p pattern) from(at, n int) []byte {
	at %= period
	return p[at : at+min(n, len(p)-period)]
}

var errWrongBytes = errors.New("wrong bytes: not those that were sent, or not in their place")

// checkPattern looks at the first and the last byte of data, which is not empty and
// begins at the place at.
func checkPattern(data []byte, at int) error {
	if int(data[0]) != at%period || int(data[len(data)-1]) != (at+len(data)-1)%period {
		return errWrongBytes
	}
	return nil
}

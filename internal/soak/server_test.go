package soak

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tprelay/tprelay/internal/netlab"
)

// serverPort is where the server listens on h3, for both families.
const serverPort = 8000

// server plays the server's ends.
type server struct {
	ctx      context.Context
	host     *netlab.Host
	streams  *streams
	fail     func(format string, args ...any)
	wg       sync.WaitGroup
	listener net.Listener
}

// open begins to listen.
func (s *server) open() error {
	l, err := s.host.Listen("tcp", fmt.Sprintf("[::]:%d", serverPort))
	if err != nil {
		return err
	}
	s.listener = l
	s.wg.Go(func() {
		for {
			c, err := l.Accept()
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err != nil {
				s.fail("server: %v", err)
				return
			}
			s.wg.Go(func() { s.serve(c.(*net.TCPConn)) })
		}
	})
	return nil
}

// close stops listening. The kernel resets clients that wait to be accepted.
func (s *server) close() { s.listener.Close() }

// serve plays one end: whose, its header says.
func (s *server) serve(c *net.TCPConn) {
	e := newEnd(s.ctx, nil, "server", c, 0, 0)
	s.streams.track(e)
	header, err := e.readHeader()
	if header == nil {
		s.streams.anonymous(e, err)
		return
	}
	var found *stream
	id, err := parseHeader(header)
	if err == nil {
		found, err = s.streams.join(id, e)
	}
	if err != nil {
		s.fail("server: %v", err)
		s.streams.anonymous(e, err)
		return
	}
	if found.script.server == nil {
		// It was to be refused by a relay that was gone before it came.
		s.streams.judge(e, unix.ECONNRESET)
		return
	}
	up, down := found.contents()
	e.out, e.in.want = down, up
	s.streams.judge(e, found.script.server(e))
}

// readHeader reads as far as the header goes; labels may be in it. Nil: there is none.
func (e *end) readHeader() ([]byte, error) {
	var header []byte
	for len(header) < headerSize {
		piece := make([]byte, headerSize-len(header))
		e.conn.SetReadDeadline(time.Now().Add(stall))
		n, err := e.conn.Read(piece)
		for _, b := range piece[:n] {
			if !e.in.label(b) {
				header = append(header, b)
			}
		}
		if err == io.EOF && len(header) > 0 {
			return header, nil // parseHeader will say what is wrong
		}
		if err != nil {
			return nil, err
		}
	}
	return header, nil
}

// anonymous closes an end that nobody has named, as its other end wants.
func (ss *streams) anonymous(e *end, err error) {
	if err == io.EOF {
		e.conn.Close()
	} else {
		e.reset()
	}
	ss.mu.Lock()
	delete(ss.ends, e)
	ss.mu.Unlock()
}

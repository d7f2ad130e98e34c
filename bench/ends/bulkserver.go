package ends

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"time"
)

// blockSize is how much a bulk stream reads and writes at a time, as iperf3 does.
const blockSize = 128 << 10

// headerLimit is how long a client of a stream may take to say what it wants.
const headerLimit = 10 * time.Second

// bulkServer takes bytes, or sends them, as each client wants.
type bulkServer struct {
	listener net.Listener
	bytes    pattern
	faults   *faults
	came     func(n int) // told of bytes that have come, at sinks
	serving  sync.WaitGroup
	failed   func(error) // told when it cannot accept any more

	mu      sync.Mutex
	streams map[net.Conn]struct{} // nil once stopped
}

// startBulkServer returns when the server listens.
func startBulkServer(listen netip.AddrPort, f *faults, came func(n int), failed func(error)) (*bulkServer, error) {
	var lc net.ListenConfig
	lc.SetMultipathTCP(false)
	l, err := lc.Listen(context.Background(), "tcp", listen.String())
	if err != nil {
		return nil, err
	}
	s := &bulkServer{listener: l, bytes: newPattern(blockSize), faults: f, came: came, failed: failed, streams: map[net.Conn]struct{}{}}
	s.serving.Go(s.accept)
	return s, nil
}

// stop ends the server and its streams, and waits for them.
func (s *bulkServer) stop() {
	s.listener.Close()
	s.mu.Lock()
	for c := range s.streams {
		discard(c)
	}
	s.streams = nil
	s.mu.Unlock()
	s.serving.Wait()
}

func (s *bulkServer) accept() {
	for {
		c, err := s.listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			s.failed(fmt.Errorf("the bulk server: %w", err))
			return
		}
		if !s.add(c) {
			c.Close()
			return
		}
		s.serving.Go(func() { s.serve(c) })
	}
}

// add notes a connection, so that stop ends it. It refuses once stopped.
func (s *bulkServer) add(c net.Conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.streams == nil {
		return false
	}
	s.streams[c] = struct{}{}
	return true
}

func (s *bulkServer) serve(c net.Conn) {
	defer func() {
		c.Close()
		s.mu.Lock()
		delete(s.streams, c)
		s.mu.Unlock()
	}()
	header := make([]byte, headerSize)
	c.SetDeadline(time.Now().Add(headerLimit))
	if _, err := io.ReadFull(c, header); err != nil {
		return
	}
	role, err := parseStream(header)
	if err != nil {
		s.faults.note(err)
		return
	}
	if _, err := c.Write(header); err != nil {
		return
	}
	c.SetDeadline(time.Time{})
	if role == roleSource {
		_ = writeStream(c, s.bytes) // it ends when the client has enough
		return
	}
	if err := readStream(c, make([]byte, blockSize), s.came); errors.Is(err, errWrongBytes) {
		s.faults.note(err)
	}
}

// writeStream writes the pattern until that fails.
func writeStream(c net.Conn, bytes pattern) error {
	for at := 0; ; {
		n, err := c.Write(bytes.from(at, blockSize))
		if err != nil {
			return err
		}
		at = (at + n) % period
	}
}

// readStream tells of what comes until the end, which is an error too: io.EOF.
func readStream(c net.Conn, buf []byte, came func(n int)) error {
	for at := 0; ; {
		n, err := c.Read(buf)
		if n > 0 {
			came(n)
			if err := checkPattern(buf[:n], at); err != nil {
				return err
			}
			at = (at + n) % period
		}
		if err != nil {
			return err
		}
	}
}

// discard closes a connection at once, with a reset: what is on its way is of no use,
// and its port is free again.
func discard(c net.Conn) {
	if tcp, ok := c.(*net.TCPConn); ok {
		tcp.SetLinger(0)
	}
	c.Close()
}

package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/tprelay/tprelay/bench/protocol"
	"github.com/tprelay/tprelay/bench/worker"
)

// headerLimit is how long a client may take to send the header of a stream.
const headerLimit = 10 * time.Second

// streamServer reads or writes streams, as each client wants.
type streamServer struct {
	listener net.Listener
	payload  protocol.Pattern
	faults   *worker.Faults
	arrived  func(n int) // told of each read
	serving  sync.WaitGroup
	failed   func(error) // told when it cannot accept any more

	mu      sync.Mutex
	streams map[net.Conn]struct{} // nil once stopped
}

// startStreamServer returns when the server listens.
func startStreamServer(listen netip.AddrPort, f *worker.Faults, arrived func(n int), failed func(error)) (*streamServer, error) {
	var lc net.ListenConfig
	lc.SetMultipathTCP(false)
	l, err := lc.Listen(context.Background(), "tcp", listen.String())
	if err != nil {
		return nil, err
	}
	s := &streamServer{listener: l, payload: protocol.NewPattern(protocol.BlockSize), faults: f, arrived: arrived, failed: failed, streams: map[net.Conn]struct{}{}}
	s.serving.Go(s.accept)
	return s, nil
}

// stop ends the server and its streams, and waits for them.
func (s *streamServer) stop() {
	s.listener.Close()
	s.mu.Lock()
	for c := range s.streams {
		protocol.Reset(c)
	}
	s.streams = nil
	s.mu.Unlock()
	s.serving.Wait()
}

func (s *streamServer) accept() {
	for {
		c, err := s.listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			s.failed(fmt.Errorf("the stream server: %w", err))
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
func (s *streamServer) add(c net.Conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.streams == nil {
		return false
	}
	s.streams[c] = struct{}{}
	return true
}

func (s *streamServer) serve(c net.Conn) {
	defer func() {
		c.Close()
		s.mu.Lock()
		delete(s.streams, c)
		s.mu.Unlock()
	}()
	header := make([]byte, protocol.HeaderSize)
	c.SetDeadline(time.Now().Add(headerLimit))
	if _, err := io.ReadFull(c, header); err != nil {
		return
	}
	role, err := protocol.ParseStream(header)
	if err != nil {
		s.faults.Note(err)
		return
	}
	if _, err := c.Write(header); err != nil {
		return
	}
	c.SetDeadline(time.Time{})
	if role == protocol.RoleSource {
		_ = protocol.WriteStream(c, s.payload) // until the client closes
		return
	}
	reader := protocol.StreamReader{Conn: c, Arrived: s.arrived}
	if err := reader.ReadAll(); errors.Is(err, protocol.ErrWrongBytes) {
		s.faults.Note(err)
	}
}

package admin

import (
	"errors"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"
)

const (
	// maxConnections is the number of connections that a Server has at most: half of the
	// descriptors that an engine leaves to the rest of its process
	// (engine.DefaultDescriptorReserve).
	maxConnections = 32
	// maxHeaderBytes limits the memory for a request. Browsers send 1 KiB or less.
	maxHeaderBytes = 16 << 10

	headerTimeout = 5 * time.Second
	readTimeout   = 10 * time.Second
	writeTimeout  = time.Minute // enough for a list of all pairs over a slow link
	idleTimeout   = 90 * time.Second
)

// Server serves a Handler over HTTP. Clients cannot use up the descriptors of the process: a new
// connection beyond the limit replaces the one that has been without a request for the longest
// time, and timeouts close connections whose client is silent or does not read its answer.
type Server struct {
	listener net.Listener
	http     http.Server
	conns    connections
	done     chan struct{} // closed when the server has stopped accepting
}

// Serve starts to serve source on listener and returns at once. Stop ends it.
func Serve(listener net.Listener, source Source, o Options) *Server {
	log := o.Logger
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	s := &Server{listener: listener, done: make(chan struct{})}
	s.http = http.Server{
		Handler:                      Handler(source, o),
		ReadHeaderTimeout:            headerTimeout,
		ReadTimeout:                  readTimeout,
		WriteTimeout:                 writeTimeout,
		IdleTimeout:                  idleTimeout,
		MaxHeaderBytes:               maxHeaderBytes,
		DisableGeneralOptionsHandler: true, // otherwise OPTIONS * bypasses the Handler
		ErrorLog:                     slog.NewLogLogger(log.Handler(), slog.LevelDebug),
		ConnState:                    s.conns.note,
	}
	go func() {
		defer close(s.done)
		if err := s.http.Serve(listener); !errors.Is(err, net.ErrClosed) {
			log.Error("admin: serving has failed", "err", err)
		}
	}()
	return s
}

// Stop stops accepting and waits until the accepted clients have their answer, no longer than
// patience. It may be called more than once.
func (s *Server) Stop(patience time.Duration) {
	// Not http.Server.Shutdown, which closes connections whose request it has not read yet.
	s.listener.Close() // fails if it is closed already
	<-s.done           // from here on conns has all connections
	s.http.SetKeepAlivesEnabled(false)
	for end := time.Now().Add(patience); s.conns.count() > 0 && time.Now().Before(end); {
		time.Sleep(time.Millisecond)
	}
	s.http.Close()
}

// connections limits the number of open connections.
type connections struct {
	mu    sync.Mutex
	open  map[net.Conn]turn
	turns uint64
}

// turn records when a connection last changed its state, and whether it has had a request in
// progress since.
type turn struct {
	number uint64
	busy   bool
}

// note is called by http.Server as its ConnState hook.
func (c *connections) note(conn net.Conn, state http.ConnState) {
	var victim net.Conn
	c.mu.Lock()
	switch state {
	case http.StateClosed, http.StateHijacked:
		delete(c.open, conn)
	default:
		if state == http.StateNew && len(c.open) >= maxConnections {
			victim = c.longest()
			delete(c.open, victim)
		}
		if _, known := c.open[conn]; known || state == http.StateNew {
			if c.open == nil {
				c.open = make(map[net.Conn]turn, maxConnections)
			}
			c.turns++
			c.open[conn] = turn{c.turns, state == http.StateActive}
		}
	}
	c.mu.Unlock()
	if victim != nil {
		victim.Close()
	}
}

// longest returns the connection that has been without a request for the longest time. If all
// have a request, it returns the one with the oldest request.
func (c *connections) longest() (victim net.Conn) {
	var oldest turn
	for conn, t := range c.open {
		older := t.number < oldest.number
		if victim == nil || oldest.busy && !t.busy || oldest.busy == t.busy && older {
			victim, oldest = conn, t
		}
	}
	return victim
}

func (c *connections) count() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.open)
}

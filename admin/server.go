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
	// maxConnections is how many connections a Server has at once: half of the
	// descriptors that an engine leaves to the rest of its process
	// (engine.DefaultReserve).
	maxConnections = 32
	// maxHeaderBytes bounds the memory for a request. Browsers send 1 KiB or less.
	maxHeaderBytes = 16 << 10

	headerTimeout = 5 * time.Second
	readTimeout   = 10 * time.Second
	writeTimeout  = time.Minute // for a list of all pairs over a slow link
	idleTimeout   = 90 * time.Second
)

// Server serves a Handler over HTTP. Clients cannot use up the descriptors of the process:
// a connection too many takes the place of the one that has been without a request for the
// longest time, and no connection may be silent or refuse its answer for long.
type Server struct {
	listener net.Listener
	http     http.Server
	conns    connections
	done     chan struct{} // closed when it accepts no more
}

// Serve shows source to those who connect to listener, until Stop. It does not wait.
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
		DisableGeneralOptionsHandler: true, // OPTIONS * would pass the Handler by
		ErrorLog:                     slog.NewLogLogger(log.Handler(), slog.LevelDebug),
		ConnState:                    s.conns.note,
	}
	go func() {
		defer close(s.done)
		if err := s.http.Serve(listener); !errors.Is(err, net.ErrClosed) {
			log.Error("admin", "err", err)
		}
	}()
	return s
}

// Stop accepts no more clients, and lets those that were accepted have their answer, but
// waits no longer than patience for that. It may be called more than once.
func (s *Server) Stop(patience time.Duration) {
	// Not by http.Server.Shutdown, which hangs up on clients whose request it has not read
	// yet.
	s.listener.Close() // fails if it is closed already
	<-s.done           // from here on conns knows all
	s.http.SetKeepAlivesEnabled(false)
	for end := time.Now().Add(patience); s.conns.count() > 0 && time.Now().Before(end); {
		time.Sleep(time.Millisecond)
	}
	s.http.Close()
}

// connections bounds how many connections are open at once.
type connections struct {
	mu    sync.Mutex
	open  map[net.Conn]turn
	turns uint64
}

// turn is when a connection last changed its state, and whether a request is under way
// since.
type turn struct {
	number uint64
	busy   bool
}

// note is for http.Server.ConnState.
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

// longest is the connection that has been without a request for the longest time. Where
// all have one, it is the one whose request is the oldest.
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

package ends

import (
	"context"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"github.com/panjf2000/gnet/v2"
)

// mostUnsent is how many bytes of replies the server keeps in memory for a client
// that does not read, before it cuts it off: gnet cannot stop reading.
const mostUnsent = maxMessage

// replyServer answers requests, on gnet's loops.
type replyServer struct {
	gnet.BuiltinEventEngine
	bytes  pattern
	faults *faults

	booted chan gnet.Engine
	ended  chan struct{} // closed when it serves no more
	err    error         // why; set before that
	engine gnet.Engine

	mu      sync.Mutex
	stopped bool // no loop may be woken any more
}

// replier is the server's end of a connection.
type replier struct {
	requests requestReader
	closing  bool // the last reply is written, though maybe not yet sent
}

// startReplyServer returns when the server listens.
func startReplyServer(listen netip.AddrPort, threads int, f *faults) (*replyServer, error) {
	s := &replyServer{bytes: newPattern(64 << 10), faults: f, booted: make(chan gnet.Engine, 1), ended: make(chan struct{})}
	go func() {
		defer close(s.ended)
		// With SO_REUSEPORT each loop accepts for itself; without, gnet has another
		// loop that only accepts, and hands connections over. That somebody else has
		// the port does then not show here, but at the bulk server's.
		var log quiet
		s.err = gnet.Run(s, "tcp://"+listen.String(),
			gnet.WithMulticore(threads > 1), gnet.WithNumEventLoop(threads), gnet.WithReusePort(true),
			gnet.WithTCPNoDelay(gnet.TCPNoDelay), gnet.WithLogger(&log))
		if s.err == nil {
			s.err = fmt.Errorf("the reply server has ended: %s", log.words("it was told to"))
		}
	}()
	select {
	case s.engine = <-s.booted:
		return s, nil
	case <-s.ended:
		return nil, fmt.Errorf("listen on %v: %w", listen, s.err)
	}
}

// stop ends the server and waits for it.
func (s *replyServer) stop() {
	s.mu.Lock()
	s.stopped = true
	s.mu.Unlock()
	// Stop begins the end; the wait is ours.
	now, cancel := context.WithCancel(context.Background())
	cancel()
	_ = s.engine.Stop(now)
	<-s.ended
}

// OnBoot says that the server listens.
func (s *replyServer) OnBoot(engine gnet.Engine) gnet.Action {
	s.booted <- engine
	return gnet.None
}

// OnOpen takes a connection.
func (s *replyServer) OnOpen(c gnet.Conn) ([]byte, gnet.Action) {
	c.SetContext(new(replier))
	return nil, gnet.None
}

// OnTraffic answers the requests that are complete. It is also called, without
// anything to read, while the last bytes of a connection wait to be sent.
func (s *replyServer) OnTraffic(c gnet.Conn) gnet.Action {
	p, ok := c.Context().(*replier)
	if !ok {
		return gnet.Close
	}
	data, _ := c.Next(-1) // fails on other numbers only
	for len(data) > 0 && !p.closing {
		r, rest, found, err := p.requests.next(data)
		if err != nil {
			s.faults.note(err)
			return gnet.Close
		}
		if !found {
			break
		}
		data = rest
		if !s.reply(c, r) {
			return gnet.Close
		}
		p.closing = r.close
	}
	if p.closing {
		return s.finish(c)
	}
	return gnet.None
}

// reply writes the reply; false: the connection is of no more use.
func (s *replyServer) reply(c gnet.Conn, r request) bool {
	if r.close && r.reply > 16<<10 {
		// So that the socket takes all of it, and there is nothing to wait for. It
		// may be refused, or be bounded by the kernel.
		_ = c.SetWriteBuffer(2 * r.reply)
	}
	for done := 0; done < r.reply; {
		n, err := c.Write(s.bytes.from(int(r.seed)+done, r.reply-done))
		if err != nil {
			return false
		}
		done += n
	}
	if c.OutboundBuffered() > mostUnsent {
		s.faults.note(fmt.Errorf("a client leaves more than %d bytes of replies unread", mostUnsent))
		return false
	}
	return true
}

// finish closes the connection once all is sent: gnet drops what is not when it
// closes, and does not tell when it is. So we ask again, soon.
func (s *replyServer) finish(c gnet.Conn) gnet.Action {
	if c.OutboundBuffered() == 0 {
		return gnet.Close
	}
	time.AfterFunc(200*time.Microsecond, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if !s.stopped {
			_ = c.Wake(nil)
		}
	})
	return gnet.None
}

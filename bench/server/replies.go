package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/panjf2000/gnet/v2"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/tprelay/tprelay/bench/protocol"
	"github.com/tprelay/tprelay/bench/worker"
)

// maxUnsent is how many bytes of replies the server keeps in memory for a client that does not
// read, before it closes the connection: gnet cannot stop reading.
const maxUnsent = protocol.MaxMessage

// replyServer answers requests, on gnet's loops.
type replyServer struct {
	gnet.BuiltinEventEngine
	payload protocol.Pattern
	faults  *worker.Faults

	booted chan gnet.Engine
	ended  chan struct{} // closed when it serves no more
	err    error         // why; set before that
	engine gnet.Engine

	mu      sync.Mutex
	stopped bool // loops must not be woken any more
}

// replier is the server's end of a connection.
type replier struct {
	requests protocol.RequestReader
	closing  bool // the last reply is written, and may not be sent yet
}

// startReplyServer returns when the server listens.
func startReplyServer(listen netip.AddrPort, threads int, f *worker.Faults) (*replyServer, error) {
	s := &replyServer{payload: protocol.NewPattern(64 << 10), faults: f, booted: make(chan gnet.Engine, 1), ended: make(chan struct{})}
	go func() {
		defer close(s.ended)
		// With SO_REUSEPORT each loop accepts by itself; without it gnet has one more loop, which
		// accepts for the others. A port that is taken then does not show here; it shows at the
		// port of the stream server.
		//
		// gnet's log must not go to standard output, which is for results. Its last error is kept,
		// since gnet does not return all of them.
		var last atomic.Pointer[string]
		log := zap.New(zapcore.NewCore(zapcore.NewJSONEncoder(zapcore.EncoderConfig{}), zapcore.AddSync(io.Discard), zap.ErrorLevel),
			zap.Hooks(func(e zapcore.Entry) error {
				last.Store(&e.Message)
				return nil
			}))
		s.err = gnet.Run(s, "tcp://"+listen.String(),
			gnet.WithMulticore(threads > 1), gnet.WithNumEventLoop(threads), gnet.WithReusePort(true),
			gnet.WithTCPNoDelay(gnet.TCPNoDelay), gnet.WithLogger(log.Sugar()))
		if why := last.Load(); s.err == nil && why != nil {
			s.err = fmt.Errorf("the reply server has ended: %s", *why)
		} else if s.err == nil {
			s.err = errors.New("the reply server has ended: it was told to")
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
	// Stop starts the shutdown. Its own wait is cut short; we wait for Run to return.
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

// OnTraffic answers the requests that are complete, and checks their payload. It is also called,
// with nothing to read, while the last bytes of a connection wait to be sent.
func (s *replyServer) OnTraffic(c gnet.Conn) gnet.Action {
	p, ok := c.Context().(*replier)
	if !ok {
		return gnet.Close
	}
	data, _ := c.Next(-1) // fails for other arguments only
	for len(data) > 0 && !p.closing {
		r, rest, found, err := p.requests.Next(data)
		if err != nil {
			s.faults.Note(err)
			return gnet.Close
		}
		if !found {
			break
		}
		data = rest
		if !s.reply(c, r) {
			return gnet.Close
		}
		p.closing = r.Close
	}
	if p.closing {
		return s.finish(c)
	}
	return gnet.None
}

// reply writes the reply. If it returns false, the connection has to be closed.
func (s *replyServer) reply(c gnet.Conn, r protocol.Request) bool {
	if r.Close && r.Reply > 16<<10 {
		// So that the socket takes all of it at once. The kernel may refuse or bound the size.
		_ = c.SetWriteBuffer(2 * r.Reply)
	}
	for done := 0; done < r.Reply; {
		n, err := c.Write(s.payload.From(int(r.Seed)+done, r.Reply-done))
		if err != nil {
			return false
		}
		done += n
	}
	if c.OutboundBuffered() > maxUnsent {
		s.faults.Note(fmt.Errorf("a client leaves more than %d bytes of replies unread", maxUnsent))
		return false
	}
	return true
}

// finish closes the connection once everything is sent: gnet drops unsent bytes when it closes, and
// does not report when they are sent. So finish looks again soon.
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

package pump

import (
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tprelay/tprelay/intercept"
	"github.com/tprelay/tprelay/internal/sock"
	"github.com/tprelay/tprelay/splice"
)

// patience is how long a test waits for what the kernel must do, in milliseconds.
const patience = 10_000

// tester is *testing.T, *testing.B or *rapid.T.
type tester interface {
	Helper()
	Cleanup(func())
	Errorf(string, ...any)
	Fatal(...any)
	Fatalf(string, ...any)
}

// rig is a pump between two TCP connections on loopback. The test holds their other ends, and
// calls what a loop would call.
type rig struct {
	Pump
	t              tester
	env            *Env
	count          Counters
	common         atomic.Int64
	ends           Ends
	client, server int // far ends of source and sink; -1: closed
	text           []byte
	sent, got      int // of text
}

// newRig connects a pump. Buffers are SO_SNDBUF of all sockets; 0 leaves them to the kernel.
func newRig(t tester, buffers int) *rig {
	t.Helper()
	r := &rig{Pump: New(), t: t}
	limits := splice.Limits{Size: 64 << 10, Pipes: 4, Keep: 4}
	large := limits
	large.Size = LargePipeSize
	r.env = &Env{
		Pipes: splice.NewPool(limits), LargePipes: splice.NewPool(large), PipeSize: limits.Size,
		Budget: Budget{Limit: 64 << 20, Common: &r.common}, Count: &r.count,
		High: 256 << 10, Low: 64 << 10,
	}
	r.env.Init()
	r.client, r.ends.Source = connection(t, buffers)
	r.ends.Sink, r.server = connection(t, buffers)
	r.text = make([]byte, 1<<20)
	for i := range r.text {
		r.text[i] = byte(i*7 + i>>8*13 + i>>16)
	}
	t.Cleanup(func() {
		r.Release(r.env)
		if r.ends.Tap != nil {
			r.ends.Tap.Drop(r.env)
		}
		r.env.Budget.Settle()
		if used := r.env.Budget.Used; used != 0 || r.common.Load() != 0 || r.count.Pending != 0 || r.env.Queues.InUse() != 0 {
			t.Errorf("left: %d bytes charged, %d by all, %d pending, %d queues", used, r.common.Load(), r.count.Pending, r.env.Queues.InUse())
		}
		for _, pool := range []*splice.Pool{r.env.Pipes, r.env.LargePipes} {
			if pool.Open() != pool.Idle() {
				t.Errorf("left: %d pipes of %d are lent", pool.Open()-pool.Idle(), pool.Open())
			}
			pool.Close()
		}
		for _, fd := range []int{r.client, r.server, r.ends.Source, r.ends.Sink} {
			if fd >= 0 {
				unix.Close(fd)
			}
		}
	})
	return r
}

// connection is a TCP connection over loopback, whose ends do not block.
func connection(t tester, buffers int) (near, far int) {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	listener, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	must(err)
	defer unix.Close(listener)
	must(unix.Bind(listener, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}))
	must(unix.Listen(listener, 1))
	at, err := unix.Getsockname(listener)
	must(err)
	near, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	must(err)
	must(unix.Connect(near, at))
	far, _, err = unix.Accept4(listener, unix.SOCK_CLOEXEC)
	must(err)
	for _, fd := range []int{near, far} {
		must(unix.SetNonblock(fd, true))
		must(unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1))
		if buffers > 0 {
			must(unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF, buffers))
		}
	}
	return near, far
}

// write sends up to n bytes of the text from the client, as many as its socket takes.
func (r *rig) write(n int) int {
	r.t.Helper()
	n, err := unix.SendmsgN(r.client, r.text[r.sent:min(r.sent+n, len(r.text))], nil, nil, unix.MSG_NOSIGNAL)
	if err == unix.EAGAIN {
		return 0
	}
	if err != nil {
		r.t.Fatalf("the client writes: %v", err)
	}
	r.sent += n
	return n
}

// arrive sends n bytes and waits until the source has them.
func (r *rig) arrive(n int) {
	r.t.Helper()
	for n > 0 {
		n -= r.write(n)
	}
	r.wait("bytes at the source", func() bool { return sock.Unsent(r.client) == 0 })
}

// read takes up to n bytes at the server, and compares. It reports how many, and whether the
// stream has ended with a FIN.
func (r *rig) read(n int) (got int, end bool) {
	r.t.Helper()
	b := make([]byte, 64<<10)
	for got < n {
		k, _, err := unix.Recvfrom(r.server, b[:min(n-got, len(b))], 0)
		if err == unix.EAGAIN {
			return got, false
		}
		if err != nil {
			r.t.Fatalf("the server reads: %v", err)
		}
		if k == 0 {
			return got, true
		}
		for i, c := range b[:k] {
			if r.got+i >= r.sent || c != r.text[r.got+i] {
				r.t.Fatalf("byte %d of %d sent is another", r.got+i, r.sent)
			}
		}
		r.got += k
		got += k
	}
	return got, false
}

// events sets the latches, as epoll would.
func (r *rig) events() {
	fds := []unix.PollFd{{Fd: int32(r.ends.Source), Events: unix.POLLIN | unix.POLLRDHUP}, {Fd: int32(r.ends.Sink), Events: unix.POLLOUT}}
	if _, err := unix.Poll(fds, 0); err != nil {
		return
	}
	if fds[0].Revents != 0 {
		r.MayRead()
	}
	if fds[0].Revents&unix.POLLRDHUP != 0 {
		r.WillEnd()
	}
	if fds[1].Revents != 0 {
		r.MayWrite()
	}
}

// over are the events at which a turn ends.
const over = SinkFailed | HandlerReset | Inconsistent

// turn gives the pump a turn, goes on where it was broken off, and checks the pump.
func (r *rig) turn() Result {
	r.t.Helper()
	result := r.Turn(r.env, r.ends, 0)
	for result.Has(BrokenOff) && !result.Has(over) {
		r.Set(Metered)
		next := r.Turn(r.env, r.ends, result.Taken)
		for path, n := range result.Delivered {
			next.Delivered[path] += n
		}
		next.Events |= result.Events &^ BrokenOff
		result = next
	}
	if err := r.Check(r.env); err != nil {
		r.t.Fatalf("%v (%v)", err, &r.Pump)
	}
	return result
}

// settle turns until both latches are down or nothing more can be moved.
func (r *rig) settle() (all Events) {
	r.t.Helper()
	for {
		r.events()
		result := r.turn()
		all |= result.Events
		if !result.Has(Again) {
			return all
		}
	}
}

// wait waits for what the kernel does by itself.
func (r *rig) wait(what string, ok func() bool) {
	r.t.Helper()
	for range patience {
		if ok() {
			return
		}
		_, _ = unix.Poll(nil, 1)
	}
	r.t.Fatalf("never came: %s (%v, %d pending)", what, &r.Pump, r.Pending)
}

// fillSink has the sink take no more, and the server nothing.
func (r *rig) fillSink() (filled int) {
	zeroes := make([]byte, 64<<10)
	for {
		n, err := unix.Write(r.ends.Sink, zeroes)
		if err != nil {
			return filled
		}
		filled += n
	}
}

// reset closes a far end with an RST, and waits until the near one knows.
func (r *rig) reset(far *int, near int) {
	r.t.Helper()
	sock.CloseWithRST(*far)
	*far = -1
	r.wait("RST", func() bool {
		fds := []unix.PollFd{{Fd: int32(near), Events: unix.POLLIN}}
		_, _ = unix.Poll(fds, 0)
		return fds[0].Revents&(unix.POLLERR|unix.POLLHUP) != 0
	})
}

// handle puts a handler on the pump.
func (r *rig) handle(h intercept.Handler) {
	tap := NewTap(h)
	r.ends.Tap = &tap
	r.Set(Handled)
}

// paths are all ways that bytes can travel.
var paths = map[string]func(*rig){
	"splice": func(*rig) {},
	"pipe":   func(r *rig) { r.Set(Bulk | Metered) },
	"large pipe": func(r *rig) {
		r.Set(Bulk | Metered | Moderated)
	},
	"one-page pipe": func(r *rig) {
		r.env.Pipes = splice.NewPool(splice.Limits{Size: 4096, Pipes: 4, Keep: 4})
		r.env.PipeSize = 4096
		r.Set(Bulk | Metered)
	},
	"no pipes": func(r *rig) {
		r.env.NoPipes = true
		r.Set(Bulk | Metered)
	},
	"queue": func(r *rig) { r.env.NoSplice = true },
	"sink that refuses splice": func(r *rig) {
		_, _ = unix.FcntlInt(uintptr(r.ends.Sink), unix.F_SETFL, unix.O_NONBLOCK|unix.O_APPEND)
		r.Set(Bulk | Metered)
	},
	"handler": func(r *rig) {
		r.handle(intercept.HandlerFunc(func(*intercept.Chunk) intercept.Verdict { return intercept.Forward }))
	},
	"handler that holds back": func(r *rig) {
		r.handle(intercept.HandlerFunc(func(c *intercept.Chunk) intercept.Verdict {
			whole := len(c.Data) / 30_000 * 30_000
			c.Write(c.Data[:whole])
			c.Data = c.Data[whole:]
			return intercept.Hold
		}))
	},
	"handler that detaches": func(r *rig) {
		seen := 0
		r.handle(intercept.HandlerFunc(func(c *intercept.Chunk) intercept.Verdict {
			if seen += len(c.Data); seen > 100_000 {
				return intercept.Detach
			}
			return intercept.Forward
		}))
	},
	"no memory": func(r *rig) { r.env.Budget.Limit = 0 },
	"throttled": func(r *rig) {
		r.Set(Throttled)
		r.PendingLimit = 20_000
		_ = unix.SetsockoptInt(r.ends.Sink, unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT, 20_000)
	},
}

func onEveryPath(t *testing.T, f func(t *testing.T, prepare func(*rig))) {
	for name, prepare := range paths {
		t.Run(name, func(t *testing.T) { f(t, prepare) })
	}
}

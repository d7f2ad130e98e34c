package engine_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tprelay/tprelay/engine"
	"github.com/tprelay/tprelay/engine/internal/handover"
	"github.com/tprelay/tprelay/engine/internal/handover/handovertest"
	"github.com/tprelay/tprelay/internal/streamcheck"
)

// handOverThrough hands over through m to an engine with these options, which runs. done gives the
// error of HandOver.
func (r *rig) handOverThrough(m *handovertest.Middle, o engine.Options) (done <-chan error, after *rig) {
	r.t.Helper()
	done = r.beginHandOver(context.Background(), m)
	o.Listeners = []engine.Listener{r.listener}
	e, err := engine.TakeOver(context.Background(), o, m.New)
	if err != nil {
		r.t.Fatal(err)
	}
	return done, r.successor(e)
}

// TestNewEngineAcceptsNobodyBeforeTheHandOverIsDone: the old engine accepts new clients. Those that
// connect after it has stopped wait in the backlog, so that the new engine's descriptors go to
// pairs that come over.
func TestNewEngineAcceptsNobodyBeforeTheHandOverIsDone(t *testing.T) {
	r := newRig(t, engine.Options{})
	client, server := r.pair()
	held, goOn := make(chan struct{}), make(chan struct{})
	m := newMiddle(t, func(_ handovertest.Way, _ int, f *handovertest.Frame) int {
		if f.Kind == handover.KindDone {
			close(held)
			<-goOn
		}
		return handovertest.Whole
	})
	done, after := r.handOverThrough(m, engine.Options{})
	<-held
	newcomer := r.dial() // the backlog takes it
	ticks := after.Stats().Waits
	after.until("ticks", func(s engine.Stats) bool { return s.Waits > ticks+3 })
	if s := after.Stats(); s.Accepted != 0 {
		t.Errorf("%d accepted in the middle of the hand-over", s.Accepted)
	}
	close(goOn)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	exchange(t, newcomer, r.accept(), noise(100))
	exchange(t, client, server, noise(100))
	if s := after.Stats(); s.Accepted != 1 || s.TakenOver != 1 {
		t.Errorf("%d accepted, %d taken over", s.Accepted, s.TakenOver)
	}
	client.Close()
	server.Close()
	newcomer.Close()
	m.Close()
	after.end()
}

// TestTakeOverRefusesWhatTheDescriptorLimitCannotHold before anything has moved: the old engine
// goes on with all pairs.
func TestTakeOverRefusesWhatTheDescriptorLimitCannotHold(t *testing.T) {
	r := newRig(t, engine.Options{})
	var pairs [20][2]*net.TCPConn
	for i := range pairs {
		pairs[i][0], pairs[i][1] = r.pair()
	}
	a, b := linkPair(t)
	defer a.Close()
	done := make(chan error, 1)
	ended := 0
	go func() {
		_, err := r.HandOver(t.Context(), a, func() { ended++ })
		done <- err
	}()
	var before unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &before); err != nil {
		t.Fatal(err)
	}
	low := before
	low.Cur = uint64(openDescriptors() + 30) // for 15 pairs at most
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &low); err != nil {
		t.Fatal(err)
	}
	_, err := engine.TakeOver(t.Context(), engine.Options{Loops: 1, Listeners: []engine.Listener{r.listener}}, b)
	if limitErr := unix.Setrlimit(unix.RLIMIT_NOFILE, &before); limitErr != nil {
		t.Fatal(limitErr)
	}
	if err == nil {
		t.Error("it was not refused")
	}
	b.Close()
	if err := <-done; err == nil || ended != 1 {
		t.Errorf("%v; the other side was ended %d times", err, ended)
	}
	for _, pair := range pairs {
		exchange(t, pair[0], pair[1], []byte("still here?"))
	}
	if s := r.Stats(); s.HandedOver != 0 {
		t.Errorf("%d handed over", s.HandedOver)
	}
}

// TestLastCloseOfAHandedOverPairResets: in every state of a pair that no engine serves any more,
// the close of its last descriptor resets both ends.
func TestLastCloseOfAHandedOverPairResets(t *testing.T) {
	var sending <-chan error
	for name, prepare := range map[string]func(client, server *net.TCPConn){
		"idle":                   func(client, server *net.TCPConn) {},
		"the client's FIN sent":  func(client, server *net.TCPConn) { client.CloseWrite(); expect(t, "server", server, nil) },
		"the server's FIN sent":  func(client, server *net.TCPConn) { server.CloseWrite(); expect(t, "client", client, nil) },
		"bytes pending upstream": func(client, server *net.TCPConn) { sending = sendAll(client, noise(16<<20), false) },
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, engine.Options{})
			client, server := r.pair()
			exchange(t, client, server, noise(100))
			prepare(client, server)
			if name == "bytes pending upstream" {
				r.until("full", func(s engine.Stats) bool { return s.Pauses > 0 })
			}
			var kept []int
			m := newMiddle(t, func(_ handovertest.Way, _ int, f *handovertest.Frame) int {
				if f.Kind == handover.KindPair { // as a process that is killed holds them
					for _, fd := range f.FDs {
						dup, _ := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
						kept = append(kept, dup)
					}
				}
				if f.Kind == handover.KindCommit {
					return 0 // lost, and the new engine closes what it held
				}
				return handovertest.Whole
			})
			done, after := r.handOverThrough(m, engine.Options{})
			<-done
			m.Close()
			after.end()
			client.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
			if name == "idle" {
				if _, err := client.Read(make([]byte, 1)); err == nil || !err.(net.Error).Timeout() {
					t.Errorf("while somebody holds it: %v", err)
				}
			}
			client.SetReadDeadline(time.Now().Add(patience))
			for _, fd := range kept {
				unix.Close(fd)
			}
			for who, c := range map[string]*net.TCPConn{"client": client, "server": server} {
				one := make([]byte, 64<<10)
				for {
					n, err := c.Read(one)
					if n > 0 {
						continue
					}
					if name == "the client's FIN sent" && who == "server" || name == "the server's FIN sent" && who == "client" {
						// It has its FIN already; the reset shows when it writes.
						for err = error(nil); err == nil; time.Sleep(time.Millisecond) {
							_, err = c.Write(one[:1])
						}
					}
					if name == "bytes pending upstream" && who == "client" {
						if wrote := <-sending; isReset(wrote) {
							err = wrote // a socket reports its reset once: to the write, or to the read
						}
					}
					if err == nil || !isReset(err) {
						t.Errorf("%s: %v, want a reset", who, err)
					}
					break
				}
			}
		})
	}
}

func isReset(err error) bool { return errors.Is(err, unix.ECONNRESET) || errors.Is(err, unix.EPIPE) }

// TestDescriptorsRunOutInTheMiddleOfAHandOver runs itself, to have a limit of its own: the kernel
// drops descriptors that the new engine has no numbers for. The new engine ends and names the
// limit. The old one goes on with every pair that it had not given away.
func TestDescriptorsRunOutInTheMiddleOfAHandOver(t *testing.T) {
	if os.Getenv("TPRELAY_TEST_CTRUNC") == "" {
		cmd := exec.Command("/proc/self/exe", "-test.run=^TestDescriptorsRunOutInTheMiddleOfAHandOver$", "-test.v", "-test.timeout=120s")
		cmd.Env = append(os.Environ(), "TPRELAY_TEST_CTRUNC=1")
		if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "--- PASS") {
			t.Fatalf("%v\n%s", err, out)
		}
		return
	}
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	left := 0
	o := engine.Options{Loops: 1, Observer: engine.Observer{PairEnded: func(i engine.PairInfo) {
		if i.Reason != engine.ReasonHandedOver {
			return
		}
		if left++; left == 1 {
			unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 3, Max: limit.Max}) // for what comes next
		}
	}}}
	r := newRig(t, o)
	var streams []*streamcheck.Stream
	for range 40 {
		client, server := r.pair()
		streams = append(streams, streamcheck.Begin(client, server, streamcheck.Options{}))
	}
	a, b := linkPair(t)
	defer a.Close()
	ran, handed := make(chan error, 1), make(chan struct{})
	var handErr, runErr error
	go func() {
		defer close(handed)
		_, handErr = r.HandOver(t.Context(), a, func() {
			if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
				t.Error(err)
			}
			runErr = <-ran
		})
	}()
	next, err := engine.TakeOver(t.Context(), engine.Options{Loops: 1, Listeners: []engine.Listener{r.listener}}, b)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	go func() {
		<-handed
		stop()
	}()
	ran <- next.Run(ctx)
	<-handed
	if handErr == nil || !strings.Contains(handErr.Error(), "(after 16 pairs had moved)") {
		t.Errorf("HandOver: %v", handErr)
	}
	if runErr == nil || !strings.Contains(runErr.Error(), "ulimit -n") {
		t.Errorf("Run: %v", runErr)
	}
	resets := 0
	for i, s := range streams {
		if err := s.Progress(patience); err != nil {
			t.Errorf("stream %d: %v", i, err)
		}
		reset, err := s.Outcome()
		if err != nil {
			t.Errorf("stream %d: %v", i, err)
		}
		if reset {
			resets++
		}
	}
	client, server := r.pair()
	exchange(t, client, server, noise(100))
	if in := next.Stats().TakenOver; resets != 16 || in != 16 {
		t.Errorf("%d streams were reset, %d taken over", resets, in)
	}
}

// TestNewcomersWaitWhenTheNewEngineIsFull: the new engine says how many pairs it has descriptors
// for. The old one accepts no more than that, although pairs that leave free descriptors there.
func TestNewcomersWaitWhenTheNewEngineIsFull(t *testing.T) {
	const pairsBefore = 20
	r := newRig(t, engine.Options{Loops: 1})
	var pairs [pairsBefore][2]*net.TCPConn
	for i := range pairs {
		pairs[i][0], pairs[i][1] = r.pair()
	}
	newcomers := make(chan *net.TCPConn, 2)
	m := newMiddle(t, func(_ handovertest.Way, _ int, f *handovertest.Frame) int {
		switch f.Kind {
		case handover.KindReady:
			head := f.Bytes[len("TPRR")+8:]
			copy(head, fmt.Sprintf(`{"Room":%-*d}`, len(head)-len(`{"Room":}`), pairsBefore+1))
		case handover.KindAck:
			if len(newcomers) < cap(newcomers) { // the second one comes when pairs have left
				newcomers <- r.dial()
				in := uint64(pairsBefore + len(newcomers))
				r.until("accepted or held", func(s engine.Stats) bool { return s.Accepted == in || s.AcceptPauses > 0 })
			}
		}
		return handovertest.Whole
	})
	done, after := r.handOverThrough(m, engine.Options{Loops: 1})
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	for range cap(newcomers) {
		exchange(t, <-newcomers, r.accept(), noise(100))
	}
	if s := after.Stats(); s.TakenOver != pairsBefore+1 || s.Accepted != 1 {
		t.Errorf("%d taken over, %d accepted", s.TakenOver, s.Accepted)
	}
	for _, pair := range pairs {
		exchange(t, pair[0], pair[1], noise(100))
		pair[0].Close()
		pair[1].Close()
	}
	m.Close()
	after.end()
}

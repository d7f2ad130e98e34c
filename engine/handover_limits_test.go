package engine_test

import (
	"errors"
	"net"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tprelay/tprelay/engine"
)

// TestNewEngineAcceptsNobodyBeforeTheHandOverIsDone: newcomers are the old engine's, and those who
// come when it has stopped wait in the backlog, so that descriptors are there for what comes over.
func TestNewEngineAcceptsNobodyBeforeTheHandOverIsDone(t *testing.T) {
	r := newRig(t, engine.Options{})
	client, server := r.pair()
	held, goOn := make(chan struct{}), make(chan struct{})
	m := newMiddle(t, func(way, _ int, f engine.Frame) int {
		if f.Kind == 'D' {
			close(held)
			<-goOn
		}
		return -1
	})
	done := make(chan error, 1)
	go func() {
		_, err := r.HandOver(m.old, nil)
		done <- err
	}()
	e, err := engine.TakeOver(engine.Options{Listeners: []engine.Listener{r.listener}}, m.new)
	if err != nil {
		t.Fatal(err)
	}
	after := *r
	after.Engine = e
	after.run()
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
	m.close()
	after.end()
}

// TestTakeOverRefusesWhatTheDescriptorLimitCannotHold: before anything has moved, so that the old
// engine goes on with all pairs.
func TestTakeOverRefusesWhatTheDescriptorLimitCannotHold(t *testing.T) {
	r := newRig(t, engine.Options{})
	var pairs [20][2]*net.TCPConn
	for i := range pairs {
		pairs[i][0], pairs[i][1] = r.pair()
	}
	a, b := socketpair(t)
	defer unix.Close(a)
	done := make(chan error, 1)
	ended := 0
	go func() {
		_, err := r.HandOver(a, func() { ended++ })
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
	_, err := engine.TakeOver(engine.Options{Loops: 1, Listeners: []engine.Listener{r.listener}}, b)
	if limitErr := unix.Setrlimit(unix.RLIMIT_NOFILE, &before); limitErr != nil {
		t.Fatal(limitErr)
	}
	if err == nil {
		t.Error("it was not refused")
	}
	unix.Close(b)
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

// TestLastCloseOfAHandedOverPairResets: in every state, whoever closes the last descriptor of a pair
// that is not served any more resets both ends.
func TestLastCloseOfAHandedOverPairResets(t *testing.T) {
	var sending <-chan error
	for name, prepare := range map[string]func(client, server *net.TCPConn){
		"idle":                   func(client, server *net.TCPConn) {},
		"the client's FIN sent":  func(client, server *net.TCPConn) { client.CloseWrite(); expectEOF(t, server) },
		"the server's FIN sent":  func(client, server *net.TCPConn) { server.CloseWrite(); expectEOF(t, client) },
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
			m := newMiddle(t, func(_, _ int, f engine.Frame) int {
				if f.Kind == 'P' { // as a process that is killed holds them
					for _, fd := range f.FDs {
						dup, _ := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
						kept = append(kept, dup)
					}
				}
				if f.Kind == 'C' {
					return 0 // lost, and the new engine closes what it held
				}
				return -1
			})
			done := make(chan error, 1)
			go func() {
				_, err := r.HandOver(m.old, nil)
				done <- err
			}()
			e, err := engine.TakeOver(engine.Options{Listeners: []engine.Listener{r.listener}}, m.new)
			if err != nil {
				t.Fatal(err)
			}
			after := *r
			after.Engine = e
			after.run()
			<-done
			m.close()
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

func expectEOF(t *testing.T, c *net.TCPConn) {
	t.Helper()
	if n, err := c.Read(make([]byte, 1)); n != 0 || err == nil {
		t.Errorf("%d bytes, %v", n, err)
	}
}

func isReset(err error) bool { return errors.Is(err, unix.ECONNRESET) || errors.Is(err, unix.EPIPE) }

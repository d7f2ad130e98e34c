package main

import (
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tprelay/tprelay/internal/streamcheck"
)

// killsVariable says how many upgrades TestKilledUpgradesLeaveStreamsWholeOrReset kills.
const killsVariable = "TPRELAY_KILLS"

// begin begins a two-way stream whose ends check every byte that comes. Full: bytes are pending in
// the relay.
func begin(client, server *net.TCPConn, full bool) *streamcheck.Stream {
	for _, c := range []*net.TCPConn{client, server} {
		c.SetDeadline(time.Now().Add(time.Minute))
	}
	return streamcheck.Begin(client, server, streamcheck.Options{Full: full})
}

// childOf waits for the new program that a process starts, for a while. 0: there is none. When its
// parent has ended, it is this process's child.
func childOf(pid int, patience time.Duration) int {
	for end := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		paths, _ := filepath.Glob("/proc/[0-9]*/stat")
		for _, path := range paths {
			text, _ := os.ReadFile(path) // the process may have ended
			_, rest, ok := strings.Cut(string(text), ") ")
			// Go's first StartProcess begins with a child that only tries something out.
			environ, _ := os.ReadFile(filepath.Join(filepath.Dir(path), "environ"))
			if fields := strings.Fields(rest); ok && (fields[1] == strconv.Itoa(pid) || fields[1] == strconv.Itoa(os.Getpid())) && strings.Contains(string(environ), inheritVariable+"=") {
				child, _ := strconv.Atoi(filepath.Base(filepath.Dir(path)))
				return child
			}
		}
		if time.Now().After(end) {
			return 0
		}
	}
}

// TestKilledUpgradesLeaveStreamsWholeOrReset ends the old or the new program with kill -9 at random
// moments of an upgrade. Each two-way stream arrives whole, or is reset at both ends.
func TestKilledUpgradesLeaveStreamsWholeOrReset(t *testing.T) {
	rounds := 12
	if text := os.Getenv(killsVariable); text != "" {
		var err error
		if rounds, err = strconv.Atoi(text); err != nil {
			t.Fatal(err)
		}
	}
	var whole time.Duration // that nobody kills
	t.Run("whole", func(t *testing.T) {
		p := talkThrough(t)
		began := time.Now()
		p.upgrade()
		whole = time.Since(began)
		p.stop()
		for _, s := range p.streams {
			if reset, err := s.Outcome(); reset || err != nil {
				t.Errorf("reset: %v, %v", reset, err)
			}
		}
	})
	tally := map[string]int{}
	for i := range rounds {
		t.Run(strconv.Itoa(i), func(t *testing.T) { killUpgrade(t, i%2 == 0, whole, tally) })
	}
	t.Logf("%d rounds: %v", rounds, tally)
}

// conversation is a program with two-way streams through it.
type conversation struct {
	*lineage
	address any
	server  *net.TCPListener
	streams []*streamcheck.Stream
}

// stop lets all streams end.
func (p *conversation) stop() {
	for _, s := range p.streams {
		s.Stop()
	}
}

// converse starts a program, with more args.
func converse(t *testing.T, args ...string) *conversation {
	server := listenHere(t)
	p := &conversation{lineage: follow(watch(t, command(t, forwardTo(server.Addr(), args...)...))), server: server}
	p.address = p.line("listening")["address"]
	return p
}

// talkThrough starts a program and two-way streams through it.
func talkThrough(t *testing.T) *conversation {
	p := converse(t)
	for i := range 64 {
		client, end := pair(t, p.address, p.server)
		p.streams = append(p.streams, begin(client, end, i%16 == 0))
	}
	return p
}

func killUpgrade(t *testing.T, old bool, whole time.Duration, tally map[string]int) {
	p := talkThrough(t)
	go func() { // nobody waits for a line
		for p.stderr.Scan() {
		}
	}()
	began := time.Now()
	p.kill(unix.SIGUSR2)
	next := childOf(p.pid, 10*time.Second)
	if next == 0 {
		t.Fatal("no new program")
	}
	t.Cleanup(func() {
		unix.Kill(next, unix.SIGKILL) // not reaped yet, so its number is nobody else's
		unix.Wait4(next, nil, 0, nil)
	})
	// Most of the time goes before the new program runs; what is interesting comes at the end.
	at := whole/3 + time.Duration(rand.Int64N(int64(whole)))
	time.Sleep(at - time.Since(began))
	what := "new"
	if old {
		what = "old"
		unix.Kill(p.pid, unix.SIGKILL)
	} else {
		unix.Kill(next, unix.SIGKILL)
	}
	time.Sleep(20 * time.Millisecond) // bytes flow on what is left
	p.stop()
	resets := 0
	for i, s := range p.streams {
		reset, err := s.Outcome()
		if err != nil {
			t.Errorf("%s killed after %v: stream %d: %v", what, at, i, err)
		}
		if reset {
			resets++
		}
	}
	switch resets {
	case 0:
		tally[what+" killed, all whole"]++
	case len(p.streams):
		tally[what+" killed, all reset"]++
	default:
		tally[what+" killed, some of each"]++
	}
	tally["streams whole"] += len(p.streams) - resets
	tally["streams reset"] += resets
}

package main

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// killsVariable says how many upgrades TestKilledUpgradesLeaveStreamsWholeOrReset kills.
const killsVariable = "TPRELAY_KILLS"

// talkText tells every place in a stream: its period is a prime.
var talkText = func() []byte {
	b := make([]byte, 65521)
	rand.NewChaCha8([32]byte{1}).Read(b)
	return b
}()

// talk is a two-way stream whose ends check every byte that comes.
type talk struct {
	ends      [2]*net.TCPConn
	full      bool // its writers do not pause and its readers are slow, so that bytes are pending
	stop      chan struct{}
	wg        sync.WaitGroup
	sent, got [2]atomic.Int64
	errs      [2][2]error // of each end's writing, reading
}

func talkOn(client, server *net.TCPConn, full bool, stop chan struct{}) *talk {
	k := &talk{ends: [2]*net.TCPConn{client, server}, full: full, stop: stop}
	for i, c := range k.ends {
		c.SetDeadline(time.Now().Add(time.Minute))
		k.wg.Go(func() { k.errs[i][0] = k.write(i) })
		k.wg.Go(func() { k.errs[i][1] = k.read(i) })
	}
	return k
}

func talkAt(end int, place int64, n int) []byte {
	from := int((place + int64(end)*7919) % int64(len(talkText)))
	return talkText[from:min(from+n, len(talkText))]
}

func (k *talk) write(end int) error {
	for {
		n, err := k.ends[end].Write(talkAt(end, k.sent[end].Load(), 4<<10))
		k.sent[end].Add(int64(n))
		if err != nil {
			return err
		}
		if k.over(!k.full) {
			return k.ends[end].CloseWrite()
		}
	}
}

// over reports whether the stream is to end; before that it pauses for the other streams' sake, or
// for its own writer to get ahead.
func (k *talk) over(pause bool) bool {
	if pause {
		select {
		case <-k.stop:
			return true
		case <-time.After(time.Millisecond):
			return false
		}
	}
	select {
	case <-k.stop:
		return true
	default:
		return false
	}
}

func (k *talk) read(end int) error {
	b := make([]byte, 16<<10)
	for {
		n, err := k.ends[end].Read(b)
		for rest := b[:n]; len(rest) > 0; {
			place := k.got[end].Load()
			want := talkAt(1-end, place, len(rest))
			if string(want) != string(rest[:len(want)]) {
				return fmt.Errorf("wrong bytes from byte %d on", place)
			}
			k.got[end].Add(int64(len(want)))
			rest = rest[len(want):]
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if k.full {
			k.over(true)
		}
	}
}

// outcome waits for the end of the stream: reset at both ends, or whole. An error says what it was
// otherwise.
func (k *talk) outcome() (reset bool, err error) {
	k.wg.Wait()
	var resets [2]bool
	for end, errs := range k.errs {
		for _, err := range errs {
			switch {
			case errors.Is(err, unix.ECONNRESET), errors.Is(err, unix.EPIPE):
				resets[end] = true
			case err != nil && !errors.Is(err, unix.ENOTCONN):
				return false, fmt.Errorf("end %d: %w", end, err)
			}
		}
	}
	if resets[0] != resets[1] {
		return false, fmt.Errorf("a reset at one end, and not at the other: %v", k.errs)
	}
	for end := range k.ends {
		if sent, got := k.sent[1-end].Load(), k.got[end].Load(); !resets[0] && got != sent {
			return false, fmt.Errorf("end %d: %d bytes and a clean end; %d were sent", end, got, sent)
		}
	}
	return resets[0], nil
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
		close(p.stop)
		for _, k := range p.talks {
			if reset, err := k.outcome(); reset || err != nil {
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
	talks   []*talk
	stop    chan struct{}
}

// converse starts a program, with more args.
func converse(t *testing.T, args ...string) *conversation {
	server := listenHere(t)
	p := &conversation{lineage: follow(watch(t, command(t, forwardTo(server.Addr(), args...)...))), server: server, stop: make(chan struct{})}
	p.address = p.line("listening")["address"]
	return p
}

// talkThrough starts a program and two-way streams through it.
func talkThrough(t *testing.T) *conversation {
	p := converse(t)
	for i := range 64 {
		client, end := pair(t, p.address, p.server)
		p.talks = append(p.talks, talkOn(client, end, i%16 == 0, p.stop))
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
	close(p.stop)
	resets := 0
	for i, k := range p.talks {
		reset, err := k.outcome()
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
	case len(p.talks):
		tally[what+" killed, all reset"]++
	default:
		tally[what+" killed, some of each"]++
	}
	tally["streams whole"] += len(p.talks) - resets
	tally["streams reset"] += resets
}

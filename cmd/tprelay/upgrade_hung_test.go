package main

import (
	"fmt"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// idle is how many connections that say nothing move before the streams, and behind them: they
// make an upgrade last.
const idle = 300

// converseAmongIdle starts a program, and two-way streams among idle connections, which are given
// back. Pairs move in the order in which they came.
func converseAmongIdle(t *testing.T, args ...string) (p *conversation, silent []net.Conn) {
	p = converse(t, args...)
	var streams [][2]*net.TCPConn
	for i := range idle + 64 + idle {
		client, server := pair(t, p.address, p.server)
		if i < idle || i >= idle+64 {
			silent = append(silent, client, server)
		} else {
			streams = append(streams, [2]*net.TCPConn{client, server})
		}
	}
	for i, ends := range streams {
		p.streams = append(p.streams, begin(ends[0], ends[1], i%16 == 0))
	}
	return p, silent
}

// upgradeHalfWay begins an upgrade, and calls halt with the number of the new program when about
// half of the streams have come over. It finds out by the new program's descriptors.
func (p *conversation) upgradeHalfWay(halt func(next int)) (next int) {
	p.t.Helper()
	p.kill(unix.SIGUSR2)
	if next = childOf(p.pid, 10*time.Second); next == 0 {
		p.t.Fatal("no new program")
	}
	p.t.Cleanup(func() {
		unix.Kill(next, unix.SIGKILL) // not reaped yet, so its number is nobody else's
		unix.Wait4(next, nil, 0, nil)
	})
	const some = 2*idle + 64 + 16 // the program's own are the last ones
	for end := time.Now().Add(10 * time.Second); ; {
		open, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", next))
		if err != nil || time.Now().After(end) {
			p.t.Fatalf("%d descriptors, not %d over: %v", len(open), some, err)
		}
		if len(open) >= some {
			halt(next)
			return next
		}
	}
}

// finish passes a newcomer's bytes, and ends the streams and the program. Streams are whole, or
// reset at both ends.
func (p *conversation) finish(silent []net.Conn) (resets int) {
	p.t.Helper()
	client, server := pair(p.t, p.address, p.server)
	pass(p.t, client, server, "new")
	pass(p.t, server, client, "new")
	client.Close()
	server.Close()
	for _, c := range silent {
		c.Close()
	}
	p.stop()
	for i, s := range p.streams {
		reset, err := s.Outcome()
		if err != nil {
			p.t.Errorf("stream %d: %v", i, err)
		}
		if reset {
			resets++
		}
	}
	p.t.Logf("%d of %d streams were reset", resets, len(p.streams))
	if status := p.end(); status != 0 {
		p.t.Errorf("status %d:\n%s", status, strings.Join(p.seen, "\n"))
	}
	return resets
}

// TestHungNewProgramIsEnded: a new program that hangs with pairs in flight is ended after
// --upgrade-timeout, and the old one goes on with all pairs that it had not given away.
func TestHungNewProgramIsEnded(t *testing.T) {
	p, silent := converseAmongIdle(t, "--upgrade-timeout", "4s")
	next := p.upgradeHalfWay(func(next int) { unix.Kill(next, unix.SIGSTOP) })
	serving, why := p.upgradeEnds()
	if serving != 0 { // it had everything when it was stopped
		t.Log("it was stopped too late")
		unix.Kill(next, unix.SIGCONT)
		p.reap(p.pid)
		p.pid = serving
	} else {
		if !strings.Contains(why, "has not taken over within 4s and was ended; see --upgrade-timeout") {
			t.Errorf("the log says: %s", why)
		}
		if children := childrenOf(t, p.pid); children != "" {
			t.Errorf("processes are left: %s", children)
		}
	}
	p.finish(silent)
}

// TestHungOldProgram: the old program stands still in the middle of an upgrade. When it goes on, so
// does the upgrade; when it is killed, the new program serves what it has, and newcomers.
func TestHungOldProgram(t *testing.T) {
	for _, killed := range []bool{false, true} {
		t.Run(fmt.Sprintf("killed %v", killed), func(t *testing.T) {
			p, silent := converseAmongIdle(t)
			old := p.pid
			next := p.upgradeHalfWay(func(int) { unix.Kill(old, unix.SIGSTOP) })
			time.Sleep(100 * time.Millisecond) // that it hangs for; the new program goes on with what it has
			if killed {
				unix.Kill(old, unix.SIGKILL)
				p.reap(old)
				p.pid = next
			} else {
				unix.Kill(old, unix.SIGCONT)
				serving, why := p.upgradeEnds()
				if serving == 0 {
					t.Fatalf("the upgrade failed: %s", why)
				}
				if status := p.reap(old); status != 0 {
					t.Errorf("the old program ended with status %d", status)
				}
				p.pid = serving
			}
			if resets := p.finish(silent); resets > 0 && !killed {
				t.Errorf("%d streams were reset", resets)
			}
		})
	}
}

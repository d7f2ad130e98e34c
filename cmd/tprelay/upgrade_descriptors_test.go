package main

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tprelay/tprelay/internal/streamcheck"
)

// limited makes a command start with a limit for descriptors, which it cannot raise.
func limited(cmd *exec.Cmd, descriptors int) *exec.Cmd {
	cmd.Args = append([]string{"sh", "-c", `ulimit -n "$0" && exec "$@"`, strconv.Itoa(descriptors), cmd.Path}, cmd.Args[1:]...)
	cmd.Path = "/bin/sh"
	return cmd
}

// crowd connects many clients at once, more than a relay can serve. When one is served, its stream
// begins and is sent to the channel.
func crowd(t *testing.T, address any, server *net.TCPListener, clients int) <-chan *streamcheck.Stream {
	t.Helper()
	served := make(chan *streamcheck.Stream, clients)
	dialed := make([]*net.TCPConn, clients)
	for i := range dialed {
		dialed[i] = dial(t, address) // the backlog takes it
		if err := binary.Write(dialed[i], binary.BigEndian, uint32(i)); err != nil {
			t.Fatal(err)
		}
	}
	go func() {
		for {
			c, err := server.AcceptTCP()
			if err != nil {
				return // the test has ended
			}
			go func() {
				var who [4]byte
				if _, err := io.ReadFull(c, who[:]); err != nil {
					c.Close() // its client is missed
					return
				}
				served <- begin(dialed[binary.BigEndian.Uint32(who[:])], c, false)
			}()
		}
	}()
	return served
}

// TestUpgradeWithDescriptorsUsedUp: the old program has used up its descriptors, and clients wait
// in the backlog. Descriptors that come free in the old program as pairs leave must not let in more
// pairs than the new one has room for. The limit may also be lowered below what the old one needs
// for an upgrade, or what the new one needs to start. Whether the upgrade succeeds or fails, no
// connection is reset, none loses a byte, and the clients in the backlog are served in the end.
func TestUpgradeWithDescriptorsUsedUp(t *testing.T) {
	const limit, clients = 160, 150
	for _, spare := range []int{limit, 0, 4, 8} {
		t.Run(fmt.Sprintf("%d spare", spare), func(t *testing.T) {
			server := listenHere(t)
			p := follow(watch(t, limited(command(t, forwardTo(server.Addr(), "--admin", "127.0.0.1:0", "--upgrade-timeout", "20s")...), limit)))
			url := p.line("admin")["url"].(string)
			served := crowd(t, p.line("listening")["address"], server, clients)
			for pauses := regexp.MustCompile(`(?m)^tprelay_accept_pauses_total [1-9]`); !pauses.MatchString(get(t, url+"metrics")); {
				time.Sleep(time.Millisecond)
			}
			if spare < limit {
				lowest := uint64(lowestFree(t, p.pid) + spare)
				if err := unix.Prlimit(p.pid, unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: lowest, Max: lowest}, nil); err != nil {
					t.Fatal(err)
				}
			}
			p.kill(unix.SIGUSR2)
			next, why := p.upgradeEnds()
			t.Logf("upgraded: %v; %s", next != 0, why)
			if next != 0 {
				if status := p.reap(p.pid); status != 0 {
					t.Errorf("the old program ended with status %d", status)
				}
				p.pid = next
			} else if children := childrenOf(t, p.pid); children != "" {
				t.Errorf("processes are left: %s", children)
			}
			var wg sync.WaitGroup
			defer wg.Wait()
			for i := range clients {
				select {
				case s := <-served:
					s.Stop() // and the next can be served
					wg.Go(func() {
						if reset, err := s.Outcome(); reset || err != nil {
							t.Errorf("reset: %v, %v", reset, err)
						}
					})
				case <-time.After(20 * time.Second):
					t.Fatalf("%d of %d clients were never served", clients-i, clients)
				}
			}
			if status := p.end(); status != 0 {
				t.Errorf("status %d:\n%s", status, strings.Join(p.seen, "\n"))
			}
		})
	}
}

// lowestFree is the lowest number that a process has no descriptor of.
func lowestFree(t *testing.T, pid int) (n int) {
	t.Helper()
	for ; ; n++ {
		if _, err := os.Lstat(fmt.Sprintf("/proc/%d/fd/%d", pid, n)); err != nil {
			return n
		}
	}
}

// upgradeEnds waits until an upgrade has succeeded or failed. next is the new program then, or 0,
// and why is the line that says why it failed.
func (l *lineage) upgradeEnds() (next int, why string) {
	l.t.Helper()
	for l.stderr.Scan() {
		l.seen = append(l.seen, l.stderr.Text())
		var line struct {
			Msg string
			Err string
			PID int `json:"new_pid"`
		}
		_ = json.Unmarshal(l.stderr.Bytes(), &line) // the last words of the new program are no JSON
		switch {
		case strings.HasPrefix(line.Msg, "upgraded"):
			return line.PID, ""
		case strings.HasPrefix(line.Msg, "upgrade failed"):
			return 0, line.Err
		}
	}
	l.t.Fatalf("the upgrade has no end:\n%s", strings.Join(l.seen, "\n"))
	return 0, ""
}

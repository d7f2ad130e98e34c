package soak

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tprelay/tprelay/internal/netlab"
	"github.com/tprelay/tprelay/tproxy"
)

const (
	relayPort = 9091
	adminPort = 9092
	// drainTimeout of the relay: short streams end by themselves, others are cut.
	drainTimeout = 8 * time.Second
	// patience bounds what has no reason to take long.
	patience = time.Minute
)

var adminAddress = fmt.Sprintf("127.0.0.1:%d", adminPort)

// life is one run of the relay, from start to end.
type life struct {
	*world
	number   int
	mode     tproxy.Mode
	args     []string
	bulk     int64         // the most that a stream carries one way
	patience time.Duration // the longest that a stream rests

	process process
	killed  bool // by a fault, after it had taken over
	log     *os.File
	base    map[string]int // descriptors at rest, by kind

	mu   sync.Mutex
	last stats
}

func (l *life) String() string {
	return fmt.Sprintf("%d: %v %s", l.number, l.mode, strings.Join(l.args, " "))
}

// stats is what we read of the admin end's /stats.
type stats struct {
	Accepted, Opened, HandedOver, TakenOver uint64
	Ended                                   map[string]uint64
	DialErrors                              map[string]uint64
	Active, Pending, Memory                 int64
	PipesInUse, PipesIdle, Buffers          int64
	UpstreamSplice, UpstreamBuffer          uint64
	DownstreamSplice, DownstreamBuffer      uint64
	Pauses, Starved, PipeMisses             uint64
	AcceptErrors, AcceptPauses, StaleEvents uint64
	SpliceRefused                           uint64
}

// draw decides how the relay runs in its mode.
func (l *life) draw(r *rand.Rand) {
	l.bulk, l.patience = 64<<20, 6*time.Second
	if l.config.duration < time.Minute {
		l.bulk, l.patience = 4<<20, time.Second
	}
	flag := func(args ...string) { l.args = append(l.args, args...) }
	oneIn := func(n int) bool { return r.IntN(n) == 0 }
	if oneIn(5) {
		flag("--no-splice")
	}
	if oneIn(3) {
		flag("--high-watermark", []string{"16KiB", "64KiB", "1MiB"}[r.IntN(3)])
	}
	if oneIn(5) {
		flag("--memory-limit", "4MiB")
	}
	if oneIn(5) {
		flag("--max-pairs", "48")
	}
	if oneIn(4) {
		flag("--loops", []string{"1", "3"}[r.IntN(2)])
	}
	if l.mode == tproxy.TPROXY && oneIn(5) {
		flag("--spoof", "ip")
	}
	switch r.IntN(8) {
	case 0:
		flag("--intercept", `label=\xffsoak`)
	case 1:
		flag("--intercept", `replace=\xf0\xf1\xf2:\xf8`)
	case 2:
		l.bulk = min(l.bulk, 2<<20) // disks are small
		flag("--intercept", "record="+filepath.Join(l.dir, "record"))
	}
}

// start starts the relay with the rules that it needs, in the mode of the last if that is
// given, and returns when it listens.
func (w *world) start(r *rand.Rand, last *life) (*life, error) {
	w.lives++
	l := &life{world: w, number: w.lives}
	l.mode = []tproxy.Mode{tproxy.TPROXY, tproxy.TPROXY, tproxy.Redirect, tproxy.Forward}[r.IntN(4)]
	if last != nil {
		l.mode = last.mode
	}
	l.draw(r)
	record := filepath.Join(w.dir, "record")
	if err := os.RemoveAll(record); err != nil {
		return nil, err
	}
	if err := os.Mkdir(record, 0o700); err != nil {
		return nil, err
	}
	var err error
	if l.log, err = os.Create(filepath.Join(w.dir, fmt.Sprintf("relay-%d.log", l.number))); err != nil {
		return nil, err
	}
	args := append([]string{"run", "--mode", l.mode.String(), "--listen", fmt.Sprintf("[::]:%d", relayPort),
		"--admin", adminAddress, "--access-log", l.access(), "--drain-timeout", drainTimeout.String(), "--upgrade-timeout", upgradeTimeout.String()}, l.args...)
	if l.mode == tproxy.Forward {
		server := []netip.Addr{w.lab.H3.Addr4, w.lab.H3.Addr6}[r.IntN(2)]
		args = append(args, "--upstream", netip.AddrPortFrom(server, serverPort).String())
	}
	cmd := w.lab.H2.Command(context.Background(), w.program, args...)
	cmd.Stdout, cmd.Stderr = l.log, l.log
	// Races are found when the process ends, and make its exit status.
	cmd.Env = append(os.Environ(), "GORACE=exitcode=66")
	if err := l.rules(); err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	l.process = cmd
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for _, port := range []uint16{relayPort, adminPort} { // the relay's comes first
		if err := w.lab.H2.WaitListen(ctx, port); err != nil {
			return nil, fmt.Errorf("%w\n%s", err, l.said())
		}
	}
	// Once, so that what the runtime opens at the first use belongs to the base.
	if _, err := l.look(); err != nil {
		return nil, err
	}
	if l.base, err = l.atRest(); err != nil {
		return nil, err
	}
	w.life.Store(l)
	return l, nil
}

// rules makes h2 divert what this relay wants; when it is gone, nothing passes by.
func (l *life) rules() error {
	args := []string{"rules", "remove", "--state", filepath.Join(l.dir, "rules")}
	if l.mode != tproxy.Forward {
		args = []string{"rules", "apply", "--state", filepath.Join(l.dir, "rules"), "--mode", l.mode.String(),
			"--listen", fmt.Sprintf("[::]:%d", relayPort), "--ipv6", "--in", netlab.Left, "--on-down", "closed"}
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	out, err := l.lab.H2.Command(ctx, l.program, args...).Output()
	if err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	return nil
}

// look reads /stats and keeps it.
func (l *life) look() (stats, error) {
	client := http.Client{
		Transport: &http.Transport{
			DisableKeepAlives: true,
			DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
				return l.lab.H2.Dial(ctx, network, address)
			},
		},
		Timeout: 20 * time.Second,
	}
	var s stats
	answer, err := client.Get("http://" + adminAddress + "/stats")
	if err != nil {
		return s, err
	}
	defer answer.Body.Close()
	if err := json.NewDecoder(answer.Body).Decode(&s); err != nil {
		return s, err
	}
	l.mu.Lock()
	l.last = s
	l.mu.Unlock()
	return s, nil
}

// descriptors counts what the relay holds, by kind.
func (l *life) descriptors() (map[string]int, error) {
	dir := fmt.Sprintf("/proc/%d/fd", l.process.PID())
	names, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	kinds := map[string]int{}
	for _, name := range names {
		to, err := os.Readlink(filepath.Join(dir, name.Name()))
		if err != nil {
			continue // gone
		}
		kind, _, _ := strings.Cut(to, ":[")
		kinds[kind]++
	}
	return kinds, nil
}

// atRest is what the relay holds without any connection. The first relay is looked at
// before there are any. Later ones may have some already: what of theirs are sockets and
// pipes is not counted.
func (l *life) atRest() (map[string]int, error) {
	kinds, err := l.descriptors()
	if err != nil {
		return nil, err
	}
	if l.number == 1 {
		l.inherited = kinds["pipe"]
	}
	kinds["pipe"] = l.inherited
	kinds["socket"], err = l.listeners()
	return kinds, err
}

// listeners is the number of sockets that listen on h2: all of them are the relay's.
func (l *life) listeners() (int, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	out, err := l.lab.H2.Command(ctx, "ss", "-Hltn").Output()
	return strings.Count(string(out), "\n"), err
}

// settled waits until the descriptors are as they should be, and stay so for a moment:
// connections of the admin end come and go.
func (l *life) settled(ok func(map[string]int) bool) (map[string]int, error) {
	var before string
	for deadline := time.Now().Add(patience); ; time.Sleep(50 * time.Millisecond) {
		kinds, err := l.descriptors()
		if err != nil {
			return nil, err
		}
		now := fmt.Sprint(kinds)
		if now == before && ok(kinds) {
			return kinds, nil
		}
		if time.Now().After(deadline) {
			return kinds, fmt.Errorf("descriptors are %v", kinds)
		}
		before = now
	}
}

// empty waits until the relay holds nothing, while no stream is under way.
func (l *life) empty() error {
	var s stats
	for deadline := time.Now().Add(patience); ; time.Sleep(50 * time.Millisecond) {
		var err error
		if s, err = l.look(); err != nil {
			return err
		}
		if s.Active == 0 && s.Pending == 0 && s.Memory == 0 && s.PipesInUse == 0 && s.Buffers == 0 {
			break
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("no stream is left, but the relay holds %d pairs, %d bytes pending, %d bytes of memory, %d pipes, %d buffers; its sockets:\n%s",
				s.Active, s.Pending, s.Memory, s.PipesInUse, s.Buffers, l.sockets())
		}
	}
	kinds, err := l.settled(func(kinds map[string]int) bool {
		for kind, n := range kinds {
			want := l.base[kind]
			if kind == "pipe" {
				want += 2 * int(s.PipesIdle)
			}
			if n > want {
				return false
			}
		}
		return true
	})
	if err != nil {
		return fmt.Errorf("%w at the end and were %v at the beginning, and %d pipes are pooled", err, l.base, s.PipesIdle)
	}
	if kinds["socket"] != l.base["socket"] {
		return fmt.Errorf("descriptors are %v, and were %v: listeners are gone", kinds, l.base)
	}
	return nil
}

// sockets are h2's, which helps to find a leak.
func (l *life) sockets() string {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	out, err := l.lab.H2.Command(ctx, "ss", "-tanpoi").Output()
	if err != nil {
		return err.Error()
	}
	return string(out)
}

// peak is the most memory that the relay has had, in KiB.
func (l *life) peak() int {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", l.process.PID()))
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			n, _ := strconv.Atoi(strings.Fields(rest)[0])
			return n
		}
	}
	return 0
}

// said is the end of what the relay has logged.
func (l *life) said() string {
	text, err := os.ReadFile(l.log.Name())
	if err != nil {
		return err.Error()
	}
	const enough = 16 << 10
	if len(text) > enough {
		text = text[len(text)-enough:]
	}
	return string(text)
}

// ended waits for the end of the relay that was told to end. Killed: it did not end by
// itself, and has no status.
func (l *life) ended(killed bool) error {
	select {
	case <-l.process.Done():
	case <-time.After(drainTimeout + patience):
		unix.Kill(l.process.PID(), unix.SIGQUIT) // it logs what it is doing
		<-l.process.Done()
		return fmt.Errorf("the relay does not end:\n%s", l.said())
	}
	l.conclude()
	if recursion := l.recursion(); recursion != "" {
		return fmt.Errorf("the relay has connected to itself: %s", recursion)
	}
	if err := l.process.Wait(); err != nil && !killed {
		return fmt.Errorf("the relay's end: %w\n%s", err, l.said())
	}
	if said := l.said(); strings.Contains(said, "DATA RACE") || strings.Contains(said, "panic:") {
		return fmt.Errorf("the relay said:\n%s", said)
	}
	return nil
}

// conclude adds the life's numbers to the world's.
func (l *life) conclude() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.totals.add(l.last)
	l.log.Close()
}

package soak

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// upgradeTimeout of the relay: a new program that hangs is ended after that.
const upgradeTimeout = 10 * time.Second

// breakUpgrade begins an upgrade and kills the new program at a random moment, or lets it hang.
// Streams that it had taken over are reset if it is killed; the old program goes on with all
// others.
func breakUpgrade(ctx context.Context, l *life, r *rand.Rand) error {
	if strings.Contains(strings.Join(l.args, " "), "--intercept") {
		return nil // see upgrade
	}
	if _, err := l.look(); err != nil {
		return err
	}
	begin, err := os.Stat(l.log.Name())
	if err != nil {
		return err
	}
	said := len(newPID.FindAllString(l.said(), -1))
	if err := l.process.Signal(unix.SIGUSR2); err != nil {
		return err
	}
	next, err := l.child()
	switch {
	case err != nil:
		return err
	case next == nil: // it has taken over already
		return l.followHeir(said)
	}
	pause(ctx, time.Duration(r.Int64N(int64(30*time.Millisecond))))
	hang := r.IntN(3) == 0
	if hang {
		err = next.Signal(unix.SIGSTOP)
	} else {
		err = next.Signal(unix.SIGKILL)
	}
	if err != nil && err != unix.ESRCH { // it may have ended by itself
		return err
	}
	for deadline := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		text, err := os.ReadFile(l.log.Name())
		if err != nil {
			return err
		}
		if strings.Contains(string(text[begin.Size():]), "upgrade failed; this process goes on") {
			return next.Wait()
		}
		if !l.alive() { // it came too late: the new one had everything
			break
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("the upgrade neither fails nor succeeds:\n%s", l.said())
		}
	}
	if err := l.process.Wait(); err != nil {
		return fmt.Errorf("the old process: %w\n%s", err, l.said())
	}
	l.process = next
	l.mu.Lock()
	l.totals.add(l.last)
	l.last = stats{}
	l.mu.Unlock()
	if !hang {
		l.killed = true
		return nil
	}
	if err := next.Signal(unix.SIGCONT); err != nil {
		return err
	}
	l.base, err = l.atRest()
	return err
}

// child waits for the process that an upgrade starts; nil: the old one has ended meanwhile.
func (l *life) child() (*heir, error) {
	parent := strconv.Itoa(l.process.PID())
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		if !l.alive() {
			return nil, nil
		}
		paths, err := filepath.Glob("/proc/[0-9]*/stat")
		if err != nil {
			return nil, err
		}
		for _, path := range paths {
			text, _ := os.ReadFile(path) // the process may have ended
			_, rest, ok := strings.Cut(string(text), ") ")
			// Go's first StartProcess begins with a child that only tries something out.
			environ, _ := os.ReadFile(filepath.Join(filepath.Dir(path), "environ"))
			if fields := strings.Fields(rest); ok && fields[1] == parent && strings.Contains(string(environ), "TPRELAY_UPGRADE=") {
				pid, err := strconv.Atoi(filepath.Base(filepath.Dir(path)))
				if err != nil {
					return nil, err
				}
				return newHeir(pid)
			}
		}
	}
	return nil, fmt.Errorf("no new program was started:\n%s", l.said())
}

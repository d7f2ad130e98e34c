package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"kernel.org/pub/linux/libs/security/libcap/cap"
)

// fakeProgram is a successor that does what a test says with its end of the socket.
type fakeProgram struct {
	end      *os.File
	attr     os.ProcAttr
	ended    chan string
	signals  []os.Signal
	inherits inheritance
}

func (f *fakeProgram) PID() int { return 4711 }

func (f *fakeProgram) Signal(s os.Signal) error {
	f.signals = append(f.signals, s)
	if s == unix.SIGKILL {
		f.ended <- "signal: killed"
	}
	return nil
}

func (f *fakeProgram) Wait() (string, error) { return <-f.ended, nil }

// handOverUntilEnd is a relay whose hand-over lasts until the other side says a byte or is gone, or
// the context ends.
type handOverUntilEnd struct{ begun chan struct{} }

var errGone = errors.New("the other side is gone")

func (h handOverUntilEnd) HandOver(ctx context.Context, conn *net.UnixConn, failed func()) (int, error) {
	close(h.begun)
	defer context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })()
	if n, _ := conn.Read(make([]byte, 1)); n == 0 {
		failed()
		return 0, errGone
	}
	return 3, nil
}

// fakeUpgrader starts f instead of a program.
func fakeUpgrader(t *testing.T, f *fakeProgram, patience time.Duration) *upgrader {
	f.ended = make(chan string, 2)
	return &upgrader{
		path: "/opt/tprelay", args: []string{"tprelay", "run"}, patience: patience,
		environ: func() []string { return []string{"A=1", "WATCHDOG_PID=1", "WATCHDOG_USEC=5", inheritVariable + "=old"} },
		start: func(path string, args []string, attr *os.ProcAttr) (successor, error) {
			if path != "/opt/tprelay" || !slices.Equal(args, []string{"tprelay", "run"}) {
				t.Errorf("started %s %q", path, args)
			}
			f.attr = *attr
			text, _ := strings.CutPrefix(attr.Env[len(attr.Env)-1], inheritVariable+"=")
			in, err := parseInheritance(text)
			if err != nil {
				t.Fatal(err)
			}
			f.inherits = *in
			fd, err := unix.FcntlInt(attr.Files[in.Relay].Fd(), unix.F_DUPFD_CLOEXEC, 0)
			if err != nil {
				t.Fatal(err)
			}
			f.end = os.NewFile(uintptr(fd), "end")
			return f, nil
		},
	}
}

func TestUpgradeSucceeds(t *testing.T) {
	f := new(fakeProgram)
	u := fakeUpgrader(t, f, time.Hour)
	u.ambient = []cap.Value{cap.NET_ADMIN}
	admin, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer admin.Close()
	h := handOverUntilEnd{make(chan struct{})}
	go func() {
		<-h.begun
		f.end.Write([]byte("y"))
	}()
	listen := []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:1")}
	next, left, err := u.upgrade(context.Background(), h, admin, listen)
	if err != nil || next != f || left != 3 {
		t.Fatalf("%v, %d, %v", next, left, err)
	}
	f.end.Close()
	f.ended <- "exit status 0"
	if f.attr.Files[f.inherits.Admin] != admin || !slices.Equal(f.inherits.Listen, listen) {
		t.Errorf("handed over %+v", f.inherits)
	}
	if got := fmt.Sprint(f.attr.Env[:len(f.attr.Env)-1]); got != "[A=1 WATCHDOG_USEC=5]" {
		t.Errorf("environment %s", got)
	}
	if got := fmt.Sprint(f.attr.Sys.AmbientCaps); got != "[12]" {
		t.Errorf("ambient capabilities %s", got)
	}
}

func TestUpgradeFails(t *testing.T) {
	for _, c := range []struct {
		name    string
		act     func(f *fakeProgram, abandon context.CancelCauseFunc)
		want    string
		killed  bool
		patient bool
	}{
		{"ends early", func(f *fakeProgram, _ context.CancelCauseFunc) {
			f.ended <- "exit status 1"
			f.end.Close()
		}, "/opt/tprelay ended before it had taken over: exit status 1 (the other side is gone)", false, true},
		{"ends early, and something else holds its end", func(f *fakeProgram, _ context.CancelCauseFunc) {
			f.ended <- "exit status 1"
		}, "/opt/tprelay ended before it had taken over: exit status 1 (the other side is gone)", false, true},
		{"gives up, but stays", func(f *fakeProgram, _ context.CancelCauseFunc) {
			f.end.Close()
		}, "/opt/tprelay could not take over and was ended: the other side is gone", true, true},
		{"hangs", func(*fakeProgram, context.CancelCauseFunc) {},
			"/opt/tprelay has not taken over within 10ms and was ended; see --upgrade-timeout", true, false},
		{"is abandoned", func(_ *fakeProgram, abandon context.CancelCauseFunc) { abandon(errForced) },
			errForced.Error(), true, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			patience := 10 * time.Millisecond
			if c.patient {
				patience = time.Hour
			}
			f := new(fakeProgram)
			u := fakeUpgrader(t, f, patience)
			ctx, abandon := context.WithCancelCause(context.Background())
			defer abandon(nil)
			h := handOverUntilEnd{make(chan struct{})}
			go func() {
				<-h.begun
				c.act(f, abandon)
			}()
			_, _, err := u.upgrade(ctx, h, nil, nil)
			if err == nil || err.Error() != c.want {
				t.Errorf("%v, want %s", err, c.want)
			}
			if killed := slices.Contains(f.signals, os.Signal(unix.SIGKILL)); killed != c.killed {
				t.Errorf("killed: %v", killed)
			}
			f.end.Close()
		})
	}
}

func TestUpgradeOfWhatCannotBeStarted(t *testing.T) {
	u := &upgrader{path: "/nowhere/tprelay", args: []string{"x"}, environ: os.Environ, start: startProcess, patience: time.Hour}
	if _, _, err := u.upgrade(context.Background(), nil, nil, nil); err == nil || err.Error() != "start /nowhere/tprelay: no such file or directory" {
		t.Error(err)
	}
}

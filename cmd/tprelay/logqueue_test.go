package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tprelay/tprelay/internal/cli"
)

// patience bounds what a process that is deaf would never do.
const patience = 30 * time.Second

func TestLogSaysHowManyLinesItDropped(t *testing.T) {
	for _, format := range []string{"text", "json"} {
		file := &blocked{entered: make(chan struct{}, 1), release: make(chan struct{})}
		queue := newLogQueue(file)
		log := (&runCmd{LogLevel: "error", LogFormat: format}).logger(queue)
		log.Error("first")
		<-file.entered
		// The writing goroutine is stuck. None of these may block.
		const each = 100
		for n := range 2 * logRoom / each {
			log.Error(fmt.Sprintf("%0*d", each, n))
		}
		lost := queue.lost.Load()
		close(file.release)
		queue.close(forever)
		got := strings.Split(strings.TrimSpace(file.String()), "\n")
		if want := 2*logRoom/each + 2 - int(lost); lost == 0 || len(got) != want {
			t.Errorf("%s: %d lines, want %d; %d dropped", format, len(got), want, lost)
		}
		want := fmt.Sprintf(`level=WARN msg="log lines were dropped" lines=%d`, lost)
		if format == "json" {
			want = fmt.Sprintf(`"level":"WARN","msg":"log lines were dropped","lines":%d}`, lost)
		}
		if last := got[len(got)-1]; !strings.HasSuffix(last, want) {
			t.Errorf("the last line is %s; want %s", last, want)
		}
	}
}

func TestLogSaysWhereLinesAreMissing(t *testing.T) {
	file := &blocked{entered: make(chan struct{}, 1), release: make(chan struct{})}
	queue := newLogQueue(file)
	io.WriteString(queue, "a\n")
	<-file.entered
	io.WriteString(queue, "b\n")
	io.WriteString(queue, strings.Repeat("x", logRoom)+"\n")
	io.WriteString(queue, "there would be room for this\n")
	close(file.release)
	taken := func() bool {
		queue.mu.Lock()
		defer queue.mu.Unlock()
		return len(queue.waiting) == 0 && queue.dropped == 0
	}
	for !taken() {
		time.Sleep(time.Millisecond)
	}
	io.WriteString(queue, "c\n")
	queue.close(forever)
	if want := "a\nb\ntprelay: 2 log lines were dropped\nc\n"; file.String() != want {
		t.Errorf("got %q, want %q", file, want)
	}
}

func TestLogCountsLinesThatCannotBeWritten(t *testing.T) {
	file := &failing{err: errors.New("disk full")}
	queue := &logQueue{notice: plainNotice, file: lineWriter{out: file}}
	queue.write([]byte("a\nb\n"))
	queue.write([]byte("c\n"))
	file.err = nil
	queue.write([]byte("d\n"))
	queue.write([]byte("e\n"))
	if want := "tprelay: 3 log lines were dropped\nd\ne\n"; file.String() != want || queue.lost.Load() != 3 {
		t.Errorf("got %q and %d lost, want %q", &file.Buffer, queue.lost.Load(), want)
	}
}

func TestLogEndsThoughNobodyReads(t *testing.T) {
	file := &blocked{entered: make(chan struct{}, 1), release: make(chan struct{})}
	queue := newLogQueue(file)
	io.WriteString(queue, "a\n")
	<-file.entered
	queue.close(time.Nanosecond)
	close(file.release)
	<-queue.written
	if file.String() != "a\n" {
		t.Errorf("wrote %q", file)
	}
}

// unread is a process whose standard error is a pipe that is full, and that nobody reads
// until the test does.
type unread struct {
	*process
	address any // of the listener
}

func startUnread(t *testing.T, cmd *exec.Cmd) unread {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	defer w.Close()
	if _, err := unix.FcntlInt(w.Fd(), unix.F_SETPIPE_SZ, 4096); err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = w
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if cmd.ProcessState == nil {
			cmd.Process.Kill()
			cmd.Wait()
		}
	})
	p := &process{t: t, cmd: cmd, stderr: bufio.NewScanner(r)}
	u := unread{p, p.line("listening")["address"]}
	// A description of its own: not blocking is a property of the description, and the
	// process must block.
	fill, err := os.OpenFile(fmt.Sprintf("/proc/self/fd/%d", w.Fd()), os.O_WRONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer fill.Close()
	for {
		if _, err := unix.Write(int(fill.Fd()), []byte{'\n'}); err == unix.EAGAIN {
			return u
		} else if err != nil {
			t.Fatal(err)
		}
	}
}

// within fails the test, and ends the process, when act takes too long.
func (u unread) within(what string, act func()) {
	u.t.Helper()
	late := time.AfterFunc(patience, func() { u.cmd.Process.Kill() })
	act()
	if !late.Stop() {
		u.t.Fatalf("%s: not within %v", what, patience)
	}
}

// refuses waits until nobody listens any more.
func (u unread) refuses() {
	u.t.Helper()
	u.within("the end of listening", func() {
		for {
			c, err := net.Dial("tcp4", u.address.(string))
			if err != nil {
				return
			}
			c.Close()
			time.Sleep(time.Millisecond)
		}
	})
}

func (u unread) ends(status int) {
	u.t.Helper()
	u.within("its end", func() { u.cmd.Wait() })
	if got := u.cmd.ProcessState.ExitCode(); got != status {
		u.t.Errorf("exit status %d, want %d", got, status)
	}
}

func TestSignalsAreHeardWhileNobodyReadsStandardError(t *testing.T) {
	server := listenHere(t)
	u := startUnread(t, command(t, forwardTo(server.Addr(), "--drain-timeout", "1h")...))
	client, end := pair(t, u.address, server)
	u.signal(unix.SIGTERM)
	u.refuses()
	pass(t, client, end, "while draining")
	u.signal(unix.SIGTERM)
	u.within("the reset", func() {
		if _, err := client.Read(make([]byte, 1)); !errors.Is(err, unix.ECONNRESET) {
			t.Errorf("the client read: %v", err)
		}
	})
	u.ends(cli.Failure)
}

func TestUpgradeWhileNobodyReadsStandardError(t *testing.T) {
	server := listenHere(t)
	u := startUnread(t, install(t).command(forwardTo(server.Addr())...))
	l := follow(u.process)
	client, end := pair(t, u.address, server)
	l.kill(unix.SIGUSR2)
	u.within("the upgrade", func() {
		if status := l.reap(l.pid); status != cli.OK {
			t.Errorf("the old process ended with status %d", status)
		}
	})
	l.pid = 0
	if t.Failed() {
		return
	}
	// The new one is ours now. Of what the old one said, nobody knows.
	if _, err := fmt.Sscan(childrenOf(t, os.Getpid()), &l.pid); err != nil {
		t.Fatal(err)
	}
	pass(t, client, end, "after the upgrade")
	client.Close()
	end.Close()
	if status := l.end(); status != cli.OK {
		t.Errorf("the new process ended with status %d", status)
	}
}

func TestFailureEndsThoughNobodyReadsStandardError(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if _, err := unix.FcntlInt(w.Fd(), unix.F_SETPIPE_SZ, 4096); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(bytes.Repeat([]byte{'\n'}, 4096)); err != nil {
		t.Fatal(err)
	}
	cmd := command(t, "run")
	cmd.Stderr = w
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	w.Close()
	late := time.AfterFunc(patience, func() { cmd.Process.Kill() })
	cmd.Wait()
	late.Stop()
	if status := cmd.ProcessState.ExitCode(); status != cli.Usage {
		t.Errorf("exit status %d, want %d", status, cli.Usage)
	}
}

// TestSignalsAreHeardWhileTheServiceManagerIsStuck: its socket takes no more messages.
func TestSignalsAreHeardWhileTheServiceManagerIsStuck(t *testing.T) {
	m := newManager(t)
	cmd := command(t, forwardTo(echo(t), "--drain-timeout", "1h")...)
	cmd.Env = append(cmd.Env, "NOTIFY_SOCKET="+m.path)
	p := watch(t, cmd)
	u := unread{p, p.line("listening")["address"]}
	m.told() // READY
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	for err = nil; err == nil; {
		err = unix.Sendto(fd, []byte("STATUS=full"), 0, &unix.SockaddrUnix{Name: m.path})
	}
	if err != unix.EAGAIN {
		t.Fatal(err)
	}
	c := dial(t, u.address)
	say(t, c, "hello")
	u.signal(unix.SIGTERM)
	u.refuses()
	u.signal(unix.SIGTERM)
	u.ends(cli.Failure)
}

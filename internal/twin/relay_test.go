package twin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tprelay/tprelay/internal/netlab"
)

const (
	relayPort = 9091
	adminPort = 9092
)

// deadline bounds what has no reason to take long.
const deadline = time.Minute

// relay is the program on h2, and what took over from it.
type relay struct {
	lab   *netlab.Lab
	cmd   *netlab.Cmd
	pid   int
	pidfd int
	log   *os.File
}

// divert makes h2 of the lab divert connections in a mode.
func divert(lab *netlab.Lab, program, dir, mode string) error {
	state := filepath.Join(dir, "rules")
	for _, args := range [][]string{
		{"rules", "remove", "--state", state},
		{"rules", "apply", "--state", state, "--mode", mode, "--listen", fmt.Sprintf("[::]:%d", relayPort), "--ipv6",
			"--in", netlab.Left, "--on-down", "closed"},
	} {
		ctx, cancel := context.WithTimeout(context.Background(), deadline)
		out, err := lab.H2.Command(ctx, program, args...).Output()
		cancel()
		if err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
	}
	return nil
}

// startRelay starts the program, and returns when it listens.
func startRelay(lab *netlab.Lab, program, dir string, set setting) (*relay, error) {
	log, err := os.Create(filepath.Join(dir, "relay.log"))
	if err != nil {
		return nil, err
	}
	args := []string{"run", "--mode", set.Mode, "--listen", fmt.Sprintf("[::]:%d", relayPort), "--drain-timeout", "2m",
		"--admin", fmt.Sprintf("127.0.0.1:%d", adminPort)}
	r := &relay{lab: lab, log: log, cmd: lab.H2.Command(context.Background(), program, append(args, set.flags()...)...)}
	r.cmd.Stdout, r.cmd.Stderr = log, log
	r.cmd.Env = append(os.Environ(), "GORACE=exitcode=66")
	if err := r.cmd.Start(); err != nil {
		log.Close()
		return nil, err
	}
	if err := r.hold(r.cmd.PID()); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	defer cancel()
	for _, port := range []uint16{relayPort, adminPort} {
		if err := lab.H2.WaitListen(ctx, port); err != nil {
			return nil, fmt.Errorf("%w\n%s", err, r.said())
		}
	}
	return r, nil
}

// hold makes a process the one that is the relay now.
func (r *relay) hold(pid int) error {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return fmt.Errorf("the relay's process %d: %w\n%s", pid, err, r.said())
	}
	if r.pid != 0 {
		unix.Close(r.pidfd)
	}
	r.pid, r.pidfd = pid, fd
	return nil
}

func (r *relay) signal(s unix.Signal) error { return unix.PidfdSendSignal(r.pidfd, s, nil, 0) }

var newPID = regexp.MustCompile(`new_pid=(\d+)`)

// upgrade has a new process of the same program take over. The old one may stay for a while, with
// what a handler looks at.
func (r *relay) upgrade() error {
	if err := r.signal(unix.SIGUSR2); err != nil {
		return err
	}
	for limit := time.Now().Add(deadline); time.Now().Before(limit); time.Sleep(20 * time.Millisecond) {
		if told := newPID.FindStringSubmatch(r.said()); told != nil {
			pid, err := strconv.Atoi(told[1])
			if err != nil {
				return err
			}
			return r.hold(pid)
		}
	}
	return fmt.Errorf("nobody took over:\n%s", r.said())
}

// said is the end of what the relay has logged.
func (r *relay) said() string {
	text, err := os.ReadFile(r.log.Name())
	if err != nil {
		return err.Error()
	}
	return string(text[max(0, len(text)-8<<10):])
}

// active is how many pairs the relay serves.
func (r *relay) active() (int64, error) {
	client := http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			return r.lab.H2.Dial(ctx, network, address)
		},
	}}
	answer, err := client.Get(fmt.Sprintf("http://127.0.0.1:%d/stats", adminPort))
	if err != nil {
		return 0, err
	}
	defer answer.Body.Close()
	var stats struct{ Active int64 }
	err = json.NewDecoder(answer.Body).Decode(&stats)
	return stats.Active, err
}

// empty waits until the relay serves nobody, for as long as ends with their connection gone may
// take.
func (r *relay) empty() error {
	for limit := time.Now().Add(15 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		n, err := r.active()
		if err != nil || n == 0 {
			return err
		}
		if time.Now().After(limit) {
			return fmt.Errorf("all ends have closed, and the relay still serves %d pairs", n)
		}
	}
}

// stop ends the relay, and checks that it ends well.
func (r *relay) stop() error {
	defer r.log.Close()
	defer unix.Close(r.pidfd)
	if err := r.signal(unix.SIGTERM); err != nil {
		return fmt.Errorf("end the relay: %w\n%s", err, r.said())
	}
	gone := errors.New("the relay does not end")
	for limit := time.Now().Add(deadline); time.Now().Before(limit); {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(r.pidfd), Events: unix.POLLIN}}, 100)
		if n > 0 && err == nil {
			gone = nil
			break
		}
	}
	if gone == nil {
		gone = r.cmd.Wait() // the first process, in any event
	}
	if said := r.said(); gone != nil || strings.Contains(said, "DATA RACE") || strings.Contains(said, "panic:") {
		return errors.Join(gone, fmt.Errorf("the relay said:\n%s", said))
	}
	return nil
}

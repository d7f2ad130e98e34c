package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/tprelay/tprelay/rules"
)

// applyWithConfirm applies cfg and takes it back unless a line comes in within
// the time: who has locked himself out cannot press Enter. Rules that stood
// before are put back.
//
// It must outlive the terminal: a hangup, the end of input and a terminal that
// can no longer be written to all mean that nobody confirmed. And it must not be
// stopped while it waits, so the signals by which a shell suspends a job are
// ignored.
func applyWithConfirm(cfg rules.Config, wait time.Duration, in io.Reader, out io.Writer) error {
	stopped := make(chan os.Signal, 1)
	signal.Notify(stopped, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT)
	defer signal.Stop(stopped)
	broken := make(chan os.Signal, 1) // SIGPIPE would end us before the rollback
	signal.Notify(broken, syscall.SIGPIPE)
	defer signal.Stop(broken)
	signal.Ignore(syscall.SIGTSTP, syscall.SIGTTIN, syscall.SIGTTOU)
	defer signal.Reset(syscall.SIGTSTP, syscall.SIGTTIN, syscall.SIGTTOU)

	ctx := context.Background()
	former, hadFormer, err := rules.Applied(cfg.StateDir)
	if err != nil {
		return fmt.Errorf("rules apply: %w", err)
	}
	if err := rules.Apply(ctx, cfg); err != nil {
		return fmt.Errorf("rules apply: %w", err)
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	warn(out, cfg)
	fmt.Fprintf(out, "applied; press Enter within %v to keep it, otherwise it is taken back\n", wait)

	confirmed := make(chan bool, 1)
	go func() {
		_, err := bufio.NewReader(in).ReadString('\n')
		confirmed <- err == nil
	}()
	reason := ""
	select {
	case ok := <-confirmed:
		if ok {
			fmt.Fprintln(out, "kept")
			return nil
		}
		reason = "the input ended"
	case <-timer.C:
		reason = fmt.Sprintf("nobody pressed Enter within %v", wait)
	case sig := <-stopped:
		reason = fmt.Sprintf("signal: %v", sig)
	}
	undo := func() error { return rules.Remove(ctx, cfg) }
	if hadFormer {
		undo = func() error { return rules.Apply(ctx, former) }
	}
	if err := undo(); err != nil {
		return fmt.Errorf("rules apply: not confirmed (%s), and taking it back failed: %w; run tprelay rules remove", reason, err)
	}
	return errors.New("rules apply: not confirmed (" + reason + "); taken back")
}

// warn prints one line for each kernel setting that stands in the way.
func warn(out io.Writer, cfg rules.Config) {
	problems, err := rules.SysctlProblems(cfg)
	if err != nil {
		fmt.Fprintf(out, "tprelay: warning: %v\n", err)
	}
	for _, p := range problems {
		fmt.Fprintf(out, "tprelay: warning: %v\n", p)
	}
}

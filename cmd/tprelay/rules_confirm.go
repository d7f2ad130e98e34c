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

// applyWithConfirm applies cfg, and undoes it unless it reads a line within the time: an
// operator who is locked out cannot press Enter. Undoing restores the rules that were applied
// before.
//
// It must outlive the terminal: a hangup, the end of input, and a terminal that cannot be
// written to all count as not confirmed. It must not be suspended while it waits, so it
// ignores the signals by which a shell suspends a job.
func applyWithConfirm(cfg rules.Config, wait time.Duration, in io.Reader, out io.Writer) error {
	stopped := make(chan os.Signal, 1)
	signal.Notify(stopped, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT)
	defer signal.Stop(stopped)
	broken := make(chan os.Signal, 1) // SIGPIPE would end the program before the rollback
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
	fmt.Fprintf(out, "rules applied; press Enter within %v to keep them, otherwise they are removed again\n", wait)

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
		reason = "end of input"
	case <-timer.C:
		reason = fmt.Sprintf("Enter was not pressed within %v", wait)
	case sig := <-stopped:
		reason = fmt.Sprintf("signal: %v", sig)
	}
	undo := func() error { return rules.Remove(ctx, cfg) }
	if hadFormer {
		undo = func() error { return rules.Apply(ctx, former) }
	}
	if err := undo(); err != nil {
		return fmt.Errorf("rules apply: not confirmed (%s), and undoing failed: %w; run tprelay rules remove", reason, err)
	}
	return errors.New("rules apply: not confirmed (" + reason + "); undone")
}

// warn prints one line for each kernel setting that breaks the rules.
func warn(out io.Writer, cfg rules.Config) {
	problems, err := rules.SysctlProblems(cfg)
	if err != nil {
		fmt.Fprintf(out, "tprelay: warning: %v\n", err)
	}
	for _, p := range problems {
		fmt.Fprintf(out, "tprelay: warning: %v\n", p)
	}
}

package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/tprelay/tprelay/bench/relays"
)

// missing says in one line why the relay cannot be started, or "". noTPRelay is the error of
// findTPRelay.
func missing(r relays.Relay, noTPRelay error) string {
	if noTPRelay != nil && strings.HasPrefix(r.Name, "tprelay") {
		return noTPRelay.Error()
	}
	return r.Missing()
}

// ownPath returns the path of this program, which relays and workers of a measurement run again.
func ownPath() (string, error) {
	path, err := os.Executable()
	if err != nil {
		return "", fmt.Errorf("path of this program: %w", err)
	}
	return path, nil
}

// findTPRelay gives the path of the program tprelay.
func findTPRelay(path string) (string, error) {
	if path != "" {
		if _, err := exec.LookPath(path); err != nil {
			return "", fmt.Errorf("--tprelay %s: it is no program", path)
		}
		return filepath.Abs(path)
	}
	if own, err := os.Executable(); err == nil {
		beside := filepath.Join(filepath.Dir(own), "tprelay")
		if _, err := exec.LookPath(beside); err == nil {
			return beside, nil
		}
	}
	if path, err := exec.LookPath("tprelay"); err == nil {
		return filepath.Abs(path)
	}
	return "", errors.New("there is no tprelay beside tpbench or in PATH; make build, or say where with --tprelay")
}

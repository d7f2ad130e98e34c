package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/tprelay/tprelay/bench"
	"github.com/tprelay/tprelay/bench/relays"
)

// list prints the relays and the points that there are.
func list(w io.Writer, relayCommand string) error {
	rows := [][]string{{"RELAY", "WAY", ""}}
	for _, p := range relays.All(relayCommand) {
		title := p.Title
		if missing := p.Missing(); missing != "" {
			title += " (" + missing + ")"
		}
		rows = append(rows, []string{p.Name, p.Way.String(), title})
	}
	var b strings.Builder
	align(&b, rows)
	b.WriteByte('\n')
	rows = [][]string{{"POINT", "ALL RELAYS", ""}}
	for _, p := range bench.Points() {
		var metrics []string
		for _, m := range p.Metrics {
			metrics = append(metrics, m.Title)
		}
		all := "no"
		if p.Principal {
			all = "yes"
		}
		rows = append(rows, []string{p.Name, all, fmt.Sprintf("%s: %s", p.Title, strings.Join(metrics, ", "))})
	}
	align(&b, rows)
	fmt.Fprintln(&b, "\nUnless relays are named, tprelay-loops, tprelay-buffered, haproxy-2threads, haproxy-copy and iocopy-nosplice are measured at the points of all relays only.")
	_, err := io.WriteString(w, b.String())
	return err
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

package e2e

import (
	"os"
	"os/exec"
	"strings"
	"testing"
)

const serviceUnit = "../../deploy/tprelay.service"

func needSystemdAnalyze(t *testing.T) {
	t.Helper()
	if _, err := exec.LookPath("systemd-analyze"); err != nil {
		t.Skip("needs systemd-analyze")
	}
}

// TestServiceIsSandboxed: systemd itself rates the unit's exposure 2.0 or less, of 10.
func TestServiceIsSandboxed(t *testing.T) {
	needSystemdAnalyze(t)
	out, err := exec.Command("systemd-analyze", "security", "--no-pager", "--offline=true", "--threshold=20", serviceUnit).CombinedOutput()
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// TestServiceAllowsWhatTheRelayCalls: each call in docs/security.md passes the unit's
// filter.
func TestServiceAllowsWhatTheRelayCalls(t *testing.T) {
	needSystemdAnalyze(t)
	unit, err := os.ReadFile(serviceUnit)
	if err != nil {
		t.Fatal(err)
	}
	allowed := map[string]bool{}
	for _, name := range expand(t, "@default") { // always allowed
		allowed[name] = true
	}
	for line := range strings.Lines(string(unit)) {
		value, ok := strings.CutPrefix(strings.TrimSpace(line), "SystemCallFilter=")
		if !ok {
			continue
		}
		value, denied := strings.CutPrefix(value, "~")
		for item := range strings.FieldsSeq(value) {
			for _, name := range expand(t, item) {
				allowed[name] = !denied
			}
		}
	}
	for _, name := range listedCalls(t) {
		if !allowed[name] {
			t.Errorf("%s is not allowed", name)
		}
	}
	if allowed["mount"] || allowed["init_module"] || allowed["setuid"] {
		t.Error("this filter allows everything")
	}
}

// expand gives the system calls of a set of systemd's, or the one that is named.
func expand(t *testing.T, item string) (names []string) {
	t.Helper()
	if !strings.HasPrefix(item, "@") {
		return []string{item}
	}
	out, err := exec.Command("systemd-analyze", "--no-pager", "syscall-filter", item).Output()
	if err != nil {
		t.Fatalf("%s: %v", item, err)
	}
	for line := range strings.Lines(string(out)) {
		line = strings.TrimSpace(line)
		if line == item || line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		names = append(names, expand(t, line)...)
	}
	return names
}

package e2e

import (
	"fmt"
	"os"
	"testing"

	"github.com/tprelay/tprelay/internal/netlab/netlabtest"
)

// TestMain enters a user namespace where the tests do not run as root, and removes
// what the tests share.
func TestMain(m *testing.M) {
	code := netlabtest.Main(m)
	if shared.dir != "" {
		if err := os.RemoveAll(shared.dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.Exit(code)
}

// shared is a directory for files that several tests use: what is made there once
// takes long to make. Tests run one after the other.
var shared struct{ dir string }

// sharedDir gives the directory; other users can read it.
func sharedDir(t *testing.T) string {
	t.Helper()
	if shared.dir == "" {
		dir, err := os.MkdirTemp("", "e2e-")
		if err != nil {
			t.Fatal(err)
		}
		shared.dir = dir
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return shared.dir
}

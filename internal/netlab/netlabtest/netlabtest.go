// Package netlabtest is for tests that need hosts: it has what each of them would write.
package netlabtest

import (
	"fmt"
	"os"
	"testing"

	"github.com/tprelay/tprelay/internal/netlab"
)

// Main is for a package's TestMain. It enters a user namespace where the tests do not run as root,
// runs them, and returns the exit status.
func Main(m *testing.M) int {
	if err := netlab.Enter(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

// New makes a lab that is closed when the test ends. The test fails if that leaves something.
func New(t testing.TB, cfg netlab.Config) *netlab.Lab {
	t.Helper()
	lab, err := netlab.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := lab.Close(); err != nil {
			t.Error(err)
		}
	})
	return lab
}

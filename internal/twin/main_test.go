package twin

import (
	"fmt"
	"os"
	"testing"

	"github.com/tprelay/tprelay/internal/netlab"
)

// TestMain enters a user namespace where the tests do not run as root.
func TestMain(m *testing.M) {
	if err := netlab.Enter(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

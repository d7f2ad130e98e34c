package soak

import (
	"os"
	"testing"

	"github.com/tprelay/tprelay/internal/netlab/netlabtest"
)

// TestMain enters a user namespace where the tests do not run as root.
func TestMain(m *testing.M) {
	os.Exit(netlabtest.Main(m))
}

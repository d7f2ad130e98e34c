package tproxy_test

import (
	"os"
	"testing"

	"github.com/tprelay/tprelay/internal/leak"
)

// taskVariable names what a child process of the tests is to do instead of running them.
const taskVariable = "TPROXY_TEST_TASK"

func TestMain(m *testing.M) {
	if task := os.Getenv(taskVariable); task != "" {
		os.Exit(runTask(task))
	}
	os.Exit(leak.Main(m))
}

package splice_test

import (
	"os"
	"testing"

	"github.com/tprelay/tprelay/internal/leak"
)

// taskVariable names what a child process of the tests is to do instead of running them.
const taskVariable = "SPLICE_TEST_TASK"

func TestMain(m *testing.M) {
	if os.Getenv(taskVariable) == limitTask {
		os.Exit(runLimitTask())
	}
	os.Exit(leak.Main(m))
}

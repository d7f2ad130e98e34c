package handover_test

import (
	"os"
	"testing"

	"github.com/tprelay/tprelay/internal/leak"
)

func TestMain(m *testing.M) { os.Exit(leak.Main(m)) }

package engine

import (
	"context"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestNoHandOverWhileTakingOver: pairs that are still on their way would be left behind.
func TestNoHandOverWhileTakingOver(t *testing.T) {
	e, err := New(Options{Loops: 1})
	if err != nil {
		t.Fatal(err)
	}
	ends, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	before := link{ends[0]} // the process before, which has not said yet that it is done
	e.inherits = &link{ends[1]}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error)
	go func() { ended <- e.Run(ctx) }()
	if _, err := before.expect(frameReady); err != nil {
		t.Fatal(err)
	}
	if _, err := e.HandOver(-1, nil); err == nil || !strings.Contains(err.Error(), "still taking over") {
		t.Errorf("HandOver: %v", err)
	}
	if err := before.send(frameDone, nil, nil); err != nil {
		t.Fatal(err)
	}
	for e.takesOver() {
		time.Sleep(time.Millisecond)
	}
	if _, err := e.HandOver(-1, nil); err == nil || strings.Contains(err.Error(), "still taking over") {
		t.Errorf("HandOver after that: %v", err)
	}
	unix.Close(before.fd)
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

package engine

import (
	"context"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/tprelay/tprelay/engine/internal/handover"
	"github.com/tprelay/tprelay/engine/internal/handover/handovertest"
)

// TestNoHandOverWhileTakingOver: pairs that are still on their way would be left behind.
func TestNoHandOverWhileTakingOver(t *testing.T) {
	old, taker, err := handovertest.Pair()
	if err != nil {
		t.Fatal(err)
	}
	defer old.Close()
	link, err := handover.NewLink(old)
	if err != nil {
		t.Fatal(err)
	}
	before := handover.NewSender(link) // the process before, which has not said yet that it is done
	if err := before.Greet(0, 0, nil); err != nil {
		t.Fatal(err)
	}
	e, err := TakeOver(t.Context(), Options{Loops: 1}, taker)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error)
	go func() { ended <- e.Run(ctx) }()
	if _, err := before.AwaitReady(); err != nil {
		t.Fatal(err)
	}
	if _, err := e.HandOver(ctx, new(net.UnixConn), nil); err == nil || !strings.Contains(err.Error(), "still taking over") {
		t.Errorf("HandOver: %v", err)
	}
	if err := before.Done(); err != nil {
		t.Fatal(err)
	}
	for e.takesOver() {
		time.Sleep(time.Millisecond)
	}
	if _, err := e.HandOver(ctx, new(net.UnixConn), nil); err == nil || strings.Contains(err.Error(), "still taking over") {
		t.Errorf("HandOver after that: %v", err)
	}
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

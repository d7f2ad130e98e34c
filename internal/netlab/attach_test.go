package netlab_test

import (
	"context"
	"errors"
	"io"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tprelay/tprelay/internal/leak"
	"github.com/tprelay/tprelay/internal/netlab"
)

func TestAttachedLabUsesHostsAndLeavesThem(t *testing.T) {
	leak.Check(t)
	lab := newLab(t, netlab.Config{})
	// A process in each host, which only lab may end.
	var pids []int
	for _, h := range []*netlab.Host{lab.H1, lab.H2, lab.H3} {
		cmd := h.Command(context.Background(), "sleep", "1000")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		pids = append(pids, cmd.PID())
	}
	attached, err := netlab.Attach(pids[0], pids[1], pids[2])
	if err != nil {
		t.Fatal(err)
	}
	defer attached.Close()
	for i, h := range []*netlab.Host{attached.H1, attached.H2, attached.H3} {
		want := []*netlab.Host{lab.H1, lab.H2, lab.H3}[i]
		if h.Addr4 != want.Addr4 || h.Addr6 != want.Addr6 || len(h.Ifaces) != len(want.Ifaces) || h.Ifaces[0] != want.Ifaces[0] {
			t.Errorf("%s: %v %v, wanted %v %v", h.Name, h.Addr4, h.Ifaces, want.Addr4, want.Ifaces)
		}
	}
	l, err := attached.H3.Listen("tcp", attached.H3.Addr4.String()+":80")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	client, err := lab.H1.Dial(context.Background(), "tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	client.Close()
	own := attached.H2.Command(context.Background(), "sleep", "1000")
	if err := own.Start(); err != nil {
		t.Fatal(err)
	}
	if err := attached.Close(); err != nil {
		t.Error(err)
	}
	select {
	case <-own.Done():
	case <-time.After(10 * time.Second):
		t.Error("its own program goes on")
	}
	for _, pid := range pids {
		if err := syscall.Kill(pid, 0); err != nil {
			t.Errorf("process %d, which it did not start: %v", pid, err)
		}
	}
	if again, err := lab.H3.Listen("tcp", "10.77.2.3:0"); err != nil {
		t.Error(err)
	} else {
		again.(io.Closer).Close()
	}
}

func TestAttachSaysWhatIsMissing(t *testing.T) {
	leak.Check(t)
	if _, err := netlab.Attach(1<<30, 1, 1); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no such process: %v", err)
	}
	lab := newLab(t, netlab.Config{})
	cmd := lab.H3.Command(context.Background(), "sleep", "1000")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	h1 := lab.H1.Command(context.Background(), "sleep", "1000")
	if err := h1.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := netlab.Attach(h1.PID(), cmd.PID(), cmd.PID()); err == nil || !strings.Contains(err.Error(), "h2: no interface is in the network of h1") {
		t.Errorf("h3 as h2: %v", err)
	}
}

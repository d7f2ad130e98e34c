package client

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tprelay/tprelay/bench/worker"
	"github.com/tprelay/tprelay/bench/worker/workertest"
	"github.com/tprelay/tprelay/internal/leak"
	"github.com/tprelay/tprelay/internal/netlab"
	"github.com/tprelay/tprelay/internal/netlab/netlabtest"
)

func testLab(t *testing.T) *netlab.Lab {
	t.Helper()
	t.Setenv(asWorker, "1")
	return netlabtest.New(t, netlab.Config{})
}

func startOn(t *testing.T, host *netlab.Host, job worker.Job) *worker.Worker {
	t.Helper()
	w, err := worker.Start(t.Context(), host, "/proc/self/exe", job)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.Stop() })
	return w
}

func TestWorkersOnHostsMeasure(t *testing.T) {
	leak.Check(t)
	lab := testLab(t)
	address := netip.AddrPortFrom(lab.H3.Addr4, 8080)
	server := startOn(t, lab.H3, worker.Job{Kind: worker.Serve, Address: address})
	if limit, err := lab.H3.Sysctl("net.core.somaxconn"); err != nil || limit != "16384" {
		t.Errorf("somaxconn is %s, %v", limit, err)
	}
	for _, job := range []worker.Job{{Kind: worker.RR, Connections: 10}, {Kind: worker.Bulk}, {Kind: worker.CPS, Connections: 2}} {
		job.Address = address
		client := startOn(t, lab.H1, job)
		if client.PID() == 0 || client.PID() == os.Getpid() {
			t.Errorf("PID %d", client.PID())
		}
		w := workertest.Window(short)
		for _, each := range []*worker.Worker{server, client} {
			if err := each.Measure(w); err != nil {
				t.Fatal(err)
			}
		}
		got, err := client.Result()
		if err != nil {
			t.Fatal(err)
		}
		atServer, err := server.Result()
		if err != nil {
			t.Fatal(err)
		}
		if got.Errors > 0 || got.Requests+atServer.Bytes == 0 || got.CPU <= 0 || atServer.CPU <= 0 {
			t.Errorf("%s: %+v, %+v", job.Kind, got, atServer)
		}
		if err := client.Stop(); err != nil {
			t.Error(err)
		}
	}
	for range 2 {
		if err := server.Stop(); err != nil {
			t.Error(err)
		}
	}
}

func TestAPausedWorkerDoesNothingUntilItIsResumed(t *testing.T) {
	leak.Check(t)
	lab := testLab(t)
	address := netip.AddrPortFrom(lab.H3.Addr4, 8080)
	server := startOn(t, lab.H3, worker.Job{Kind: worker.Serve, Address: address})
	client := startOn(t, lab.H1, worker.Job{Kind: worker.Bulk, Address: address})
	for _, paused := range []bool{true, false, true} {
		do := client.Resume
		if paused {
			do = client.Pause
		}
		if err := do(); err != nil {
			t.Fatal(err)
		}
		if err := server.Measure(workertest.Window(short)); err != nil {
			t.Fatal(err)
		}
		r, err := server.Result()
		if err != nil {
			t.Fatal(err)
		}
		if paused != (r.Bytes == 0) {
			t.Errorf("paused: %v, and %d bytes came", paused, r.Bytes)
		}
	}
	if err := client.Stop(); err != nil { // paused as it is
		t.Error(err)
	}
	// It may have done its work before it is stopped.
	if err := errors.Join(client.Pause(), client.Resume()); err != nil {
		t.Error(err)
	}
}

func TestLastWordsAreInTheError(t *testing.T) {
	leak.Check(t)
	lab := testLab(t)
	_, err := worker.Start(t.Context(), lab.H1, "/proc/self/exe", worker.Job{Kind: worker.Serve, Address: netip.AddrPortFrom(lab.H3.Addr4, 8080)})
	if err == nil || !strings.Contains(err.Error(), "cannot assign requested address") || strings.Contains(err.Error(), "\n") {
		t.Errorf("got %v", err)
	}
	if _, err = worker.Start(t.Context(), lab.H1, "/proc/self/exe", worker.Job{Kind: "ftp"}); err == nil || !strings.Contains(err.Error(), `kind "ftp"`) {
		t.Errorf("got %v", err)
	}
	if _, err = worker.Start(t.Context(), lab.H1, "/no/such/program", worker.Job{Kind: worker.RR}); err == nil || !strings.Contains(err.Error(), "no such file") {
		t.Errorf("got %v", err)
	}
	w := startOn(t, lab.H1, worker.Job{Kind: worker.CPS, Address: netip.AddrPortFrom(lab.H3.Addr4, 8080)})
	if err := w.Measure(worker.Window{}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Result(); err == nil || !strings.Contains(err.Error(), "lies ahead") {
		t.Errorf("got %v", err)
	}
	if err := w.Stop(); err == nil {
		t.Error("it ended well")
	}
}

func TestKilledWorkerIsAnError(t *testing.T) {
	leak.Check(t)
	lab := testLab(t)
	w := startOn(t, lab.H1, worker.Job{Kind: worker.CPS, Address: netip.AddrPortFrom(lab.H3.Addr4, 8080)})
	if err := w.Measure(worker.Window{From: time.Now().Add(time.Second), To: time.Now().Add(time.Hour)}); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(w.PID(), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Result(); err == nil || !strings.Contains(err.Error(), "killed") {
		t.Errorf("got %v", err)
	}
}

func TestContextEndsAWorker(t *testing.T) {
	leak.Check(t)
	lab := testLab(t)
	ctx, cancel := context.WithCancel(t.Context())
	w, err := worker.Start(ctx, lab.H3, "/proc/self/exe", worker.Job{Kind: worker.Serve, Address: netip.AddrPortFrom(lab.H3.Addr4, 8080)})
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	if _, err := w.Result(); err == nil {
		t.Error("a result")
	}
	w.Stop()
}

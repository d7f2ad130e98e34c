// Package workertest runs workers inside a test.
package workertest

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/tprelay/tprelay/bench/worker"
)

// NewTask makes the task of a job: client.New or server.New.
type NewTask = func(job worker.Job, fail func(error)) worker.Task

// Hand is a worker in this process.
type Hand struct {
	t    *testing.T
	in   *io.PipeWriter
	out  *json.Decoder
	mute func() error // closes the reader of out
	done chan error
}

// Start starts a worker, which ends with the test.
func Start(t *testing.T, ctx context.Context, newTask NewTask, job worker.Job) *Hand {
	t.Helper()
	inR, inW := io.Pipe()
	outR, outW := io.Pipe()
	h := &Hand{t: t, in: inW, out: json.NewDecoder(outR), mute: outR.Close, done: make(chan error, 1)}
	go func() {
		err := worker.Work(ctx, inR, outW, newTask)
		outW.Close()
		h.done <- err
	}()
	t.Cleanup(func() { h.End() })
	h.Say(job)
	return h
}

// Ready waits until the worker is ready.
func (h *Hand) Ready() *Hand {
	h.t.Helper()
	var ready struct{ Ready bool }
	if err := h.out.Decode(&ready); err != nil || !ready.Ready {
		h.t.Fatalf("not ready: %v, %v", err, h.End())
	}
	return h
}

// Say writes to the worker's input.
func (h *Hand) Say(v any) {
	h.t.Helper()
	if err := json.NewEncoder(h.in).Encode(v); err != nil {
		h.t.Fatal(err)
	}
}

// Window is one that begins soon, but late enough for a busy machine.
func Window(length time.Duration) worker.Window {
	from := time.Now().Add(300 * time.Millisecond)
	return worker.Window{From: from, To: from.Add(length)}
}

// Result waits for a result.
func (h *Hand) Result() *worker.Result {
	h.t.Helper()
	r := new(worker.Result)
	if err := h.out.Decode(r); err != nil {
		h.t.Fatalf("no result: %v, %v", err, h.End())
	}
	return r
}

// Measure lets the worker count for a while.
func (h *Hand) Measure(length time.Duration) *worker.Result {
	h.t.Helper()
	h.Say(Window(length))
	return h.Result()
}

// Ended waits for the worker to end by itself, and returns what Work returned.
func (h *Hand) Ended() error {
	err := <-h.done
	h.done <- err
	return err
}

// End ends the worker, if it has not ended, and returns what Work returned.
func (h *Hand) End() error {
	h.in.Close()
	h.mute()
	select {
	case err := <-h.done:
		h.done <- err
		return err
	case <-time.After(20 * time.Second):
		h.t.Error("the worker does not end")
		return errors.New("hangs")
	}
}

// Ports returns an address on loopback whose port and the next one are free.
func Ports(t *testing.T) netip.AddrPort {
	t.Helper()
	for range 100 {
		first, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		address := netip.MustParseAddrPort(first.Addr().String())
		first.Close()
		if address.Port() == 65535 {
			continue
		}
		second, err := net.Listen("tcp", worker.Job{Address: address}.StreamAddress().String())
		if err == nil {
			second.Close()
			return address
		}
	}
	t.Fatal("no two ports in a row are free")
	return netip.AddrPort{}
}

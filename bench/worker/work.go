package worker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"time"

	"github.com/tprelay/tprelay/internal/procstat"
)

const (
	// linger is how long traffic goes on after the window, so that what is sampled at its end, here
	// and elsewhere, does not see connections being torn down.
	linger = 50 * time.Millisecond
	// overtime is how long after its window a worker ends at the latest.
	overtime = 10 * time.Second
	// tardy is how late a worker may be at the beginning of a window.
	tardy = 20 * time.Millisecond
	// SetUpLimit is how long a task may take to set up.
	SetUpLimit = time.Minute
)

// Task is what a worker of some kind does.
type Task interface {
	// SetUp returns when each connection stands or has failed, and traffic flows. An error means
	// that the worker has to give up.
	SetUp(ctx context.Context) error
	// Begin makes the window known, before it begins.
	Begin(Window)
	// Finish reports what was counted, some time after the window. It ends all traffic of a client.
	Finish(context.Context, *Result)
	// Close ends everything and waits until it has ended, whatever was called before.
	Close()
}

// errInputEnded ends a worker without an error.
var errInputEnded = errors.New("the input has ended")

// Work is the worker. It reads a Job from in, prints a line when it is ready, reads a Window and
// prints the Result when that is over, all as lines of JSON. A client then returns; a server goes
// on with the next Window. newTask makes the task of a job; the task calls fail when it cannot go
// on.
//
// Work returns nil when in ends first, and otherwise the error that kept it from giving a Result:
// failed connections are in the Result instead. 10 s after its window a client has returned in any
// event. A goroutine that reads in is left until in ends.
func Work(ctx context.Context, in io.Reader, out io.Writer, newTask func(job Job, fail func(error)) Task) (err error) {
	orders := json.NewDecoder(in)
	var job Job
	if err := orders.Decode(&job); err != nil {
		return fmt.Errorf("read the job: %w", err)
	}
	if job, err = job.Complete(); err != nil {
		return fmt.Errorf("job: %w", err)
	}
	if job.Processors > 0 {
		runtime.GOMAXPROCS(job.Processors)
	}
	defer func() {
		if errors.Is(err, errInputEnded) {
			err = nil
		} else if err != nil {
			err = fmt.Errorf("%s %v: %w", job.Kind, job.Address, err)
		}
	}()

	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	windows := make(chan Window)
	go readWindows(ctx, orders, windows, cancel)

	t := newTask(job, cancel)
	defer t.Close()
	if err := t.SetUp(ctx); err != nil {
		return err
	}
	if err := write(out, readyLine{true}); err != nil {
		return err
	}
	for {
		var w Window
		select {
		case w = <-windows:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		r, err := measure(ctx, t, w)
		if err != nil {
			return err
		}
		if err := write(out, r); err != nil {
			return err
		}
		if job.Kind != Serve {
			return nil
		}
	}
}

// readWindows passes windows on until the input ends or ctx does.
func readWindows(ctx context.Context, orders *json.Decoder, windows chan<- Window, cancel context.CancelCauseFunc) {
	for {
		var w Window
		if err := orders.Decode(&w); err == io.EOF {
			cancel(errInputEnded)
			return
		} else if err != nil {
			cancel(fmt.Errorf("read the window: %w", err))
			return
		}
		select {
		case windows <- w:
		case <-ctx.Done():
			return
		}
	}
}

// measure lets the task count for the length of a window.
func measure(ctx context.Context, t Task, w Window) (*Result, error) {
	if late := time.Since(w.From); late > tardy || !w.To.After(w.From) {
		return nil, fmt.Errorf("window from %v to %v: want one that lies ahead", w.From, w.To)
	}
	if w.Every < 0 || w.Settle < 0 || w.Every > 0 && (w.Part <= 0 || w.Part > w.Every) {
		return nil, fmt.Errorf("window with parts of %v every %v: want shorter ones", w.Part, w.Every)
	}
	limit := overtime + w.Every // a stopped client cannot report
	ctx, cancel := context.WithDeadlineCause(ctx, w.To.Add(limit), fmt.Errorf("no result %v after the window", limit))
	defer cancel()
	t.Begin(w)
	c := NewClock()
	s := c.span(w)
	r := &Result{}
	for _, part := range s.parts() {
		if err := c.SleepUntil(ctx, part.from); err != nil {
			return nil, err
		}
		before, err := procstat.CPU(os.Getpid())
		if err != nil {
			return nil, err
		}
		if err := c.SleepUntil(ctx, part.to); err != nil {
			return nil, err
		}
		after, err := procstat.CPU(os.Getpid())
		if err != nil {
			return nil, err
		}
		r.CPU += after - before
	}
	if err := c.SleepUntil(ctx, s.to+linger); err != nil {
		return nil, err
	}
	t.Finish(ctx, r)
	return r, nil
}

func write(out io.Writer, v any) error {
	text, err := line(v)
	if err == nil {
		_, err = out.Write(text)
	}
	return err
}

package ends

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"time"

	"github.com/tprelay/tprelay/bench/account"
)

const (
	// settle is how long traffic goes on after the window: what is sampled at its
	// end, here and elsewhere, is not to see connections being torn down.
	settle = 50 * time.Millisecond
	// overtime is how long after its window a worker ends at the latest.
	overtime = 10 * time.Second
	// tardy is how late a worker may be at a window's beginning.
	tardy = 20 * time.Millisecond
)

// task is what a worker of some kind does.
type task interface {
	// setUp returns when all connections stand, or have failed, and traffic flows.
	// It fails where there is no sense in going on.
	setUp(ctx context.Context) error
	// begin makes the window known, before it begins.
	begin(Window)
	// finish tells what was counted, some time after the window; but for the
	// server, that is the end of all traffic.
	finish(context.Context, *Result)
	// close ends everything and waits until it is gone, whatever was called before.
	close()
}

func newTask(job Job, fail func(error)) task {
	c := newClock()
	switch job.Kind {
	case Serve:
		return &server{job: job, clock: c, fail: fail}
	case RR:
		return newRequester(job, c)
	case CPS:
		return newConnector(job, c)
	case Idle:
		return newIdler(job, c)
	}
	return newStreams(job, c)
}

// errInputEnded ends a worker without an error.
var errInputEnded = errors.New("the input has ended")

// Work is the worker. It reads a Job from in, prints a line when it is ready, reads a
// Window, prints the Result when that is over, all of them as lines of JSON, and
// returns; a server goes on with the next Window. It returns nil when in ends first,
// and otherwise the error that kept it from giving a Result: trouble with connections
// is no such error, but is in the Result. 10 s after its window a client has returned
// in any event. A goroutine that reads in is left until in ends.
func Work(ctx context.Context, in io.Reader, out io.Writer) (err error) {
	orders := json.NewDecoder(in)
	var job Job
	if err := orders.Decode(&job); err != nil {
		return fmt.Errorf("read the job: %w", err)
	}
	if job, err = job.complete(); err != nil {
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
	defer t.close()
	if err := t.setUp(ctx); err != nil {
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

// readWindows hands windows over until the input ends or ctx does.
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

// measure counts for the length of a window.
func measure(ctx context.Context, t task, w Window) (*Result, error) {
	if late := time.Since(w.From); late > tardy || !w.To.After(w.From) {
		return nil, fmt.Errorf("window from %v to %v: want one that is still to come", w.From, w.To)
	}
	if w.Every < 0 || w.Lead < 0 || w.Every > 0 && (w.Part <= 0 || w.Part > w.Every) {
		return nil, fmt.Errorf("window with parts of %v every %v: want shorter ones", w.Part, w.Every)
	}
	limit := overtime + w.Every // while it is stopped, it has none
	ctx, cancel := context.WithDeadlineCause(ctx, w.To.Add(limit), fmt.Errorf("no result %v after the window", limit))
	defer cancel()
	t.begin(w)
	c := newClock()
	s := c.span(w)
	r := &Result{}
	for _, part := range s.parts() {
		if err := c.sleepUntil(ctx, part.from); err != nil {
			return nil, err
		}
		before, err := account.Process(os.Getpid())
		if err != nil {
			return nil, err
		}
		if err := c.sleepUntil(ctx, part.to); err != nil {
			return nil, err
		}
		after, err := account.Process(os.Getpid())
		if err != nil {
			return nil, err
		}
		r.CPU += after - before
	}
	if err := c.sleepUntil(ctx, s.to+settle); err != nil {
		return nil, err
	}
	t.finish(ctx, r)
	return r, nil
}

func write(out io.Writer, v any) error {
	text, err := line(v)
	if err == nil {
		_, err = out.Write(text)
	}
	return err
}

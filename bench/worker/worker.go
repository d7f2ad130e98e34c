package worker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/tprelay/tprelay/internal/netlab"
)

const (
	// stopTimeout is how long a worker may take to end when it is told to.
	stopTimeout = 5 * time.Second
	// backlog is how many connections may wait to be accepted by a server.
	backlog = "16384"
)

// Worker is a worker process on a host of a lab. Its methods may be called from any goroutine, one
// at a time.
type Worker struct {
	job    Job
	cmd    *netlab.Cmd
	orders *os.File
	output chan json.RawMessage // closed at the end of its standard output
	quit   chan struct{}        // closed by Stop
	last   time.Time            // deadline of the result
	once   sync.Once
	err    error // of Stop
}

// Start starts a worker on the host, by running `self worker`, and returns when it is ready. The
// worker ends with ctx at the latest. The error has the worker's last words. On the host of a
// server Start raises net.core.somaxconn, which is the host's own.
func Start(ctx context.Context, host *netlab.Host, self string, job Job) (*Worker, error) {
	if job.Kind == Serve {
		if err := host.SetSysctl("net.core.somaxconn", backlog); err != nil {
			return nil, err
		}
	}
	in, orders, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("%s worker on %s: %w", job.Kind, host.Name, err)
	}
	defer in.Close()
	w := &Worker{
		job: job, cmd: host.Command(ctx, self, "worker"), orders: orders,
		output: make(chan json.RawMessage), quit: make(chan struct{}),
	}
	w.cmd.Stdin = in
	out, err := w.cmd.StdoutPipe()
	if err == nil {
		if err = w.cmd.Start(); err != nil {
			out.Close()
		}
	}
	if err != nil {
		orders.Close()
		return nil, err
	}
	go w.readOutput(out)
	if err := w.handshake(ctx); err != nil {
		w.Stop()
		return nil, fmt.Errorf("%s worker on %s: %w", job.Kind, host.Name, err)
	}
	return w, nil
}

// handshake gives the worker its job and waits until it is ready.
func (w *Worker) handshake(ctx context.Context) error {
	if err := write(w.orders, w.job); err != nil {
		return w.orExitError(err)
	}
	var ready readyLine
	// A worker bounds its set-up itself; this limit is for one that hangs.
	if err := w.read(ctx, SetUpLimit+overtime, &ready); err != nil {
		return err
	}
	if !ready.Ready {
		return errors.New("it did not say that it is ready")
	}
	return nil
}

// readOutput reads the worker's output until it ends, or Stop is called.
func (w *Worker) readOutput(out io.ReadCloser) {
	defer out.Close()
	defer close(w.output)
	for dec := json.NewDecoder(out); ; {
		var text json.RawMessage
		if dec.Decode(&text) != nil {
			return
		}
		select {
		case w.output <- text:
		case <-w.quit:
			return
		}
	}
}

// read takes the next line of the worker's output.
func (w *Worker) read(ctx context.Context, limit time.Duration, to any) error {
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case text, ok := <-w.output:
		if !ok {
			return w.orExitError(errors.New("it ended without a message"))
		}
		return json.Unmarshal(text, to)
	case <-timer.C:
		return fmt.Errorf("it hangs: nothing came from it for %v", limit.Round(time.Second))
	case <-ctx.Done():
		return ctx.Err()
	}
}

// orExitError is the worker's exit error, which says more than err, or err if it does not end.
func (w *Worker) orExitError(err error) error {
	select {
	case <-w.cmd.Done():
		if ended := w.cmd.Wait(); ended != nil {
			return ended
		}
	case <-time.After(stopTimeout):
	}
	return err
}

// Measure tells the worker when to count, and returns at once. A client measures one window, a
// server any number, one after the other. From should lie a tenth of a second ahead, so that the
// worker is told in time.
func (w *Worker) Measure(window Window) error {
	if err := write(w.orders, window); err != nil {
		return fmt.Errorf("%s worker: %w", w.job.Kind, w.orExitError(err))
	}
	w.last = window.To.Add(overtime + stopTimeout)
	return nil
}

// Result waits for the result of the window. The error has the worker's last words; failed
// connections are in the Result instead.
func (w *Worker) Result() (*Result, error) {
	r := new(Result)
	if err := w.read(context.Background(), max(time.Until(w.last), time.Second), r); err != nil {
		return nil, fmt.Errorf("%s worker: %w", w.job.Kind, err)
	}
	return r, nil
}

// Pause stops a worker's process until Resume. Replies to what it has sent still arrive, and it
// reads them later. Its deadlines of 5 s go on.
func (w *Worker) Pause() error { return w.signal(syscall.SIGSTOP) }

// Resume lets a worker go on.
func (w *Worker) Resume() error { return w.signal(syscall.SIGCONT) }

// signal ignores a worker that has ended, as a client does after its window; if it ended too early,
// Result returns the error.
func (w *Worker) signal(s os.Signal) error {
	if err := w.cmd.Signal(s); !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	return nil
}

// PID returns the worker's process id, as seen from this process.
func (w *Worker) PID() int { return w.cmd.PID() }

// Stop tells the worker to end, and kills it if it does not within 5 s. The error is nil if it
// exited with status 0. Further calls return the same.
func (w *Worker) Stop() error {
	w.once.Do(func() {
		_ = w.Resume() // fails if it has ended
		w.orders.Close()
		close(w.quit)
		select {
		case <-w.cmd.Done():
		case <-time.After(stopTimeout):
			w.cmd.Stop()
		}
		if err := w.cmd.Wait(); err != nil {
			w.err = fmt.Errorf("%s worker: %w", w.job.Kind, err)
		}
	})
	return w.err
}

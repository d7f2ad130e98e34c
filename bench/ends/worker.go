package ends

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
	// kindly is how long a worker may take to end when it is told to.
	kindly = 5 * time.Second
	// backlog is how many connections may wait to be accepted by a server.
	backlog = "16384"
)

// Worker is a worker process on a host of a lab. Its methods may be called from any
// goroutine, one at a time.
type Worker struct {
	job    Job
	cmd    *netlab.Cmd
	orders *os.File
	told   chan json.RawMessage // closed when it says no more
	quit   chan struct{}        // closed when nobody listens any more
	last   time.Time            // by when there is a result, or none will come
	once   sync.Once
	err    error // of Stop
}

// Start starts a worker on the host, by running `self worker`, and returns when it is
// ready. ctx bounds its life. The error has the worker's last words. On the host of a
// server it raises net.core.somaxconn, which is the host's own.
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
		told: make(chan json.RawMessage), quit: make(chan struct{}),
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
	go w.listen(out)
	if err := w.greet(ctx); err != nil {
		w.Stop()
		return nil, fmt.Errorf("%s worker on %s: %w", job.Kind, host.Name, err)
	}
	return w, nil
}

// greet gives it the job and waits until it is ready.
func (w *Worker) greet(ctx context.Context) error {
	if err := write(w.orders, w.job); err != nil {
		return w.orWhyItEnded(err)
	}
	var ready readyLine
	// A worker bounds its set-up; this is for one that hangs.
	if err := w.read(ctx, setUpLimit+overtime, &ready); err != nil {
		return err
	}
	if !ready.Ready {
		return errors.New("it did not say that it is ready")
	}
	return nil
}

// listen reads what the worker says, until its end or ours.
func (w *Worker) listen(out io.ReadCloser) {
	defer out.Close()
	defer close(w.told)
	for dec := json.NewDecoder(out); ; {
		var text json.RawMessage
		if dec.Decode(&text) != nil {
			return
		}
		select {
		case w.told <- text:
		case <-w.quit:
			return
		}
	}
}

// read takes the next that the worker says.
func (w *Worker) read(ctx context.Context, limit time.Duration, to any) error {
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case text, ok := <-w.told:
		if !ok {
			return w.orWhyItEnded(errors.New("it ended without a word"))
		}
		return json.Unmarshal(text, to)
	case <-timer.C:
		return fmt.Errorf("it hangs: nothing came from it for %v", limit.Round(time.Second))
	case <-ctx.Done():
		return ctx.Err()
	}
}

// orWhyItEnded is the error of a worker that ends, which tells more, or err.
func (w *Worker) orWhyItEnded(err error) error {
	select {
	case <-w.cmd.Done():
		if ended := w.cmd.Wait(); ended != nil {
			return ended
		}
	case <-time.After(kindly):
	}
	return err
}

// Measure tells the worker when to count, and returns at once. A client measures one
// window; a server as many as wanted, one after the other. From should be far enough
// ahead for it to get there: a tenth of a second.
func (w *Worker) Measure(window Window) error {
	if err := write(w.orders, window); err != nil {
		return fmt.Errorf("%s worker: %w", w.job.Kind, w.orWhyItEnded(err))
	}
	w.last = window.To.Add(overtime + kindly)
	return nil
}

// Result waits for the result of the window. The error has the worker's last words;
// what went wrong with connections is in the Result instead.
func (w *Worker) Result() (*Result, error) {
	r := new(Result)
	if err := w.read(context.Background(), max(time.Until(w.last), time.Second), r); err != nil {
		return nil, fmt.Errorf("%s worker: %w", w.job.Kind, err)
	}
	return r, nil
}

// Pause stops a worker's process, until Resume lets it go on. What it has asked for by then is
// still answered, and it looks at that later: errors because of deadlines come after 5 s.
func (w *Worker) Pause() error { return w.signal(syscall.SIGSTOP) }

// Resume lets a worker go on.
func (w *Worker) Resume() error { return w.signal(syscall.SIGCONT) }

// signal: a client whose window is over may have ended; if it should not have, Result will tell.
func (w *Worker) signal(s os.Signal) error {
	if err := w.cmd.Signal(s); !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	return nil
}

// PID returns the worker's process id, as seen from this process.
func (w *Worker) PID() int { return w.cmd.PID() }

// Stop tells the worker to end, and kills it if it does not within 5 s. The error is
// nil if it ended by itself and well. It may be called again, to the same effect.
func (w *Worker) Stop() error {
	w.once.Do(func() {
		_ = w.Resume() // of no consequence if it has ended
		w.orders.Close()
		close(w.quit)
		select {
		case <-w.cmd.Done():
		case <-time.After(kindly):
			w.cmd.Stop()
		}
		if err := w.cmd.Wait(); err != nil {
			w.err = fmt.Errorf("%s worker: %w", w.job.Kind, err)
		}
	})
	return w.err
}

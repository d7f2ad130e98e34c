package testbed

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"time"

	"github.com/tprelay/tprelay/bench/units"
	"github.com/tprelay/tprelay/bench/worker"
	"github.com/tprelay/tprelay/internal/procstat"
)

// SettleTime is how far ahead a window begins at least, so that workers are told in time.
const SettleTime = 150 * time.Millisecond

// Usage is CPU time that was used up to a moment, or between two.
type Usage struct {
	At                             time.Duration // since the testbed was made
	Relay, Machine, Kernel, Driver time.Duration
	Steal                          procstat.Steal
}

// Minus is what was used between two moments.
func (u Usage) Minus(before Usage) Usage {
	return Usage{u.At - before.At, u.Relay - before.Relay, u.Machine - before.Machine, u.Kernel - before.Kernel, u.Driver - before.Driver, u.Steal.Minus(before.Steal)}
}

// Plus adds what was used at another time.
func (u Usage) Plus(more Usage) Usage {
	return Usage{u.At + more.At, u.Relay + more.Relay, u.Machine + more.Machine, u.Kernel + more.Kernel, u.Driver + more.Driver, u.Steal.Plus(more.Steal)}
}

// Usage reads it: the relay's first, as it matters most.
func (tb *Testbed) Usage() (u Usage, err error) {
	u.At = time.Since(tb.Began)
	for _, pid := range tb.Running.PIDs() {
		used, err := procstat.CPU(pid)
		if errors.Is(err, os.ErrNotExist) {
			continue // one of many has ended; if it was the relay itself, Stop will say so
		}
		if err != nil {
			return u, err
		}
		u.Relay += used
	}
	if u.Machine, err = procstat.Machine(); err != nil {
		return u, err
	}
	if u.Kernel, err = procstat.Kernel(); err != nil {
		return u, err
	}
	if u.Steal, err = procstat.Stolen(); err != nil {
		return u, err
	}
	u.Driver, err = procstat.CPU(os.Getpid())
	return u, err
}

// Measured is what was seen in a window.
type Measured struct {
	Clients, Servers []*worker.Result
	Window           time.Duration
	Used             Usage
}

// Count lets all workers count for the length of window, after settle.
func (tb *Testbed) Count(ctx context.Context, settle, window time.Duration) (*Measured, error) {
	w := worker.Window{From: time.Now().Add(max(settle, SettleTime))}
	w.To = w.From.Add(window)
	if err := tb.Measure(w); err != nil {
		return nil, err
	}
	used, err := tb.UsedBetween(ctx, w.From, w.To)
	if err != nil {
		return nil, err
	}
	return tb.Counted(window, used)
}

// UsedBetween waits for both moments, and returns what is used between them.
func (tb *Testbed) UsedBetween(ctx context.Context, from, to time.Time) (u Usage, err error) {
	if err := SleepUntil(ctx, from); err != nil {
		return u, err
	}
	before, err := tb.Usage()
	if err != nil {
		return u, err
	}
	if err := SleepUntil(ctx, to); err != nil {
		return u, err
	}
	after, err := tb.Usage()
	return after.Minus(before), err
}

// Measure tells all workers of the window.
func (tb *Testbed) Measure(w worker.Window) error {
	for _, each := range slices.Concat(tb.Clients, tb.Servers) {
		if err := each.Measure(w); err != nil {
			return err
		}
	}
	return nil
}

// Counted takes the results of all workers.
func (tb *Testbed) Counted(window time.Duration, used Usage) (m *Measured, err error) {
	if err := tb.Running.Err(); err != nil {
		return nil, err
	}
	m = &Measured{Window: window, Used: used}
	if m.Clients, err = results(tb.Clients); err != nil {
		return nil, err
	}
	if m.Servers, err = results(tb.Servers); err != nil {
		return nil, err
	}
	tb.inspect(m)
	return m, nil
}

func results(workers []*worker.Worker) (all []*worker.Result, err error) {
	for _, w := range workers {
		r, err := w.Result()
		if err != nil {
			return nil, err
		}
		all = append(all, r)
	}
	return all, nil
}

// SleepUntil waits until then, or returns the error of ctx.
func SleepUntil(ctx context.Context, then time.Time) error {
	timer := time.NewTimer(time.Until(then))
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// inspect warns of what makes the figures doubtful.
func (tb *Testbed) inspect(m *Measured) {
	// The kernel's threads worked for us, mostly.
	others := m.Used.Machine - m.Used.Kernel - m.Used.Relay - m.Used.Driver
	for _, r := range slices.Concat(m.Clients, m.Servers) {
		others -= r.CPU
	}
	capacity := m.Used.At * time.Duration(runtime.NumCPU())
	tb.Others = max(float64(others)/float64(capacity), 0)
	tb.Stolen = m.Used.Steal.Share()
	tb.inspectDescriptors()
	if n, first := m.Errors(); n > 0 {
		tb.Warn("%s, the first: %s", units.Plural(int(n), "error"), first)
	}
}

// inspectDescriptors warns of a relay that has no descriptors left: its limit is then what counts,
// and not its speed.
func (tb *Testbed) inspectDescriptors() {
	const nearly = 0.95
	for _, pid := range tb.Running.PIDs() {
		open, err := procstat.Descriptors(pid)
		if err != nil {
			continue // it has just ended
		}
		if limit, err := procstat.DescriptorLimit(pid); err == nil && float64(open) > nearly*float64(limit) {
			tb.Warn("the relay has %s of %s descriptors open", units.Figure(float64(open)), units.Figure(float64(limit)))
			return
		}
	}
}

// Errors counts those of all workers, and returns the first.
func (m *Measured) Errors() (n uint64, first string) {
	for _, r := range slices.Concat(m.Clients, m.Servers) {
		n += r.Errors
		if first == "" {
			first = r.Error
		}
	}
	return n, first
}

// Nothing is the error of a window in which nothing was moved, with what the workers say of it.
func (m *Measured) Nothing(what string) error {
	if n, first := m.Errors(); n > 0 {
		return fmt.Errorf("%s; %s, the first: %s", what, units.Plural(int(n), "error"), first)
	}
	return errors.New(what)
}

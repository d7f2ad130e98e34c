package bench

import (
	"context"
	"errors"
	"os"
	"runtime"
	"time"

	"github.com/tprelay/tprelay/bench/worker"
	"github.com/tprelay/tprelay/internal/procstat"
)

// lead is how far ahead a window begins at least, so that workers are told in time.
const lead = 150 * time.Millisecond

// usage is CPU time used up to a moment, or of the time between two.
type usage struct {
	at                             time.Duration // since the bed was begun
	relay, machine, kernel, driver time.Duration
	steal                          procstat.Steal
}

func (u usage) minus(before usage) usage {
	return usage{u.at - before.at, u.relay - before.relay, u.machine - before.machine, u.kernel - before.kernel, u.driver - before.driver, u.steal.Minus(before.steal)}
}

func (u usage) plus(more usage) usage {
	return usage{u.at + more.at, u.relay + more.relay, u.machine + more.machine, u.kernel + more.kernel, u.driver + more.driver, u.steal.Plus(more.steal)}
}

// usage reads it: the relay's first, as it is what matters most.
func (b *bed) usage() (u usage, err error) {
	u.at = time.Since(b.began)
	for _, pid := range b.relay.PIDs() {
		used, err := procstat.CPU(pid)
		if errors.Is(err, os.ErrNotExist) {
			continue // one of many has ended; if it was the relay itself, Stop will say so
		}
		if err != nil {
			return u, err
		}
		u.relay += used
	}
	if u.machine, err = procstat.Machine(); err != nil {
		return u, err
	}
	if u.kernel, err = procstat.Kernel(); err != nil {
		return u, err
	}
	if u.steal, err = procstat.Stolen(); err != nil {
		return u, err
	}
	u.driver, err = procstat.CPU(os.Getpid())
	return u, err
}

// measured is what was seen in a window.
type measured struct {
	clients, servers []*worker.Result
	window           time.Duration
	used             usage
}

// window lets all workers count for the length of the plan's window.
func (b *bed) window(ctx context.Context) (*measured, error) {
	return b.count(ctx, max(b.plan.WarmUp, lead), b.plan.Window)
}

// count lets all workers count for a while, after a warm-up.
func (b *bed) count(ctx context.Context, warmUp, window time.Duration) (*measured, error) {
	w := worker.Window{From: time.Now().Add(warmUp)}
	w.To = w.From.Add(window)
	if err := b.measure(w); err != nil {
		return nil, err
	}
	used, err := b.usedBetween(ctx, w.From, w.To)
	if err != nil {
		return nil, err
	}
	return b.counted(window, used)
}

// usedBetween waits for both moments, and gives what is used between them.
func (b *bed) usedBetween(ctx context.Context, from, to time.Time) (u usage, err error) {
	if err := sleepUntil(ctx, from); err != nil {
		return u, err
	}
	before, err := b.usage()
	if err != nil {
		return u, err
	}
	if err := sleepUntil(ctx, to); err != nil {
		return u, err
	}
	after, err := b.usage()
	return after.minus(before), err
}

// measure tells all workers of the window.
func (b *bed) measure(w worker.Window) error {
	for _, worker := range append(b.clients[:len(b.clients):len(b.clients)], b.servers...) {
		if err := worker.Measure(w); err != nil {
			return err
		}
	}
	return nil
}

// counted takes what all workers counted.
func (b *bed) counted(window time.Duration, used usage) (m *measured, err error) {
	if err := b.relay.Err(); err != nil {
		return nil, err
	}
	m = &measured{window: window, used: used}
	if m.clients, err = results(b.clients); err != nil {
		return nil, err
	}
	if m.servers, err = results(b.servers); err != nil {
		return nil, err
	}
	b.inspect(m)
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

func sleepUntil(ctx context.Context, at time.Time) error {
	timer := time.NewTimer(time.Until(at))
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// inspect warns of what makes the figures doubtful.
func (b *bed) inspect(m *measured) {
	// What the kernel's threads did they did for us, mostly.
	others := m.used.machine - m.used.kernel - m.used.relay - m.used.driver
	for _, r := range append(m.clients[:len(m.clients):len(m.clients)], m.servers...) {
		others -= r.CPU
	}
	capacity := m.used.at * time.Duration(runtime.NumCPU())
	b.others = max(float64(others)/float64(capacity), 0)
	b.stolen = m.used.steal.Share()
	b.inspectDescriptors()
	if n, first := m.errors(); n > 0 {
		b.warn("%s, the first: %s", plural(int(n), "error"), first)
	}
}

// inspectDescriptors warns of a relay that has none left: what it cannot take then is
// a matter of its limit, not of its speed.
func (b *bed) inspectDescriptors() {
	const nearly = 0.95
	for _, pid := range b.relay.PIDs() {
		open, err := procstat.Descriptors(pid)
		if err != nil {
			continue // it has just ended
		}
		if limit, err := procstat.DescriptorLimit(pid); err == nil && float64(open) > nearly*float64(limit) {
			b.warn("the relay has %s descriptors of %s that it may have", number(float64(open)), number(float64(limit)))
			return
		}
	}
}

// errors counts those of all workers, and gives the first.
func (m *measured) errors() (n uint64, first string) {
	for _, r := range append(m.clients[:len(m.clients):len(m.clients)], m.servers...) {
		n += r.Errors
		if first == "" {
			first = r.Error
		}
	}
	return n, first
}

// cpu puts the CPU time per unit of work into figures, in parts of a second such as
// 1e-6: relay's and machine's. units is the work done in the window. Of no relay, and
// of no work, there is none.
func (b *bed) cpu(figures map[string]float64, m *measured, units, part float64) {
	perUnit(figures, b, m.used, units/m.window.Seconds()*m.used.at.Seconds(), part)
}

// perUnit does it for the work done meanwhile.
func perUnit(figures map[string]float64, b *bed, used usage, units, part float64) {
	if units <= 0 {
		return
	}
	if len(b.relay.PIDs()) > 0 {
		figures[relayCPU] = used.relay.Seconds() / units / part
	}
	figures[machineCPU] = used.machine.Seconds() / units / part
}

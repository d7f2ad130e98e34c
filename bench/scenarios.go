package bench

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"github.com/tprelay/tprelay/bench/worker"
)

const (
	giga  = 1e9
	micro = 1e-6
	milli = 1e-3
)

// figures does what the point says and gives its figures, by name.
func (b *bed) figures(ctx context.Context, figures map[string]float64) error {
	switch b.driver.With {
	case Iperf3:
		return b.iperf3(ctx, figures)
	case Wrk:
		return b.wrk(ctx, figures)
	}
	switch b.step.Point.Scenario {
	case "idle":
		return b.idle(ctx, figures)
	case "slow":
		return b.slow(ctx, figures)
	case "mixed":
		return b.mixed(ctx, figures)
	case "light":
		return b.paced(ctx, figures, b.step.Point.Rate)
	case "scale":
		return b.paced(ctx, figures, b.scale)
	case "many":
		return b.many(ctx, figures)
	}
	return b.full(ctx, figures)
}

// full lets the client do what it can.
func (b *bed) full(ctx context.Context, figures map[string]float64) error {
	if err := b.startClient(ctx); err != nil {
		return err
	}
	m, err := b.window(ctx)
	if err != nil {
		return err
	}
	return b.fill(figures, m)
}

// startClient starts the client of a scenario that has one, which does what it can.
func (b *bed) startClient(ctx context.Context) error {
	p := b.step.Point
	job := worker.Job{Connections: p.Connections, Down: p.Down, Reply: p.Reply, Processors: b.processors()}
	switch p.Scenario {
	case "bulk":
		job.Kind = worker.Bulk
	case "rr":
		job.Kind = worker.RR
	case "cps":
		job.Kind = worker.CPS
	default:
		return fmt.Errorf("scenario %s: there is no such", p.Scenario)
	}
	_, err := b.client(ctx, job)
	return err
}

// fill gives the figures of that client.
func (b *bed) fill(figures map[string]float64, m *measured) error {
	p := b.step.Point
	if p.Scenario != "bulk" {
		return b.requests(figures, m, m.clients[0], 0)
	}
	bytes := m.servers[0].Bytes
	if p.Down {
		bytes = m.clients[0].Bytes
	}
	if bytes == 0 {
		return b.nothing(m, "no byte arrived in the window")
	}
	figures[throughput] = 8 * float64(bytes) / m.window.Seconds() / giga
	b.cpu(figures, m, float64(bytes)/giga, 1)
	return nil
}

// paced asks and answers so many times a second.
func (b *bed) paced(ctx context.Context, figures map[string]float64, due float64) error {
	p := b.step.Point
	if _, err := b.client(ctx, worker.Job{Kind: worker.RR, Connections: p.Connections, Reply: p.Reply, Rate: due}); err != nil {
		return err
	}
	m, err := b.window(ctx)
	if err != nil {
		return err
	}
	return b.requests(figures, m, m.clients[0], due)
}

// requests gives the figures of requests; due is how many there should have been per
// second, if that was said.
func (b *bed) requests(figures map[string]float64, m *measured, r *worker.Result, due float64) error {
	if r.Requests == 0 {
		return b.nothing(m, "no request was answered in the window")
	}
	figures[rate] = float64(r.Requests) / m.window.Seconds()
	latency(figures, r)
	b.cpu(figures, m, float64(r.Requests), micro)
	n, _ := m.errors()
	figures[errorCount] = float64(n)
	if got := figures[rate]; got < 0.97*due {
		b.warn("%s of %s requests/s were answered", number(got), number(due))
	}
	return nil
}

// latency gives all quantiles, in ms; the point says which of them are shown.
func latency(figures map[string]float64, r *worker.Result) {
	if r.Latency == nil {
		return
	}
	h := hdrhistogram.Import(r.Latency)
	for name, quantile := range map[string]float64{p50: 50, p90: 90, p99: 99, p999: 99.9} {
		figures[name] = inMilliseconds(time.Duration(h.ValueAtQuantile(quantile)))
	}
}

func inMilliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// mixed has elephants, and those who type meanwhile.
func (b *bed) mixed(ctx context.Context, figures map[string]float64) error {
	if _, err := b.client(ctx, worker.Job{Kind: worker.Bulk, Connections: mixedStreams}); err != nil {
		return err
	}
	if _, err := b.client(ctx, worker.Job{Kind: worker.RR, Connections: mixedConnections, Reply: b.step.Point.Reply, Rate: mixedRate}); err != nil {
		return err
	}
	m, err := b.window(ctx)
	if err != nil {
		return err
	}
	figures[throughput] = 8 * float64(m.servers[0].Bytes) / m.window.Seconds() / giga
	return b.requests(figures, m, m.clients[1], mixedRate)
}

// nothing is the error when nothing came, with what the workers say of it.
func (b *bed) nothing(m *measured, what string) error {
	if n, first := m.errors(); n > 0 {
		return fmt.Errorf("%s; %s, the first: %s", what, plural(int(n), "error"), first)
	}
	return errors.New(what)
}

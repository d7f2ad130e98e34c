package bench

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"github.com/tprelay/tprelay/bench/ends"
)

const (
	giga  = 1e9
	micro = 1e-6
	milli = 1e-3
)

// figures does what the point says and gives its figures, by name.
func (b *bed) figures(ctx context.Context) (map[string]float64, error) {
	figures := map[string]float64{}
	var err error
	switch b.driver.With {
	case Iperf3:
		return figures, b.iperf3(ctx, figures)
	case Wrk:
		return figures, b.wrk(ctx, figures)
	}
	switch b.step.Point.Scenario {
	case "bulk":
		err = b.bulk(ctx, figures)
	case "rr":
		err = b.rr(ctx, figures, 0)
	case "cps":
		err = b.cps(ctx, figures)
	case "idle":
		err = b.idle(ctx, figures)
	case "slow":
		err = b.slow(ctx, figures)
	case "mixed":
		err = b.mixed(ctx, figures)
	case "scale":
		err = b.rr(ctx, figures, b.scale)
	case "many":
		err = b.many(ctx, figures)
	default:
		err = fmt.Errorf("scenario %s: there is no such", b.step.Point.Scenario)
	}
	return figures, err
}

func (b *bed) bulk(ctx context.Context, figures map[string]float64) error {
	p := b.step.Point
	if _, err := b.client(ctx, ends.Job{Kind: ends.Bulk, Connections: p.Connections, Down: p.Down}); err != nil {
		return err
	}
	m, err := b.window(ctx)
	if err != nil {
		return err
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

// rr asks and answers: as fast as it goes, or so many times a second.
func (b *bed) rr(ctx context.Context, figures map[string]float64, perSecond float64) error {
	p := b.step.Point
	if _, err := b.client(ctx, ends.Job{Kind: ends.RR, Connections: p.Connections, Reply: p.Reply, Rate: perSecond, Processors: b.processors()}); err != nil {
		return err
	}
	m, err := b.window(ctx)
	if err != nil {
		return err
	}
	return b.requests(figures, m, m.clients[0], perSecond)
}

func (b *bed) cps(ctx context.Context, figures map[string]float64) error {
	if _, err := b.client(ctx, ends.Job{Kind: ends.CPS, Connections: b.step.Point.Connections, Reply: b.step.Point.Reply}); err != nil {
		return err
	}
	m, err := b.window(ctx)
	if err != nil {
		return err
	}
	return b.requests(figures, m, m.clients[0], 0)
}

// requests gives the figures of requests; due is how many there should have been per
// second, if that was said.
func (b *bed) requests(figures map[string]float64, m *measured, r *ends.Result, due float64) error {
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
func latency(figures map[string]float64, r *ends.Result) {
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
	if _, err := b.client(ctx, ends.Job{Kind: ends.Bulk, Connections: mixedStreams}); err != nil {
		return err
	}
	if _, err := b.client(ctx, ends.Job{Kind: ends.RR, Connections: mixedConnections, Reply: b.step.Point.Reply, Rate: mixedRate}); err != nil {
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

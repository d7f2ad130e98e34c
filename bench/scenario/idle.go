package scenario

import (
	"context"
	"fmt"
	"time"

	"github.com/tprelay/tprelay/bench/testbed"
	"github.com/tprelay/tprelay/bench/units"
	"github.com/tprelay/tprelay/bench/worker"
)

// idle is connections without traffic.
type idle struct{}

func (idle) About() About {
	return About{
		Name: "idle", Title: "Idle pairs", Loop: noLoop,
		How: "Connections that have moved one request and one reply each, and are idle since.",
	}
}

func (idle) Workloads() (all []Workload) {
	for _, n := range []int{1000, 8000} {
		all = append(all, Workload{
			Name: fmt.Sprintf("idle-%d", n), Title: units.Plural(n, "concurrent connection"), Connections: n, Principal: n == 8000,
			AtRest: true, SetUp: time.Second, Metrics: perPair(),
		})
	}
	return all
}

// Start opens the connections, divided between the servers, and notes what the relay's processes
// occupy before and after.
func (idle) Start(ctx context.Context, tb *testbed.Testbed, w Workload) (err error) {
	if err := tb.Prime(ctx); err != nil {
		return err
	}
	for i := range tb.Servers {
		at, err := tb.Target(i)
		if err != nil {
			return err
		}
		if err := tb.StartClient(ctx, worker.Job{Kind: worker.Idle, Address: at, Connections: w.Connections / len(tb.Servers), Request: w.Request, Reply: w.Reply}); err != nil {
			return err
		}
	}
	// The warm-up is the time to come to rest. Afterwards clients find out whether their
	// connections are still alive.
	if err := testbed.SleepUntil(ctx, time.Now().Add(tb.WarmUp)); err != nil {
		return err
	}
	tb.After, err = tb.Footprint()
	return err
}

func (idle) Figures(tb *testbed.Testbed, _ Workload, m *testbed.Measured) (Figures, error) {
	var pairs uint64
	for _, r := range m.Clients {
		pairs += r.Connections
	}
	if pairs == 0 {
		return nil, m.Nothing("no connection was established")
	}
	n, _ := m.Errors()
	f := Figures{Errors: float64(n)}
	if growth := tb.After.Minus(tb.Before); len(tb.Running.PIDs()) > 0 {
		f[Resident] = float64(growth.Resident) / float64(pairs)
		f[Descriptors] = float64(growth.Descriptors) / float64(pairs)
	}
	return f, nil
}

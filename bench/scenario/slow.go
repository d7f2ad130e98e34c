package scenario

import (
	"context"
	"fmt"
	"time"

	"github.com/tprelay/tprelay/bench/testbed"
	"github.com/tprelay/tprelay/bench/units"
	"github.com/tprelay/tprelay/bench/worker"
)

// slow is a reader that takes less than the sender would send.
type slow struct{}

// slowPace is what the reader takes, in bytes per second.
const slowPace = 1 << 20

func (slow) About() About {
	return About{
		Name: "slow", Title: "Slow reader", Loop: closedLoop,
		How: fmt.Sprintf("One stream to a reader that takes %d KiB/s; the sender would send as fast as TCP lets it.", slowPace>>10),
	}
}

func (slow) Workloads() []Workload {
	return []Workload{{
		Name: "slow-1", Title: units.Plural(1, "stream"), Connections: 1, SetUp: time.Second,
		Metrics: []Metric{
			{Name: Growth, Title: "memory growth KiB", Unit: "KiB", How: "resident memory of the relay's processes at the end of the window minus that before the stream began"},
			{Name: RelayCPU, Title: "service demand ms/s", Unit: "ms/s", How: howRelayCPU},
			{Name: Arrived, Title: "arrived MB", Unit: "MB", More: true, How: "payload that the reader took in the window"},
		},
	}}
}

func (slow) Start(ctx context.Context, tb *testbed.Testbed, w Workload) error {
	if err := tb.Prime(ctx); err != nil {
		return err
	}
	return tb.StartClient(ctx, worker.Job{Kind: worker.Slow, Connections: w.Connections, Pace: slowPace})
}

func (slow) Figures(tb *testbed.Testbed, _ Workload, m *testbed.Measured) (Figures, error) {
	after, err := tb.Footprint()
	if err != nil {
		return nil, err
	}
	if m.Clients[0].Bytes == 0 {
		return nil, m.Nothing("no byte arrived in the window")
	}
	f := Figures{Arrived: float64(m.Clients[0].Bytes) / 1e6}
	f.addCPU(tb, m, m.Window.Seconds(), milli)
	delete(f, MachineCPU)
	if len(tb.Running.PIDs()) > 0 {
		f[Growth] = float64(after.Minus(tb.Before).Resident) / 1024
	}
	return f, nil
}

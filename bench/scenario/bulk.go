package scenario

import (
	"context"
	"fmt"

	"github.com/tprelay/tprelay/bench/testbed"
	"github.com/tprelay/tprelay/bench/units"
	"github.com/tprelay/tprelay/bench/worker"
)

// bulk is streams at full speed.
type bulk struct{}

func (bulk) About() About {
	return About{
		Name: "bulk", Title: "Bulk", Loop: closedLoop,
		How: "Streams that send as fast as TCP lets them, from client to server (up, TCP_STREAM) or from server to client (down, TCP_MAERTS).",
	}
}

func (bulk) Workloads() (all []Workload) {
	for _, direction := range []string{"up", "down"} {
		for _, n := range []int{1, 4, 64} {
			w := Workload{
				Name: fmt.Sprintf("bulk-%d-%s", n, direction), Alias: "TCP_STREAM", Title: units.Plural(n, "stream") + ", " + direction,
				Connections: n, Down: direction == "down", Principal: direction == "up" && n < 64,
				Metrics: []Metric{throughput(), serviceDemand("s/GB"), machineDemand("s/GB")},
			}
			if w.Down {
				w.Alias = "TCP_MAERTS"
			}
			if n <= turnStreams {
				w.Turns = briskTurns()
			}
			all = append(all, w)
		}
	}
	return all
}

func (bulk) Start(ctx context.Context, tb *testbed.Testbed, w Workload) error {
	return tb.StartClient(ctx, worker.Job{Kind: worker.Bulk, Connections: w.Connections, Down: w.Down})
}

func (bulk) Figures(tb *testbed.Testbed, w Workload, m *testbed.Measured) (Figures, error) {
	bytes := m.Servers[0].Bytes
	if w.Down {
		bytes = m.Clients[0].Bytes
	}
	if bytes == 0 {
		return nil, m.Nothing("no byte arrived in the window")
	}
	f := Figures{Throughput: 8 * float64(bytes) / m.Window.Seconds() / giga}
	f.addCPU(tb, m, float64(bytes)/giga, 1)
	return f, nil
}

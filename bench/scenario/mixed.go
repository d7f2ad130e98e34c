package scenario

import (
	"context"
	"fmt"
	"slices"

	"github.com/tprelay/tprelay/bench/testbed"
	"github.com/tprelay/tprelay/bench/units"
	"github.com/tprelay/tprelay/bench/worker"
)

// mixed is requests beside bulk streams.
type mixed struct{}

const (
	mixedStreams     = 2
	mixedConnections = 10
	mixedRate        = 1000
)

func (mixed) About() About {
	return About{
		Name: "mixed", Title: "Interactive beside bulk", Loop: openLoop,
		How: fmt.Sprintf("%d connections that send %s requests/s together (latency counts from when a request was due), while %d bulk streams run.",
			mixedConnections, units.Figure(mixedRate), mixedStreams),
	}
}

func (mixed) Workloads() []Workload {
	return []Workload{{
		Name: "mixed", Title: fmt.Sprintf("%d concurrent connections beside %d streams", mixedConnections, mixedStreams), Connections: mixedConnections, Rate: mixedRate,
		Metrics: slices.Concat(latency(P50, P99, P999), []Metric{throughput(), errorCount()}),
	}}
}

func (mixed) Start(ctx context.Context, tb *testbed.Testbed, w Workload) error {
	if err := tb.StartClient(ctx, worker.Job{Kind: worker.Bulk, Connections: mixedStreams}); err != nil {
		return err
	}
	return rr{}.Start(ctx, tb, w)
}

func (mixed) Figures(tb *testbed.Testbed, w Workload, m *testbed.Measured) (Figures, error) {
	f, err := requests(tb, m, m.Clients[1], w.Rate)
	if err == nil {
		f[Throughput] = 8 * float64(m.Servers[0].Bytes) / m.Window.Seconds() / giga
	}
	return f, err
}

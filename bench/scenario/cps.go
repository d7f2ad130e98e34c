package scenario

import (
	"context"

	"github.com/tprelay/tprelay/bench/testbed"
	"github.com/tprelay/tprelay/bench/units"
	"github.com/tprelay/tprelay/bench/worker"
)

// cps is a connection for each request.
type cps struct{}

func (cps) About() About {
	return About{
		Name: "cps", Title: "Connections", Loop: closedLoop,
		How: "Clients that connect, send a request, read the reply and close, over and over (TCP_CRR).",
	}
}

func (cps) Workloads() []Workload {
	const n = 50
	return []Workload{{
		Name: "cps-50", Alias: "TCP_CRR", Title: units.Plural(n, "concurrent connection"), Connections: n, Principal: true, Turns: briskTurns(),
		Metrics: []Metric{
			rate("connections/s"),
			{Name: P99, Title: "TTFB p99 ms", Unit: "ms",
				How: "from before connect to the reply, of all connections answered in the window; a reply of 128 bytes has its first byte and its last at the same time"},
			serviceDemand("µs/connection"), machineDemand("µs/connection"), errorCount(),
		},
	}}
}

func (cps) Start(ctx context.Context, tb *testbed.Testbed, w Workload) error {
	return tb.StartClient(ctx, worker.Job{Kind: worker.CPS, Connections: w.Connections, Request: w.Request, Reply: w.Reply})
}

func (cps) Figures(tb *testbed.Testbed, _ Workload, m *testbed.Measured) (Figures, error) {
	return requests(tb, m, m.Clients[0], 0)
}

package scenario

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/tprelay/tprelay/bench/testbed"
	"github.com/tprelay/tprelay/bench/units"
	"github.com/tprelay/tprelay/bench/worker"
)

// rr is requests and replies on connections that stay open.
type rr struct{}

func (rr) About() About {
	return About{
		Name: "rr", Title: "Request and response", Loop: closedLoop,
		How: "Connections that stay open (TCP_RR); each sends its next request when it has the reply. Requests have 128 bytes, replies 128 unless the workload says otherwise.",
	}
}

func (rr) Workloads() (all []Workload) {
	for _, w := range []Workload{
		{Name: "rr-1", Connections: 1},
		{Name: "rr-100", Connections: 100, Principal: true},
		{Name: "rr-2000", Connections: 2000, Principal: true},
		{Name: "rr-8000", Connections: 8000},
		{Name: "rr-100-4k", Connections: 100, Reply: 4 << 10},
		{Name: "rr-100-64k", Connections: 100, Reply: 64 << 10},
	} {
		w.Alias, w.Title = "TCP_RR", units.Plural(w.Connections, "concurrent connection")
		if w.Reply != 0 {
			w.Title += fmt.Sprintf(", replies of %d KiB", w.Reply>>10)
		}
		w.Metrics = slices.Concat([]Metric{rate("requests/s")}, latency(P50, P90, P99, P999),
			[]Metric{serviceDemand("µs/request"), machineDemand("µs/request"), errorCount()})
		// One event loop needs one CPU: on the other, which is the relay's, Go's scheduler would
		// look for work.
		w.Processors = 1
		if w.Connections <= turnConnections && w.Reply <= turnReply {
			// After a pause the kernel's scheduler needs half a second to settle which process
			// belongs on which CPU.
			w.Turns = &Turns{Settle: 500 * time.Millisecond, Longest: time.Second, Cycle: 10 * time.Second}
		}
		all = append(all, w)
	}
	return all
}

func (rr) Start(ctx context.Context, tb *testbed.Testbed, w Workload) error {
	return tb.StartClient(ctx, worker.Job{Kind: worker.RR, Connections: w.Connections, Request: w.Request, Reply: w.Reply, Rate: w.Rate})
}

func (rr) Figures(tb *testbed.Testbed, w Workload, m *testbed.Measured) (Figures, error) {
	return requests(tb, m, m.Clients[0], w.Rate)
}

package output

import (
	"bufio"
	"fmt"
	"io"
	"strings"

	"github.com/tprelay/tprelay/bench/scenario"
	"github.com/tprelay/tprelay/bench/stats"
)

// writeBenchstat writes one line per run in the format of Go benchmarks, so that benchstat can
// compare relays (-col /relay) or files. The counts of errors and runs that failed are left out.
func writeBenchstat(w io.Writer, r *stats.Results) error {
	b := bufio.NewWriter(w)
	m := r.Machine
	fmt.Fprintf(b, "cpu: %s\nkernel: %s\ngo: %s\n\n", m.CPU, m.Kernel, m.Go)
	seen := map[string]bool{}
	for _, w := range r.Measured() {
		for _, m := range w.Metrics {
			if unit := benchUnit(m); !m.Count && !seen[unit] {
				seen[unit] = true
				better := "lower"
				if m.More {
					better = "higher"
				}
				fmt.Fprintf(b, "Unit %s better=%s\n", unit, better)
			}
		}
	}
	for _, run := range r.Runs {
		w, _ := scenario.Find(run.Workload)
		var values strings.Builder
		for _, m := range w.Metrics {
			if v, ok := run.Figures[m.Name]; ok && !m.Count {
				fmt.Fprintf(&values, " %.6g %s", v, benchUnit(m))
			}
		}
		if values.Len() > 0 {
			fmt.Fprintf(b, "BenchmarkRelay/workload=%s/relay=%s 1%s\n", run.Workload, run.Relay, values.String())
		}
	}
	return b.Flush()
}

// benchUnit is the metric with its unit in one word: relay_cpu-µs/request.
func benchUnit(m scenario.Metric) string {
	return m.Name + "-" + strings.ReplaceAll(m.Unit, " ", "-")
}

package scenario

import (
	"slices"
	"time"
)

// Workload is a scenario with its numbers, and the figures that come of it.
type Workload struct {
	Name     string // bulk-1-up
	Scenario Scenario
	// Alias is what netperf calls the same traffic, if it has a name for it.
	Alias   string
	Title   string // 1 stream, up
	Metrics []Metric

	// Connections is the number of concurrent connections, or of streams.
	Connections int
	// Request and Reply are their sizes in bytes. Default: 128.
	Request, Reply int
	// Down: the server sends.
	Down bool
	// Rate is how many requests are due per second, in the open loop.
	Rate float64
	// Calibrate: before the first run the runner finds out whether the machine can do Rate without
	// a relay, and lowers it for all runs if it cannot.
	Calibrate bool

	// Principal workloads are measured with all default relays, the others without those that are
	// variants of another.
	Principal bool
	// Only, if not nil, names the relays that are measured.
	Only []string
	// Processes of the relay share its port. Default: 1.
	Processes int
	// Processors bounds the CPUs of each client and server. Default: 0, all.
	Processors int
	// Turns says how relays take turns. nil: they run one after the other.
	Turns *Turns
	// AtRest: figures are taken at one moment, after the warm-up, and not over a window.
	AtRest bool
	// SetUp is the time that a run takes beside warm-up and window, and beside what each
	// connection takes.
	SetUp time.Duration
}

// Metric returns a metric of the workload by name.
func (w Workload) Metric(name string) (Metric, bool) {
	if i := slices.IndexFunc(w.Metrics, func(m Metric) bool { return m.Name == name }); i >= 0 {
		return w.Metrics[i], true
	}
	return Metric{}, false
}

// Turns is how relays take turns: see package runner. docs/experiments.md, "Method", has the
// measurements behind the numbers.
type Turns struct {
	// Settle is how long a client is at work before its turn counts: until what it was stopped in
	// the middle of is over, and all is as if it had never been stopped.
	Settle time.Duration
	// Longest is how long a turn counts at most. With less, more time goes into settling; with
	// more, a disturbance of the machine meets one relay alone.
	Longest time.Duration
	// Cycle is the time from a relay's turn to its next, at most, if that is possible.
	Cycle time.Duration
}

const (
	// turnConnections bounds the connections of workloads with turns: with more, a turn is too
	// short against a request.
	turnConnections = 2000
	// turnStreams and turnReply bound streams and replies of workloads with turns, so that no relay
	// lacks pipes. The kernel lets those of a user hold 64 MiB in all, and io.Copy keeps 1 MiB for
	// each stream, and for each connection with large replies; the next relay's pipes would then
	// have two pages each.
	turnStreams = 4
	turnReply   = 4 << 10
)

// briskTurns are for traffic that is at full speed at once. Clients that connect wait 5 s for
// replies, so the cycle is shorter than that.
func briskTurns() *Turns {
	return &Turns{Settle: 80 * time.Millisecond, Longest: 600 * time.Millisecond, Cycle: 4 * time.Second}
}

package scenario

import (
	"fmt"
	"time"

	"github.com/tprelay/tprelay/bench/units"
)

// many is idle with more pairs than one process has descriptors for. There are as many servers and
// clients as relay processes, so that none runs out of ports or descriptors.
type many struct{ idle }

const manyProcesses = 5

func (many) About() About {
	return About{
		Name: "many", Title: "Many pairs, several processes", Loop: noLoop,
		How: fmt.Sprintf("Idle pairs, held by %d relay processes that share the port (SO_REUSEPORT).", manyProcesses),
	}
}

func (many) Workloads() []Workload {
	const n = 40000
	return []Workload{{
		Name: "many-40000", Title: units.Plural(n, "concurrent connection"), Connections: n, Processes: manyProcesses,
		Only: []string{"tprelay", "haproxy"}, AtRest: true, SetUp: time.Second, Metrics: perPair(),
	}}
}

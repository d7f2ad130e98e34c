package bench

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/tprelay/tprelay/bench/svg"
)

// Point is one kind of traffic with its numbers, and the figures that come of it.
type Point struct {
	Name     string // bulk-1-up
	Scenario string // bulk
	Title    string // 1 stream, up
	Metrics  []Metric

	// Connections, or streams, or pairs.
	Connections int
	// Reply in bytes. Requests have 128.
	Reply int
	// Down: the server sends.
	Down bool
	// Rate is how many requests are due per second, in the scenario light.
	Rate float64
	// Principal points are measured with all relays, the others with those that are
	// no variants, unless relays are named.
	Principal bool
}

const (
	requestSize = 128
	// slowPace is what the slow reader takes, in bytes per second.
	slowPace = 1 << 20
	// scaleRate is the request rate of the scenario scale; less where the machine
	// cannot do it even without a relay.
	scaleRate = 20000
	// In the scenario mixed: elephants, and those who type meanwhile.
	mixedStreams     = 2
	mixedConnections = 10
	mixedRate        = 1000
	// lightConnections share the requests in the scenario light.
	lightConnections = 10
	// manyProcesses share the port in the scenario many.
	manyProcesses = 5
)

// Scenario is what several points have in common.
type Scenario struct {
	Name  string
	Title string
	How   string
}

// Scenarios lists them in the order in which they are measured.
func Scenarios() []Scenario {
	return []Scenario{
		{"bulk", "Bulk", "Streams that send as fast as they can, from client to server (up) or from server to client (down)."},
		{"rr", "Request and response", "Connections that stay open; on each the next request is sent when the reply is there (closed loop). Requests have 128 bytes, replies 128 unless the point says otherwise."},
		{"light", "A light load", fmt.Sprintf("A few requests now and then (open loop), over %d connections: what a wake-up costs.", lightConnections)},
		{"cps", "Connections", "Workers that connect, ask once, read the reply and close, over and over."},
		{"idle", "Idle pairs", "Connections that have moved one request and one reply each and then stand still."},
		{"slow", "Slow reader", fmt.Sprintf("One stream to a reader that takes %d KiB/s; the sender would send as fast as it can.", slowPace>>10)},
		{"mixed", "Interactive beside bulk", fmt.Sprintf("%d connections that send %s requests/s together (open loop: latency counts from when a request was due), while %d bulk streams run.",
			mixedConnections, number(mixedRate), mixedStreams)},
		{"scale", "The same work over more pairs", fmt.Sprintf("%s requests/s in all (open loop), spread over more and more connections.", number(scaleRate))},
		{"many", "Many pairs, several processes", fmt.Sprintf("Idle pairs, held by %d relay processes that share the port (SO_REUSEPORT).", manyProcesses)},
	}
}

// Points lists all points.
func Points() (points []Point) {
	add := func(p Point, metrics ...[]Metric) {
		p.Scenario, _, _ = strings.Cut(p.Name, "-")
		p.Metrics = slices.Concat(metrics...)
		if p.Reply == 0 {
			p.Reply = 128
		}
		points = append(points, p)
	}
	one := func(m Metric) []Metric { return []Metric{m} }

	for _, direction := range []string{"up", "down"} {
		for _, n := range []int{1, 4, 64} {
			add(Point{Name: fmt.Sprintf("bulk-%d-%s", n, direction), Title: plural(n, "stream") + ", " + direction, Connections: n,
				Down: direction == "down", Principal: direction == "up" && n < 64},
				one(throughputMetric()), cpuMetrics("s/GB"))
		}
	}
	for _, p := range []Point{
		{Name: "rr-1", Connections: 1},
		{Name: "rr-100", Connections: 100, Principal: true},
		{Name: "rr-2000", Connections: 2000, Principal: true},
		{Name: "rr-8000", Connections: 8000},
		{Name: "rr-100-4k", Connections: 100, Reply: 4 << 10},
		{Name: "rr-100-64k", Connections: 100, Reply: 64 << 10},
	} {
		p.Title = plural(p.Connections, "connection")
		if p.Reply != 0 {
			p.Title += fmt.Sprintf(", replies of %d KiB", p.Reply>>10)
		}
		add(p, one(rateMetric("requests/s")), latencyMetrics(p50, p90, p99, p999), cpuMetrics("µs/request"), one(errorMetric()))
	}
	for _, n := range []int{100, 1000} {
		add(Point{Name: fmt.Sprintf("light-%d", n), Title: plural(n, "request") + " per second", Connections: lightConnections, Rate: float64(n)},
			cpuMetrics("µs/request"), latencyMetrics(p50, p99), one(rateMetric("requests/s")), one(errorMetric()))
	}
	add(Point{Name: "cps-50", Title: "50 workers", Connections: 50, Principal: true},
		one(rateMetric("connections/s")), latencyMetrics(p99), cpuMetrics("µs/connection"), one(errorMetric()))
	for _, n := range []int{1000, 8000} {
		add(Point{Name: fmt.Sprintf("idle-%d", n), Title: plural(n, "pair"), Connections: n, Principal: n == 8000}, pairMetrics())
	}
	add(Point{Name: "slow-1", Title: "1 stream", Connections: 1}, []Metric{
		{Name: growth, Title: "memory growth KiB", Unit: "KiB", How: "resident memory of the relay's processes at the end of the window minus that before the stream began"},
		{Name: relayCPU, Title: "relay CPU ms/s", Unit: "ms/s", How: howRelayCPU},
		{Name: arrived, Title: "arrived MB", Unit: "MB", More: true, How: "payload that the reader took in the window"},
	})
	add(Point{Name: "mixed", Title: fmt.Sprintf("%d connections beside %d streams", mixedConnections, mixedStreams), Connections: mixedConnections},
		latencyMetrics(p50, p99, p999), one(throughputMetric()), one(errorMetric()))
	for _, n := range []int{10, 100, 1000, 8000} {
		add(Point{Name: fmt.Sprintf("scale-%d", n), Title: plural(n, "connection"), Connections: n},
			cpuMetrics("µs/request")[:1], one(rateMetric("requests/s")), latencyMetrics(p99), one(errorMetric()))
	}
	add(Point{Name: "many-40000", Title: plural(40000, "pair"), Connections: 40000}, pairMetrics())
	return points
}

// FindPoint gives the point of that name.
func FindPoint(name string) (Point, bool) {
	for _, p := range Points() {
		if p.Name == name {
			return p, true
		}
	}
	return Point{}, false
}

// metric gives a metric of the point by name.
func (p Point) metric(name string) (Metric, bool) {
	for _, m := range p.Metrics {
		if m.Name == name {
			return m, true
		}
	}
	return Metric{}, false
}

// takes says whether a relay is measured at the point at all: several processes on
// one port are not for all of them.
func (p Point) takes(relay string) bool {
	return p.Scenario != "many" || relay == "tprelay" || relay == "haproxy"
}

// setUp is how long a run takes beside its warm-up and window, as seen on two cores:
// hosts, processes and connections to be made and taken away.
func (p Point) setUp() time.Duration {
	d := 300*time.Millisecond + time.Duration(p.Connections)*250*time.Microsecond
	switch p.Scenario {
	case "idle", "many", "slow":
		d += time.Second // one connection before the others, and a look at all after
	}
	return d
}

// plural gives "1 stream", "4 streams", "2,000 connections".
func plural(n int, what string) string {
	if n != 1 {
		what += "s"
	}
	return svg.Thousands(fmt.Sprint(n)) + " " + what
}

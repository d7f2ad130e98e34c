package admin

import (
	"encoding/json"
	"math"
	"reflect"
	"strings"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/tprelay/tprelay/engine"
	"github.com/tprelay/tprelay/tproxy"
)

// number is a numeric field of engine.Stats: a counter if it is unsigned, otherwise a gauge.
type number struct {
	field string
	name  string // of the metric, without tprelay_; names that end in _bytes are in bytes
	tile  string // title on the page; empty if the page does not show it
	help  string
}

// numbers has a row for every number in engine.Stats. A row makes it a metric and, with a tile,
// shows it on the page.
func numbers() []number {
	return []number{
		{"Active", "pairs", "pairs", "Current pairs."},
		{"Accepted", "accepted_total", "accepted", "Connections accepted by listeners."},
		{"Adopted", "adopted_total", "", "Connections that the embedding program accepted."},
		{"HandedOver", "handed_over_total", "", "Pairs handed to another process."},
		{"TakenOver", "taken_over_total", "", "Pairs taken over from another process."},
		{"Opened", "opened_total", "opened", "Pairs whose outgoing connection was established."},
		{"Pending", "pending_bytes", "pending", "Bytes read from sources and not yet accepted by sinks."},
		{"Memory", "memory_bytes", "memory charged", "Bytes charged to the memory limit."},
		{"KernelMemory", "kernel_memory_bytes", "", "Kernel memory of the pairs' sockets, sampled every few seconds; not part of the memory limit."},
		{"Pauses", "pauses_total", "pauses", "Stalls: times that a direction left its source's bytes unread because its sink was full and the high watermark reached (or its pipe full)."},
		{"Starved", "starved_total", "", "Times that a direction could not read because the memory limit was reached."},
		{"Moderations", "moderations_total", "", "Times that a direction was recognised as bulk; its source then wakes the relay less often."},
		{"Throttles", "throttles_total", "throttles", "Times that the socket buffers of a stalling direction were adjusted."},
		{"PipesInUse", "pipes_in_use", "pipes in use", "Pipes that hold bytes."},
		{"PipesIdle", "pipes_idle", "", "Empty pipes in the pools."},
		{"PipeMisses", "pipe_misses_total", "", "Times that a buffer was used because no pipe was free."},
		{"Buffers", "buffers", "buffers", "Buffers in use."},
		{"Waits", "waits_total", "", "Calls of epoll_wait."},
		{"Events", "events_total", "", "Events that epoll_wait returned."},
		{"StaleEvents", "stale_events_total", "", "Events of pairs that had ended."},
		{"Splices", "splices_total", "", "Calls of splice."},
		{"SourceEmpty", "source_empty_total", "", "EAGAIN because the source was empty."},
		{"PipeFull", "pipe_full_total", "", "EAGAIN because the pipe was full."},
		{"SinkFull", "sink_full_total", "", "Times that a sink accepted less than everything."},
		{"SpliceRefused", "splice_refused_total", "", "Directions that use buffers because a socket refused splice."},
		{"AcceptErrors", "accept_errors_total", "", "Failed accepts."},
		{"AcceptPauses", "accept_pauses_total", "", "Times that a listener waited, because descriptors or --max-pairs were used up."},
	}
}

// tiles returns the numbers of the page as JSON: field of engine.Stats, title, and whether it is
// in bytes.
func tiles() []byte {
	list := [][3]any{}
	for _, n := range numbers() {
		if n.tile != "" {
			list = append(list, [3]any{n.field, n.tile, strings.HasSuffix(n.name, "_bytes")})
		}
	}
	text, _ := json.Marshal(list) // cannot fail for strings and bools
	return text
}

// collector makes metrics from engine.Stats for each scrape.
type collector struct {
	source                               Source
	numbers                              []metric
	ended, dialErrors, levels, delivered *prometheus.Desc
}

// metric is the metric of one number.
type metric struct {
	desc  *prometheus.Desc
	index []int // of the field in engine.Stats
}

// Collector makes the metrics of s for a Prometheus registry of the program's own; /metrics of a
// Handler has the same. Each scrape calls s.Stats.
//
// Every reason, spoof level and direction is there from the start, with 0, so that increase() sees
// the first event. So is every errno with which a TCP connection can fail to open; another one
// appears when it happens.
//
// For several engines in one registry, give each one a label with prometheus.WrapRegistererWith.
func Collector(s Source) prometheus.Collector {
	describe := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("tprelay_"+name, help, labels, nil)
	}
	c := collector{
		source:     s,
		ended:      describe("ended_total", "Pairs that ended, by reason.", "reason"),
		dialErrors: describe("dial_errors_total", "Failed outgoing connections, by errno.", "errno"),
		levels:     describe("spoof_total", "Outgoing connections by source address.", "level"),
		delivered: describe("delivered_bytes_total",
			"Bytes that the receivers' sockets have accepted (sent, or waiting in a send buffer), by direction and path.", "direction", "path"),
	}
	for _, n := range numbers() {
		field, ok := reflect.TypeFor[engine.Stats]().FieldByName(n.field)
		if !ok {
			panic("admin: engine.Stats has no " + n.field)
		}
		c.numbers = append(c.numbers, metric{describe(n.name, n.help), field.Index})
	}
	return c
}

// dialErrnos are those of bind(2) and connect(2) for TCP, also as Linux translates ICMP errors
// (icmp_err_convert in net/ipv4/icmp.c, tab_unreach in net/ipv6/icmp.c).
func dialErrnos() []string {
	return []string{
		"EACCES", "EADDRINUSE", "EADDRNOTAVAIL", "EAFNOSUPPORT", "EAGAIN", "ECONNABORTED", "ECONNREFUSED", "ECONNRESET",
		"EHOSTDOWN", "EHOSTUNREACH", "EINVAL", "EMFILE", "EMSGSIZE", "ENETDOWN", "ENETUNREACH", "ENFILE", "ENOBUFS",
		"ENODEV", "ENOMEM", "ENONET", "ENOPROTOOPT", "EOPNOTSUPP", "EPERM", "EPIPE", "EPROTO", "ETIMEDOUT",
	}
}

// Describe implements prometheus.Collector.
func (c collector) Describe(out chan<- *prometheus.Desc) {
	for _, m := range c.numbers {
		out <- m.desc
	}
	for _, d := range []*prometheus.Desc{c.ended, c.dialErrors, c.levels, c.delivered} {
		out <- d
	}
}

// Collect implements prometheus.Collector.
func (c collector) Collect(out chan<- prometheus.Metric) {
	s := c.source.Stats()
	fields := reflect.ValueOf(s)
	for _, m := range c.numbers {
		if v := fields.FieldByIndex(m.index); v.CanUint() {
			out <- prometheus.MustNewConstMetric(m.desc, prometheus.CounterValue, float64(v.Uint()))
		} else {
			out <- prometheus.MustNewConstMetric(m.desc, prometheus.GaugeValue, float64(v.Int()))
		}
	}
	count := func(d *prometheus.Desc, n uint64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(n), labels...)
	}
	unknown := engine.Reason(math.MaxUint8).String()
	for r := engine.ReasonNone + 1; r.String() != unknown; r++ { // no pair ends for ReasonNone
		count(c.ended, s.Ended[r], r.String())
	}
	for _, errno := range dialErrnos() {
		if _, ok := s.DialErrors[errno]; !ok {
			count(c.dialErrors, 0, errno)
		}
	}
	for errno, n := range s.DialErrors {
		count(c.dialErrors, n, errno)
	}
	for l := tproxy.LevelNone; l <= tproxy.LevelFull; l++ {
		count(c.levels, s.SpoofLevels[l], l.String())
	}
	count(c.delivered, s.UpstreamSplice, "upstream", "splice")
	count(c.delivered, s.UpstreamBuffer, "upstream", "buffer")
	count(c.delivered, s.DownstreamSplice, "downstream", "splice")
	count(c.delivered, s.DownstreamBuffer, "downstream", "buffer")
}

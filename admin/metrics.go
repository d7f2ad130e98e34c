package admin

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/tprelay/tprelay/engine"
)

// collector turns engine.Stats into metrics, afresh for each scrape.
type collector struct{ source Source }

func describe(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("tprelay_"+name, help, labels, nil)
}

// number is a metric that is one field of Stats.
type number struct {
	desc  *prometheus.Desc
	kind  prometheus.ValueType
	value func(*engine.Stats) float64
}

func counter(name, help string, value func(*engine.Stats) uint64) number {
	return number{describe(name, help), prometheus.CounterValue, func(s *engine.Stats) float64 { return float64(value(s)) }}
}

func gauge(name, help string, value func(*engine.Stats) int64) number {
	return number{describe(name, help), prometheus.GaugeValue, func(s *engine.Stats) float64 { return float64(value(s)) }}
}

func numbers() []number {
	return []number{
		counter("accepted_total", "Connections taken from listeners.", func(s *engine.Stats) uint64 { return s.Accepted }),
		counter("adopted_total", "Connections handed over by the embedding program.", func(s *engine.Stats) uint64 { return s.Adopted }),
		counter("handed_over_total", "Pairs given to the process that took over.", func(s *engine.Stats) uint64 { return s.HandedOver }),
		counter("taken_over_total", "Pairs taken from the process before this one.", func(s *engine.Stats) uint64 { return s.TakenOver }),
		counter("opened_total", "Pairs whose outgoing connection was established.", func(s *engine.Stats) uint64 { return s.Opened }),
		gauge("pairs", "Pairs now.", func(s *engine.Stats) int64 { return s.Active }),
		gauge("pending_bytes", "Bytes taken from sources and not yet accepted by sinks.", func(s *engine.Stats) int64 { return s.Pending }),
		gauge("memory_bytes", "Bytes charged to the memory limit.", func(s *engine.Stats) int64 { return s.Memory }),
		gauge("kernel_memory_bytes", "Memory that the kernel holds for the pairs' sockets, some seconds ago at most; not part of the memory limit.", func(s *engine.Stats) int64 { return s.KernelMemory }),
		counter("pauses_total", "Times that a direction stopped reading because its sink was full.", func(s *engine.Stats) uint64 { return s.Pauses }),
		counter("starved_total", "Times that a direction could not read because of the memory limit.", func(s *engine.Stats) uint64 { return s.Starved }),
		counter("moderations_total", "Times that a direction proved to be bulk, and its source was told to wake the relay for a lot only.", func(s *engine.Stats) uint64 { return s.Moderations }),
		counter("throttles_total", "Times that the socket buffers of a stalling direction were set.", func(s *engine.Stats) uint64 { return s.Throttles }),
		gauge("pipes_in_use", "Pipes that hold bytes.", func(s *engine.Stats) int64 { return s.PipesInUse }),
		gauge("pipes_idle", "Empty pipes in the pools.", func(s *engine.Stats) int64 { return s.PipesIdle }),
		counter("pipe_misses_total", "Times that no pipe was to be had and a buffer was used.", func(s *engine.Stats) uint64 { return s.PipeMisses }),
		gauge("buffers", "Buffers in use.", func(s *engine.Stats) int64 { return s.Buffers }),
		counter("waits_total", "Calls of epoll_wait.", func(s *engine.Stats) uint64 { return s.Waits }),
		counter("events_total", "Events that they brought.", func(s *engine.Stats) uint64 { return s.Events }),
		counter("stale_events_total", "Events of pairs that had ended.", func(s *engine.Stats) uint64 { return s.StaleEvents }),
		counter("splices_total", "Calls of splice.", func(s *engine.Stats) uint64 { return s.Splices }),
		counter("source_empty_total", "EAGAIN from a source that had nothing.", func(s *engine.Stats) uint64 { return s.SourceEmpty }),
		counter("pipe_full_total", "EAGAIN from a source because the pipe was full.", func(s *engine.Stats) uint64 { return s.PipeFull }),
		counter("sink_full_total", "Times that a sink took less than all.", func(s *engine.Stats) uint64 { return s.SinkFull }),
		counter("splice_refused_total", "Directions that use buffers because a socket refused splice.", func(s *engine.Stats) uint64 { return s.SpliceRefused }),
		counter("accept_errors_total", "Failed accepts.", func(s *engine.Stats) uint64 { return s.AcceptErrors }),
		counter("accept_pauses_total", "Times that a listener waited: no descriptors, or too many pairs.", func(s *engine.Stats) uint64 { return s.AcceptPauses }),
	}
}

var (
	ended      = describe("ended_total", "Pairs that ended, by reason.", "reason")
	dialErrors = describe("dial_errors_total", "Failed outgoing connections, by errno.", "errno")
	levels     = describe("spoof_total", "Outgoing connections by how their source address was chosen.", "level")
	delivered  = describe("delivered_bytes_total", "Bytes that the receivers' sockets have accepted (sent, or waiting in a send buffer), by direction and path.", "direction", "path")
)

// Describe is prometheus.Collector's.
func (c collector) Describe(out chan<- *prometheus.Desc) {
	for _, n := range numbers() {
		out <- n.desc
	}
	for _, d := range []*prometheus.Desc{ended, dialErrors, levels, delivered} {
		out <- d
	}
}

// Collect is prometheus.Collector's.
func (c collector) Collect(out chan<- prometheus.Metric) {
	s := c.source.Stats()
	for _, n := range numbers() {
		out <- prometheus.MustNewConstMetric(n.desc, n.kind, n.value(&s))
	}
	count := func(d *prometheus.Desc, n uint64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(n), labels...)
	}
	for reason, n := range s.Ended {
		count(ended, n, reason.String())
	}
	for errno, n := range s.DialErrors {
		count(dialErrors, n, errno)
	}
	for level, n := range s.SpoofLevels {
		count(levels, n, level.String())
	}
	count(delivered, s.UpstreamSplice, "upstream", "splice")
	count(delivered, s.UpstreamBuffer, "upstream", "buffer")
	count(delivered, s.DownstreamSplice, "downstream", "splice")
	count(delivered, s.DownstreamBuffer, "downstream", "buffer")
}

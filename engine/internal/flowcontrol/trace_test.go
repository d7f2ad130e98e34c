package flowcontrol

import (
	"bufio"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The files testdata/*.trace are samples of real connections through the relay. A line is a sample;
// the first line that is no comment names the columns. A "tick" is what the engine samples every
// 100 ms, a "look" what it samples while a run of bytes begins. After "=>" stand the decisions that
// the samples must lead to.
//
// To record them anew (as root; two minutes):
//
//	go test -tags record -run TestRecordTraces ./engine
//	go test -run TestTracesLeadToTheirDecisions ./engine/internal/flowcontrol -update
//
// and read the decisions before you keep them.

var update = flag.Bool("update", false, "write the decisions into the trace files")

// sample is a line of a trace.
type sample struct {
	look         bool
	now          uint32
	delivered    uint64
	state        State
	buffer       ReceiveBuffer
	sink, source unix.TCPInfo
}

// columns are those of a sample, in their order.
func (s *sample) columns() []column {
	return []column{
		{"now", &s.now}, {"delivered", &s.delivered}, {"pending", &s.state.Pending},
		{"stalled", &s.state.Stalled}, {"hasStalled", &s.state.HasStalled}, {"eof", &s.state.EOF},
		{"mss", &s.sink.Snd_mss}, {"rtt", &s.sink.Rtt}, {"minRTT", &s.sink.Min_rtt},
		{"cwnd", &s.sink.Snd_cwnd}, {"ssthresh", &s.sink.Snd_ssthresh}, {"sndWnd", &s.sink.Snd_wnd},
		{"unacked", &s.sink.Unacked}, {"sacked", &s.sink.Sacked}, {"notsent", &s.sink.Notsent_bytes},
		{"acked", &s.sink.Bytes_acked}, {"deliveryRate", &s.sink.Delivery_rate},
		{"appLimited", &(*[8]byte)(unsafe.Pointer(&s.sink))[7]},
		{"sourceRTT", &s.source.Rtt}, {"sourceMinRTT", &s.source.Min_rtt},
		{"advMSS", &s.source.Advmss}, {"rcvMSS", &s.source.Rcv_mss},
		{"rcvWnd", &s.source.Rcv_wnd}, {"rcvSpace", &s.source.Rcv_space},
		{"used", &s.buffer.Used}, {"size", &s.buffer.Size}, {"unread", &s.buffer.Unread}, {"most", &s.buffer.Most},
	}
}

type column struct {
	name  string
	value any // a pointer
}

func (c column) parse(text string) error {
	if v, ok := c.value.(*bool); ok {
		*v = text == "1"
		return nil
	}
	n, err := strconv.ParseInt(text, 10, 64)
	switch v := c.value.(type) {
	case *byte:
		*v = byte(n)
	case *uint32:
		*v = uint32(n)
	case *uint64:
		*v = uint64(n)
	case *int64:
		*v = n
	}
	return err
}

// readTrace gives the samples of a file, the lines they stand on, and the decisions beside them.
func readTrace(t *testing.T, path string) (samples []sample, lines []string, at []int, decisions []string) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	in := bufio.NewScanner(f)
	header := false
	for in.Scan() {
		line, decision, _ := strings.Cut(in.Text(), "=>")
		lines = append(lines, strings.TrimRight(line, " "))
		fields := strings.Fields(line)
		if strings.HasPrefix(line, "#") || len(fields) == 0 {
			continue
		}
		var s sample
		columns := s.columns()
		if len(fields) != 1+len(columns) {
			t.Fatalf("%s:%d: %d columns, want %d", path, len(lines), len(fields), 1+len(columns))
		}
		for i, c := range columns {
			if !header {
				if fields[1+i] != c.name {
					t.Fatalf("%s: column %q, want %q", path, fields[1+i], c.name)
				}
			} else if err := c.parse(fields[1+i]); err != nil {
				t.Fatalf("%s:%d: %v", path, len(lines), err)
			}
		}
		if !header {
			header = true
			continue
		}
		s.look = fields[0] == "look"
		samples, at, decisions = append(samples, s), append(at, len(lines)-1), append(decisions, strings.TrimSpace(decision))
	}
	if err := in.Err(); err != nil {
		t.Fatal(err)
	}
	return samples, lines, at, decisions
}

// tuned is net.ipv4.tcp_rmem[2] of the host on which the traces were recorded.
const tuned = 6 << 20

// direction decides as package engine does.
type direction struct {
	flow      Flow
	observed  bool
	throttled bool
	metered   bool
	meter     Meter
}

// step is what it decides at a sample, in words.
func (e *direction) step(s *sample) string {
	d := s.state
	d.Throttled = e.throttled
	var said []string
	say := func(format string, args ...any) { said = append(said, fmt.Sprintf(format, args...)) }
	apply := func(v Verdict, l func() Limits) {
		switch v {
		case Throttle:
			e.throttled = true
			l := l()
			set := Window(&s.source, s.buffer, l)
			say("throttle unsent=%d window=%d buffer=%d lock=%v clamp=%d", l.Unsent, l.Window, set.Buffer, set.Lock, set.Clamp)
		case Lift:
			e.throttled = false
			say("lift buffer=%d", TunedWindow(&s.source, s.buffer))
		}
	}
	if !e.metered && s.delivered > 0 {
		e.meter, e.metered = NewMeter(s.delivered, s.now), true
		say("level 0")
	}
	if s.look {
		if rate := QueueRate(&s.sink, d); rate > 0 {
			if !e.observed {
				e.flow, e.observed = AfterThrottle(&s.sink, s.now), true
			}
			apply(At(rate, d), func() Limits { return LimitsAt(rate, 0, &s.sink, &s.source, tuned) })
		}
		return strings.Join(said, " ")
	}
	if e.observed {
		var v Verdict
		v, e.observed = e.flow.Evaluate(&s.sink, d, s.now)
		apply(v, func() Limits { return e.flow.Limits(&s.sink, &s.source, tuned) })
		if !e.observed {
			say("forget")
		}
	} else if d.Stalled || d.HasStalled {
		e.flow, e.observed = AfterStall(&s.sink, s.now), true
		say("observe")
	}
	d.Throttled = e.throttled
	if e.metered && e.meter.Due(s.now) {
		var source *unix.TCPInfo
		if e.meter.Moved(s.delivered) {
			source = &s.source
		}
		var apply bool
		before := e.meter.Level()
		if apply, e.metered = e.meter.Measure(source, d, s.delivered, s.now); apply && e.meter.Level() != before {
			say("level %d", e.meter.Level())
		}
	}
	return strings.Join(said, " ")
}

// TestTracesLeadToTheirDecisions: the samples of a whole connection, one after the other.
func TestTracesLeadToTheirDecisions(t *testing.T) {
	paths, err := filepath.Glob("testdata/*.trace")
	if err != nil || len(paths) == 0 {
		t.Fatalf("no traces: %v", err)
	}
	for _, path := range paths {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".trace"), func(t *testing.T) {
			samples, lines, at, want := readTrace(t, path)
			var e direction
			for i := range samples {
				got := e.step(&samples[i])
				if *update {
					if got != "" {
						lines[at[i]] += " => " + got
					}
				} else if got != want[i] {
					t.Errorf("%s:%d: %q, want %q", path, at[i]+1, got, want[i])
				}
			}
			if *update {
				if err := os.WriteFile(path, []byte(strings.Join(lines, "\n")+"\n"), 0o644); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

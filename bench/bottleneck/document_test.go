package bottleneck

import (
	"encoding/xml"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"
)

const aTrace = `1.000000 IP 10.0.1.1.40000 > 10.0.2.3.5201: Flags [S], seq 100, win 64240, options [mss 1460,sackOK,TS val 1 ecr 0,nop,wscale 7], length 0
1.010000 IP 10.0.2.3.5201 > 10.0.1.1.40000: Flags [S.], seq 900, ack 101, win 65160, options [mss 1460,nop,wscale 10], length 0
1.020000 IP 10.0.1.1.40000 > 10.0.2.3.5201: Flags [.], ack 1, win 502, options [nop], length 0
1.030000 IP 10.0.1.1.40000 > 10.0.2.3.5201: Flags [P.], seq 1:1449, ack 1, win 502, length 1448
1.040000 IP 10.0.2.3.5201 > 10.0.1.1.40000: Flags [.], ack 1449, win 63, length 0
1.050000 IP 10.0.1.1.40000 > 10.0.2.3.5201: Flags [P.], seq 1449:2897, ack 1, win 502, length 1448
1.060000 IP 10.0.2.3.5201 > 10.0.1.1.40000: Flags [.], ack 2897, win 0, length 0
1.260000 IP 10.0.1.1.40000 > 10.0.2.3.5201: Flags [.], ack 1, win 502, length 0
1.270000 IP 10.0.2.3.5201 > 10.0.1.1.40000: Flags [.], ack 2897, win 0, length 0
3.060000 IP 10.0.2.3.5201 > 10.0.1.1.40000: Flags [.], ack 2897, win 40, length 0
3.070000 IP 10.0.1.1.40002 > 10.0.2.3.5201: Flags [P.], seq 1:38, ack 1, win 502, length 37
3.080000 ARP, Request who-has 10.0.1.2 tell 10.0.1.1, length 28
`

func TestTraceHasTheWindowsOfTheLargestConnection(t *testing.T) {
	packets := parseTrace(aTrace, netip.MustParseAddr("10.0.1.1"))
	if len(packets) != 8 {
		t.Fatalf("%d packets", len(packets))
	}
	if p := packets[0]; p.window != 502<<7 || !p.sent || p.at != 0 {
		t.Errorf("the first: %+v", p)
	}
	var windows []int
	for _, p := range packets {
		if !p.sent {
			windows = append(windows, p.window)
		}
	}
	if !slices.Equal(windows, []int{63 << 10, 0, 0, 40 << 10}) {
		t.Errorf("windows %v", windows)
	}
	text := excerpt(packets, 0)
	for _, want := range []string{"window    64512", "window        0", "seq      1449    1448 bytes", "no bytes"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
	if !strings.HasSuffix(text, "window    40960") {
		t.Errorf("it does not end when the window opens:\n%s", text)
	}
	if text := excerpt(nil, 0); text != "" {
		t.Errorf("of nothing: %q", text)
	}
}

func TestExcerptShowsTheLongestTimeAndCountsProbes(t *testing.T) {
	var packets []packet
	heard := func(at float64, window int) {
		packets = append(packets, packet{at: at, window: window})
	}
	heard(1, 500)
	heard(2, 0) // for a moment
	heard(3, 500)
	for at := 4.0; at < 20; at++ {
		heard(at, 600)
	}
	heard(20, 0)
	for at := 21.0; at < 41; at++ {
		packets = append(packets, packet{at: at, sent: true})
		heard(at+0.1, 0)
	}
	heard(50, 9000)
	text := excerpt(packets, 0)
	if strings.Contains(text, "   2.000") || !strings.Contains(text, "  20.000") || !strings.Contains(text, "  50.000") {
		t.Errorf("it is not of the longest time:\n%s", text)
	}
	if !regexp.MustCompile(`\.\.\. 1[78] more probes`).MatchString(text) {
		t.Errorf("probes are not counted:\n%s", text)
	}
}

func TestCallsAreReadWithAndWithoutErrors(t *testing.T) {
	calls := parseStrace(`% time     seconds  usecs/call     calls    errors syscall
------ ----------- ----------- --------- --------- ----------------
 60.00    0.000102           5        19         3 epoll_wait
 40.00    0.000068           1        42           splice
100.00    0.000170           2        61         3 total
`)
	if len(calls) != 2 || calls["epoll_wait"] != 19 || calls["splice"] != 42 {
		t.Errorf("%v", calls)
	}
	calls["futex"], calls["epoll_ctl"], calls["setsockopt"] = 2, 3, 4
	if kinds := calls.kinds(); kinds != [5]int{19, 3, 42, 4, 2} {
		t.Errorf("%v", kinds)
	}
	table := callTable([]*Counted{{Title: "HAProxy", Flowing: Calls{"splice": 1200}, Growth: 1 << 20}})
	for _, want := range []string{"| HAProxy | then, 4.5 s | 0 | 0 | 1,200 | 0 | 0 |  |\n", "| HAProxy | stopped, 4.5 s | 0 | 0 | 0 | 0 | 0 | 1.0 MiB |\n"} {
		if !strings.Contains(table, want) {
			t.Errorf("no %q in\n%s", want, table)
		}
	}
}

func TestDocumentReplacesOnlyWhatIsBetweenTheComments(t *testing.T) {
	c := twoRounds()
	c.Runs = append(c.Runs[:3:3], c.Runs[len(c.Runs)-2]) // the first round
	c.Relays[3] = Name{Control, "tprelay, `--no-flow-control`"}
	for _, m := range c.Runs {
		if len(m.Samples) == 0 {
			m.Record = c.Runs[0].Record
		}
		m.Timed = &m.Record
	}
	d := &Document{Comparison: *c, Calls: []*Counted{
		{Relay: "tprelay", Title: "tprelay", Record: &c.Runs[0].Record, packets: parseTrace(aTrace, netip.MustParseAddr("10.0.1.1"))},
		{Relay: "level-keep", Title: "level-triggered", Record: &c.Runs[0].Record},
	}}
	dir := t.TempDir()
	page := filepath.Join(dir, "page.md")
	const before = "a\n<!-- figures: begin (by make) -->\nold\n<!-- figures: end -->\nb\n<!-- calls: begin -->\n<!-- calls: end -->\n<!-- trace: begin -->\n<!-- trace: end -->\nc\n"
	if err := os.WriteFile(page, []byte(before), 0o644); err != nil {
		t.Fatal(err)
	}
	written, err := d.Write(page, filepath.Join(dir, "plots"))
	if err != nil || len(written) != 7 {
		t.Fatalf("%v, %v", written, err)
	}
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"a\n<!-- figures: begin (by make) -->\n\n| relay |", "| HAProxy | 15.00 Mbit/s | 5.60 Mbit/s | never | 7.00 MiB | 2500 ms | 0.0 MiB |\n", "\n\n<!-- figures: end -->\nb\n", "```\n\n<!-- trace: end -->\nc\n"} {
		if !strings.Contains(string(text), want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
	if strings.Contains(string(text), "old") {
		t.Error("the old text is still there")
	}
	for line := range strings.Lines(string(text)) {
		if utf8.RuneCountInString(line) > 101 && !strings.HasPrefix(line, "|") {
			t.Errorf("more than 100 columns: %s", line)
		}
	}
	if _, err := d.Write(page, filepath.Join(dir, "plots")); err != nil {
		t.Errorf("again: %v", err)
	}
	for _, name := range []string{"rates.svg", "whereabouts.svg", "window.svg", "stopped.svg", "pending.svg"} {
		f, err := os.Open(filepath.Join(dir, "plots", name))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		curves := 0
		for dec := xml.NewDecoder(f); ; {
			token, err := dec.Token()
			if err == io.EOF {
				break
			} else if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if element, ok := token.(xml.StartElement); ok && element.Name.Local == "polyline" {
				curves++
			}
		}
		if curves == 0 && name != "window.svg" && name != "stopped.svg" {
			t.Errorf("%s: no curve", name)
		}
	}
	if _, err := replacePart([]byte("text"), "figures", "new"); err == nil || !strings.Contains(err.Error(), "figures: begin") {
		t.Errorf("a page without comments: %v", err)
	}
}

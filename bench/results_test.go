package bench

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

// example is results of fixed figures: three rounds, one relay that fails at one point
// and once at another, and one that was there twice.
func example() *Results {
	r := &Results{
		Machine:  Machine{CPU: "Example CPU", Cores: 2, Memory: 4 << 30, Kernel: "6.1.0", Go: "1.26.0", LoadAvg: 1.5},
		Settings: Settings{Began: time.Date(2026, 11, 21, 10, 0, 0, 0, time.UTC), Command: "tpbench compare --relays direct,tprelay,haproxy,iocopy", Rounds: 3, Seconds: 4, WarmUp: 1, Baseline: "haproxy", With: Builtin},
		Points:   []string{"bulk-1-up", "rr-100", "idle-8000", "scale-100", "scale-8000"},
		Notes:    []string{"socat is left out: socat is not installed; apt-get install socat"},
	}
	for _, name := range []string{"direct", "tprelay", "haproxy", "iocopy"} {
		r.Relays = append(r.Relays, Relay{Name: name, Peer: name, Title: "the relay " + name, Way: "transparent", Advice: "as <it> is"})
	}
	bulk := map[string][3]float64{"direct": {30, 0, 0.5}, "tprelay": {20, 0.20, 0.8}, "haproxy": {19, 0.22, 0.9}, "iocopy": {18, 0.25, 1}}
	rr := map[string]float64{"direct": 90000, "tprelay": 65000, "haproxy": 61000, "iocopy": 50000}
	for round := range 3 {
		for _, relay := range r.Relays {
			add := func(point string, figures map[string]float64) {
				for name, v := range figures {
					figures[name] = v * []float64{1, 1.02, 0.97}[round]
					if relay.Name == "direct" && (name == relayCPU || name == resident || name == descriptors) {
						delete(figures, name)
					}
				}
				r.Runs = append(r.Runs, Run{Round: round + 1, Point: point, Relay: relay.Name, Began: r.Settings.Began.Add(time.Duration(len(r.Runs)) * 5 * time.Second), Figures: figures})
			}
			b := bulk[relay.Name]
			add("bulk-1-up", map[string]float64{throughput: b[0], relayCPU: b[1], machineCPU: b[2]})
			f := rr[relay.Name]
			add("rr-100", map[string]float64{rate: f, p50: 5e4 / f, p90: 8e4 / f, p99: 2e5 / f, p999: 9e5 / f, relayCPU: 8e5 / f, machineCPU: 2e6 / f, errorCount: 0})
			add("idle-8000", map[string]float64{resident: 1e7 / f, descriptors: 2, errorCount: 0})
			add("scale-100", map[string]float64{relayCPU: 8e5 / f, rate: 20000, p99: 2e5 / f, errorCount: 0})
			add("scale-8000", map[string]float64{relayCPU: 1e6 / f, rate: 20000, p99: 3e5 / f, errorCount: 0})
		}
	}
	for i := range r.Runs {
		run := &r.Runs[i]
		switch {
		case run.Relay == "iocopy" && run.Point == "scale-8000":
			run.Figures, run.Error = nil, "no request was answered in the window"
		case run.Relay == "iocopy" && run.Point == "rr-100" && run.Round == 2:
			run.Figures, run.Error = nil, "relay iocopy: it ended by itself"
		case run.Relay == "haproxy" && run.Point == "rr-100":
			run.Figures[rate] *= 1 + 0.1*float64(run.Round)
			run.Figures[errorCount] = float64(run.Round)
			run.Others, run.Warnings = 0.12, []string{"2 errors, the first: connection reset by peer"}
		}
	}
	return r
}

func cellOf(t *testing.T, r *Results, point, relay, metric string) Cell {
	t.Helper()
	p, ok := FindPoint(point)
	m, known := p.metric(metric)
	if !ok || !known {
		t.Fatalf("no %s at %s", metric, point)
	}
	return r.Cell(p, relay, m)
}

func TestCellIsTheMedianWithItsRangeAndRatio(t *testing.T) {
	r := &Results{Settings: Settings{Baseline: "haproxy"}}
	for i, v := range []float64{10, 30, 20} {
		r.Runs = append(r.Runs,
			Run{Round: i + 1, Point: "rr-1", Relay: "tprelay", Figures: map[string]float64{rate: v, errorCount: 2}},
			Run{Round: i + 1, Point: "rr-1", Relay: "haproxy", Figures: map[string]float64{rate: 2 * v}},
			Run{Round: i + 1, Point: "rr-1", Relay: "iocopy", Error: "broken"})
	}
	if c := cellOf(t, r, "rr-1", "tprelay", rate); c.Median != 20 || c.Min != 10 || c.Max != 30 || c.Rounds != 3 || c.Ratio != 0.5 || c.Spread() != 0.5 {
		t.Errorf("%+v", c)
	}
	if c := cellOf(t, r, "rr-1", "tprelay", errorCount); c.Median != 6 || c.Ratio != 0 || c.Spread() != 0 {
		t.Errorf("errors are not added up: %+v", c)
	}
	if c := cellOf(t, r, "rr-1", "iocopy", rate); c.Rounds != 0 || c.Error != "broken" {
		t.Errorf("%+v", c)
	}
	if c := cellOf(t, r, "rr-1", "tprelay", relayCPU); c.Rounds != 0 || c.String() != "-" {
		t.Errorf("%+v", c)
	}
}

func TestRatioIsOfTheSameRound(t *testing.T) {
	r := &Results{Settings: Settings{Baseline: "haproxy"}}
	for i, v := range []float64{10, 30, 20, 50} {
		base := Run{Round: i + 1, Point: "rr-1", Relay: "haproxy", Figures: map[string]float64{rate: v}}
		switch i {
		case 2:
			base.Figures[rate] = 4 * v
		case 3:
			base.Figures, base.Error = nil, "broken"
		}
		r.Runs = append(r.Runs, base, Run{Round: i + 1, Point: "rr-1", Relay: "tprelay", Figures: map[string]float64{rate: 2 * v}})
	}
	// 2, 2 and 0.5, though its median is 50 and the other's 30.
	if c := cellOf(t, r, "rr-1", "tprelay", rate); c.Median != 50 || c.Ratio != 2 {
		t.Errorf("%+v", c)
	}
	if c := cellOf(t, r, "rr-1", "haproxy", rate); c.Ratio != 1 {
		t.Errorf("%+v", c)
	}
	r.Runs = r.Runs[len(r.Runs)-2:] // the round that has none
	if c := cellOf(t, r, "rr-1", "tprelay", rate); c.Rounds != 1 || c.Ratio != 0 {
		t.Errorf("%+v", c)
	}
}

func TestMedianOfAnEvenNumberIsBetween(t *testing.T) {
	for _, tc := range []struct {
		values []float64
		want   float64
	}{{[]float64{3}, 3}, {[]float64{4, 1}, 2.5}, {[]float64{9, 1, 5}, 5}, {[]float64{1, 100, 2, 3}, 2.5}} {
		values := slices.Clone(tc.values)
		if got := median(values); got != tc.want || !slices.Equal(values, tc.values) {
			t.Errorf("%v: %g, want %g", values, got, tc.want)
		}
	}
}

func TestNumbersHaveThreeDigits(t *testing.T) {
	for x, want := range map[float64]string{
		0: "0", 65389.7: "65,390", 1234567: "1,234,567", 999.6: "1,000", 100: "100", 42.34: "42.3", 1.005: "1.00", 0.2149: "0.215", 0.00012: "0.00012", -1234: "-1,234",
	} {
		if got := number(x); got != want {
			t.Errorf("%g: %s, want %s", x, got, want)
		}
	}
}

func TestTableGolden(t *testing.T) { golden(t, "table.md.golden", []byte(example().Markdown())) }

func TestTableWithoutBaselineHasNoRatios(t *testing.T) {
	r := example()
	r.Settings.Baseline = ""
	for line := range strings.Lines(r.Markdown()) {
		if strings.HasPrefix(line, "|") && strings.Contains(line, "(") {
			t.Error(line)
		}
	}
}

func TestManyBusyRunsAreOneWarning(t *testing.T) {
	r := example()
	for i := range r.Runs {
		r.Runs[i].Others = 0.3 + float64(i)/1000
	}
	if got, want := r.busy(), "other programs used more than 5 % of the machine in 60 of 60 runs, at most 36 %: nothing else should run meanwhile"; len(got) != 1 || got[0] != want {
		t.Errorf("%q", got)
	}
}

func TestCSVGolden(t *testing.T) {
	var b bytes.Buffer
	if err := example().writeCSV(&b); err != nil {
		t.Fatal(err)
	}
	golden(t, "results.csv.golden", b.Bytes())
}

func TestResultsComeBackAsTheyWereWritten(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new")
	r := example()
	if err := MakeDir(dir); err != nil {
		t.Fatal(err)
	}
	if err := r.Write(dir); err != nil {
		t.Fatal(err)
	}
	again, err := Read(dir)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(r, again) {
		t.Errorf("wrote\n%+v\nread\n%+v", r, again)
	}
	for _, name := range []string{JSONFile, CSVFile, TableFile} {
		if f, err := os.Stat(filepath.Join(dir, name)); err != nil || f.Size() == 0 {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestSameRelayTwiceIsComparedWithItself(t *testing.T) {
	r := &Results{Points: []string{"cps-50"}, Settings: Settings{Baseline: "tprelay"}}
	for _, name := range []string{"tprelay", "tprelay#2"} {
		r.Relays = append(r.Relays, Relay{Name: name, Peer: "tprelay"})
	}
	for i, v := range []float64{100, 110, 105} {
		r.Runs = append(r.Runs,
			Run{Round: i + 1, Point: "cps-50", Relay: "tprelay", Figures: map[string]float64{rate: v, relayCPU: 1}},
			Run{Round: i + 1, Point: "cps-50", Relay: "tprelay#2", Figures: map[string]float64{rate: v + 2, relayCPU: 2}})
	}
	got := strings.Join(r.selfCheck(), "\n")
	for _, want := range []string{
		"cps-50, connections/s: tprelay#2 over tprelay is 1.019, each ±5 % and ±5 % by itself; the ranges overlap",
		"cps-50, relay CPU µs/connection: tprelay#2 over tprelay is 2.000, each ±0 % and ±0 % by itself; the ranges are apart",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
}

// golden compares with a file, which UPDATE_GOLDEN=1 writes.
func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if os.Getenv("UPDATE_GOLDEN") != "" {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s differs (UPDATE_GOLDEN=1 writes it anew):\n%s", path, firstDifference(string(got), string(want)))
	}
}

func firstDifference(got, want string) string {
	g, w := strings.Split(got, "\n"), strings.Split(want, "\n")
	for i := range min(len(g), len(w)) {
		if g[i] != w[i] {
			return fmt.Sprintf("line %d:\ngot  %s\nwant %s", i+1, g[i], w[i])
		}
	}
	return fmt.Sprintf("%d lines, want %d", len(g), len(w))
}

package output

import (
	"bytes"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"golang.org/x/perf/benchfmt"

	"github.com/tprelay/tprelay/bench/scenario"
	"github.com/tprelay/tprelay/bench/stats"
	"github.com/tprelay/tprelay/bench/stats/statstest"
)

func TestTableGolden(t *testing.T) {
	const path = "testdata/table.md.golden"
	got := Markdown(statstest.Example())
	if os.Getenv("UPDATE_GOLDEN") != "" {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if want, err := os.ReadFile(path); err != nil || got != string(want) {
		t.Errorf("%v; UPDATE_GOLDEN=1 writes it anew; got\n%s", err, got)
	}
}

func TestTableWithoutBaselineHasNoRatios(t *testing.T) {
	r := statstest.Example()
	r.Settings.Baseline = ""
	for line := range strings.Lines(Markdown(r)) {
		if strings.HasPrefix(line, "|") && strings.Contains(line, "(") {
			t.Error(line)
		}
	}
}

func TestEachTableSaysItsLoop(t *testing.T) {
	for _, w := range scenario.Workloads() {
		if text := caption(w); !strings.HasSuffix(text, "loop") && !strings.HasSuffix(text, "no load") {
			t.Error(text)
		}
	}
}

func TestRelaysThatHardlyDifferShareTheLead(t *testing.T) {
	w, _ := scenario.Find("rr-1")
	r := &stats.Results{Workloads: []string{"rr-1"}}
	for _, name := range []string{"direct", "a", "b", "c"} {
		r.Relays = append(r.Relays, stats.Relay{Name: name, Relay: name})
	}
	for round := range 6 {
		for name, rate := range map[string]float64{"direct": 9000, "a": 1000, "b": 1001, "c": 400} {
			r.Runs = append(r.Runs, stats.Run{Round: round + 1, Workload: "rr-1", Relay: name, Figures: scenario.Figures{scenario.Rate: rate + float64(round)}})
		}
	}
	const want = "b, a are ahead in requests/s, by a factor of 2.5 before c"
	if got := lead(r, w, w.Metrics[0]); got != want {
		t.Errorf("%q, want %q", got, want)
	}
	r.Relays = r.Relays[:3]
	if got := lead(r, w, w.Metrics[0]); got != "no clear lead in requests/s" {
		t.Errorf("%q", got)
	}
}

func TestBenchstatReadsTheFigures(t *testing.T) {
	var b bytes.Buffer
	r := statstest.Example()
	if err := writeBenchstat(&b, r); err != nil {
		t.Fatal(err)
	}
	results := 0
	for reader := benchfmt.NewReader(&b, "example"); reader.Scan(); {
		switch rec := reader.Result().(type) {
		case *benchfmt.Result:
			results++
			_, parts := rec.Name.Parts()
			if string(parts[0]) == "/workload=rr-100" && string(parts[1]) == "/relay=haproxy" {
				if v, ok := rec.Value("p99-ms"); !ok || v <= 0 {
					t.Errorf("%s: %v", rec.Name, rec.Values)
				}
			}
		case *benchfmt.SyntaxError:
			t.Error(rec)
		}
	}
	// Four runs failed, and direct has nothing but errors with idle-8000.
	if want := len(r.Runs) - 4 - 3; results != want {
		t.Errorf("%d results, want %d", results, want)
	}
}

func TestResultsComeBackAsTheyWereWritten(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new")
	r := statstest.Example()
	if err := MakeDir(dir); err != nil {
		t.Fatal(err)
	}
	if err := Write(dir, r); err != nil {
		t.Fatal(err)
	}
	again, err := Read(dir)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(r, again) {
		t.Errorf("wrote\n%+v\nread\n%+v", r, again)
	}
	for _, name := range []string{JSONFile, BenchstatFile, TableFile} {
		if f, err := os.Stat(filepath.Join(dir, name)); err != nil || f.Size() == 0 {
			t.Errorf("%s: %v", name, err)
		}
	}
}

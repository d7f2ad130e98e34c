package e2e

import (
	"fmt"
	"iter"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/tprelay/tprelay/tproxy"
)

// document is where the table is, between the two marks.
const (
	document = "../../docs/closing.md"
	begin    = "<!-- the table: written by TestClosingMatrix -->\n"
	end      = "<!-- the end of the table -->\n"
)

// results are what came of the cells: by cell, then by combination.
type results map[string]map[combination]outcome

func (r results) add(c cell, in combination, o outcome) {
	if r[c.name] == nil {
		r[c.name] = map[combination]outcome{}
	}
	r[c.name][in] = o
}

// complete: every cell was played in every combination.
func (r results) complete() bool {
	for _, c := range cells() {
		n := len(combinations())
		if c.alone {
			n -= 2
		}
		if len(r[c.name]) != n {
			return false
		}
	}
	return true
}

// render makes the tables: a row for each cell.
func (r results) render() string {
	var b strings.Builder
	section := -1
	for _, c := range cells() {
		if c.section != section {
			section = c.section
			fmt.Fprintf(&b, "\n### %s\n\n| what happens | without a relay | through the relay | counted as |\n| --- | --- | --- | --- |\n", sections[section])
		}
		direct, relay := usual(r[c.name], false), usual(r[c.name], true)
		through, without := relay.ends(), direct.ends()
		switch {
		case c.alone:
			without = "–"
		case through == without:
			through = "the same"
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s |\n", c.name, without, through, relay.counted())
		for o, where := range r.deviations(c, relay) {
			fmt.Fprintf(&b, "| … %s | | %s | %s |\n", where, o.ends(), o.counted())
		}
	}
	return b.String() + "\n"
}

// deviations are the other outcomes of a cell through the relay, and their combinations.
func (r results) deviations(c cell, usual outcome) iter.Seq2[outcome, string] {
	where := map[outcome][]combination{}
	var order []outcome
	for _, in := range combinations() {
		if o := r[c.name][in]; in.relayed() && o != usual {
			if where[o] == nil {
				order = append(order, o)
			}
			where[o] = append(where[o], in)
		}
	}
	return func(yield func(outcome, string) bool) {
		for _, o := range order {
			if !yield(o, describe(where[o])) {
				return
			}
		}
	}
}

// describe names combinations: by a property if these are all combinations that have it, and
// otherwise one by one.
func describe(some []combination) string {
	property := map[string][]combination{}
	var names []string
	for _, c := range combinations() {
		if c.relayed() {
			property[c.mode.String()] = append(property[c.mode.String()], c)
			property[c.path] = append(property[c.path], c)
			property[c.family()] = append(property[c.family()], c)
		}
	}
	for _, c := range some {
		for _, name := range []string{c.mode.String(), c.path, c.family()} {
			if slices.Equal(property[name], some) {
				return "in every combination with " + name
			}
		}
		names = append(names, c.String())
	}
	return "in " + strings.Join(names, "; ")
}

// usual is what came of a cell most often, directly or through the relay; among equals, in the
// first combination.
func usual(by map[combination]outcome, relayed bool) (most outcome) {
	counts := map[outcome]int{}
	for _, in := range combinations() {
		if o, ok := by[in]; ok && in.relayed() == relayed {
			counts[o]++
		}
	}
	best := 0
	for _, in := range combinations() {
		if o, ok := by[in]; ok && counts[o] > best && in.relayed() == relayed {
			most, best = o, counts[o]
		}
	}
	return most
}

func (o outcome) ends() string {
	switch {
	case o.client == view{} && o.server == view{}:
		return "–"
	case o.server == view{}:
		return "client: " + o.client.String()
	case o.client == view{}:
		return "server: " + o.server.String()
	}
	return "client: " + o.client.String() + "; server: " + o.server.String()
}

func (o outcome) counted() string {
	reason, errno, failed := strings.Cut(o.reason, " ")
	if failed {
		return "`" + reason + "`, `" + errno + "`"
	}
	return "`" + reason + "`"
}

func (v view) String() string {
	switch {
	case v.ending == "":
		return amount(v.bytes)
	case strings.HasPrefix(v.ending, "E"):
		return v.ending
	}
	return amount(v.bytes) + ", " + v.ending
}

// amount is a number of bytes, to be read.
func amount(n int64) string {
	if n == acknowledged {
		return "all that was acknowledged"
	}
	rest := fmt.Sprintf("%d B", n%mebibyte)
	if k := n % mebibyte; k >= 1000 {
		rest = fmt.Sprintf("%d,%03d B", k/1000, k%1000)
	}
	switch {
	case n < mebibyte:
		return rest
	case n%mebibyte == 0:
		return fmt.Sprintf("%d MiB", n/mebibyte)
	}
	return fmt.Sprintf("%d MiB + %s", n/mebibyte, rest)
}

// compareDocument holds that the document has the table, or puts it there.
func compareDocument(t *testing.T, table string) {
	t.Helper()
	text, err := os.ReadFile(document)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(text), begin)
	old, after, closed := strings.Cut(rest, end)
	switch {
	case !ok || !closed:
		t.Fatalf("%s has no place for the table: %q to %q", document, begin, end)
	case old == table:
	case os.Getenv("TPRELAY_WRITE_DOCS") != "":
		if err := os.WriteFile(document, []byte(before+begin+table+end+after), 0o644); err != nil {
			t.Fatal(err)
		}
	default:
		t.Errorf("the table in docs/closing.md is not what came of the cells; TPRELAY_WRITE_DOCS=1 go test ./internal/e2e -run TestClosingMatrix writes it")
	}
}

// TestDeviatingCombinationsAreNamed holds what the table shows when cells do not come out alike.
func TestDeviatingCombinationsAreNamed(t *testing.T) {
	c := cell{name: "cell"}
	r := results{}
	for _, in := range combinations() {
		o := outcome{reason: "eof"}
		switch {
		case in.path == "mixed":
			o.reason = "reset"
		case in == combination{path: "splice", mode: tproxy.TPROXY} || in == combination{path: "buffer", mode: tproxy.Forward, v6: true}:
			o.reason = "drained"
		}
		r.add(c, in, o)
	}
	most := usual(r[c.name], true)
	got := map[string]string{}
	for o, where := range r.deviations(c, most) {
		got[o.reason] = where
	}
	want := map[string]string{"reset": "in every combination with mixed", "drained": "in splice, tproxy, IPv4; buffer, forward, IPv6"}
	if most.reason != "eof" || !maps.Equal(got, want) {
		t.Errorf("usually %s, but %q", most.reason, got)
	}
}

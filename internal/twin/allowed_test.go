package twin

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
)

// allowance is a difference between the twins that is allowed.
type allowance struct {
	aspects []string // in which it shows
	what    string   // directly, and through the relay
	why     string
	applies func(situation) bool
}

// table is everything that may be different through a relay. Bytes, their order, their number
// before a FIN, and an end that is a FIN in place of an RST or the reverse are in no row.
var table = []allowance{
	{
		aspects: []string{connected, heard, told},
		what:    "connect(2) fails; through the relay it succeeds, and the client then gets an RST",
		why:     "the relay learns the destination of a connection only by accepting it",
		applies: func(s situation) bool {
			return s.client && s.script.Absent != "" && !s.direct.self.Served && s.relay.self.Heard == RST
		},
	},
	{
		aspects: []string{told},
		what:    "a write fails; through the relay it succeeds, and the end sees the RST later or has closed before",
		why:     "the relay's buffers take bytes that a router would leave with the sender",
		applies: func(s situation) bool {
			return s.relay.self.Told == "" && s.relay.self.Sent >= s.direct.self.Sent
		},
	},
	{
		aspects: []string{told},
		what:    "a read reports the RST; through the relay a write does, or the reverse",
		why:     "a socket reports an RST once, to the call that comes first, which depends on timing",
		applies: func(s situation) bool {
			return s.direct.self.Heard == RST && s.relay.self.Heard == RST
		},
	},
	{
		aspects: []string{heard, told},
		what:    "the other end sends an RST instead of a FIN, or the reverse: by close(2), or by closing before its writer has finished",
		why:     "close(2) sends an RST if there are unread bytes, or if bytes arrive later; this, and the order of an end's two tasks, depends on timing",
		applies: func(s situation) bool {
			d, r := s.direct.other, s.relay.other
			reset := r.Cut && r.resets(s.relay.self) && !d.resets(s.direct.self) // since bytes came later
			return d.Over != gone && r.Over != gone && (d.Over != r.Over || d.Finished != r.Finished || reset)
		},
	},
	{
		aspects: []string{heard},
		what:    "an RST; through the relay all bytes and a FIN, and later the RST",
		why:     "the relay had acknowledged all bytes and the FIN before the other end reset, or the other end reset because the relay had closed",
		applies: func(s situation) bool {
			r := s.relay.other
			return s.direct.self.Heard == RST && s.relay.self.Heard == FIN && r.Finished && (r.Over != RST || r.Acked == r.Sent)
		},
	},
	{
		aspects: []string{heard},
		what:    "all bytes and a FIN; through a relay that is stopped meanwhile, the acknowledged bytes and an RST",
		why:     "a reset drops bytes that are not acknowledged, and a stopped relay acknowledges no more than its receive buffer takes",
		applies: func(s situation) bool {
			r := s.relay.other
			return s.set.Fault == pause && s.direct.self.Heard == FIN && s.relay.self.Heard == RST && r.Over == RST && !r.FINAcked
		},
	},
	{
		aspects: []string{heard},
		what:    "an end that is slow to read sees an RST at once; through the relay it closes before it has read the bytes before the RST",
		why:     "the relay delivers acknowledged bytes before the RST",
		applies: func(s situation) bool {
			r := s.relay
			more := r.self.Received < r.other.Acked || r.self.Over == RST && r.self.Received < r.other.Sent // had come
			return s.direct.self.Heard == RST && r.self.Heard == "" && r.self.Over != gone && r.other.Over == RST && more
		},
	},
	{
		aspects: []string{connected, heard, told},
		what:    "the server gets a connection that was already reset; through the relay it gets none",
		why:     "the client reset the connection before the relay had opened the outgoing one",
		applies: func(s situation) bool {
			return !s.client && !s.relay.self.Served && s.relay.other.Over == RST && s.relay.other.Acked == 0
		},
	},
	{
		aspects: []string{heard, told, amount},
		what:    "an end that closes has read more or fewer bytes by then, or has or has not seen the other end's FIN or RST",
		why:     fmt.Sprintf("bytes and ends arrive later by up to %v, as calls may return later", slack),
		applies: func(s situation) bool {
			d, r := s.direct.self, s.relay.self
			if d.Heard != "" && r.Heard != "" || d.Heard == "" && r.Heard == "" && d.Told == r.Told && !r.Cut {
				return false
			}
			paced := slices.ContainsFunc(s.part().Read, func(st step) bool { return st.rate > 0 || st.wait > 0 })
			other, late := s.relay.other, r.OverAt-slack-s.set.Fault.allowance()
			return r.Cut && paced || other.SentAt > late || other.FinishedAt > late || other.OverAt > late
		},
	},
	{
		aspects: []string{writes},
		what:    "an end that is slow to read sees an RST at once; through the relay its writes wait until it has read the bytes before the RST",
		why:     "the relay delivers acknowledged bytes before the RST, and accepts no more bytes for the end that reset",
		applies: func(s situation) bool {
			return s.direct.self.Heard == RST && s.relay.self.Heard == RST && s.relay.other.Over == RST && s.relay.self.ReadWait < slack
		},
	},
}

// part is what the end's script is.
func (s situation) part() part {
	if s.client {
		return s.script.Client
	}
	return s.script.Server
}

// always are the differences that no outcome shows: scripts are written so, or time is given.
var always = []allowance{
	{
		what: "urgent data loses its mark and stays in the stream",
		why:  "splice(2) cannot pass the mark on, and no byte may be lost; all sockets of the test have SO_OOBINLINE",
	},
	{
		what: "a handler that waits for the rest of a match holds its beginning back until more bytes or the end of the stream arrive",
		why:  "the handler cannot know yet whether it is a match; only the last bytes of a direction can end within one",
	},
	{
		what: "close(2) with SO_LINGER returns earlier",
		why:  "the call waits for acknowledgements, which the relay sends",
	},
	{
		what: fmt.Sprintf("calls wait for up to %v longer in all", slack),
		why:  "two connections are opened and closed instead of one, and the relay shares the machine",
	},
}

// allowed gives the row that allows a difference.
func (a aspect) allowed(s situation) *allowance {
	for i := range table {
		if slices.Contains(table[i].aspects, a.name) && table[i].applies(s) {
			return &table[i]
		}
	}
	return nil
}

// document is where the table is, between the two marks.
const (
	document = "../../docs/closing.md"
	begin    = "<!-- the allowed differences: written by TestAllowedDifferencesAreDocumented -->\n"
	finish   = "<!-- the end of the allowed differences -->\n"
)

// TestAllowedDifferencesAreDocumented holds that docs/closing.md has the table, or writes it:
//
//	TPRELAY_WRITE_DOCS=1 go test ./internal/twin -run TestAllowedDifferencesAreDocumented
func TestAllowedDifferencesAreDocumented(t *testing.T) {
	var b strings.Builder
	b.WriteString("\n| what is different through the relay | why |\n| --- | --- |\n")
	said := map[string]bool{}
	for _, row := range append(append([]allowance(nil), table...), always...) {
		if !said[row.what] {
			fmt.Fprintf(&b, "| %s | %s |\n", row.what, row.why)
		}
		said[row.what] = true
	}
	for _, f := range faults {
		if f.extra > 0 {
			fmt.Fprintf(&b, "| %s: calls wait for up to %v longer | %s |\n", f.what, f.extra, f.why)
		}
	}
	for _, p := range profiles {
		if p.busy > 0 {
			fmt.Fprintf(&b, "| up to %d busy streams at once: calls wait for up to %v longer | the relay waits for a CPU that it shares with all ends; "+
				"a router does not |\n", p.crowd, p.busy)
		}
	}
	b.WriteString("\n")
	text, err := os.ReadFile(document)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(text), begin)
	old, after, closed := strings.Cut(rest, finish)
	switch {
	case !ok || !closed:
		t.Fatalf("%s has no place for the table: %q to %q", document, begin, finish)
	case old == b.String():
	case os.Getenv("TPRELAY_WRITE_DOCS") != "":
		if err := os.WriteFile(document, []byte(before+begin+b.String()+finish+after), 0o644); err != nil {
			t.Fatal(err)
		}
	default:
		t.Error("docs/closing.md has not this table; TPRELAY_WRITE_DOCS=1 go test ./internal/twin -run TestAllowedDifferencesAreDocumented writes it")
	}
}

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

// table is everything that may be different through a relay. Bytes, their order, their number before a
// FIN, and an end that is a FIN in place of an RST or the reverse are in no row.
var table = []allowance{
	{
		aspects: []string{connected, heard, told},
		what:    "connect(2) fails; through the relay it succeeds, and the client then gets an RST",
		why:     "the relay learns where a connection goes by accepting it",
		applies: func(s situation) bool {
			return s.client && s.script.Absent != "" && !s.direct.self.Served && s.relay.self.Heard == RST
		},
	},
	{
		aspects: []string{told},
		what:    "a write fails; through the relay it succeeds, and the end hears of the RST later, or has closed before",
		why:     "the relay's buffers take what a router would leave with the sender",
		applies: func(s situation) bool {
			return s.relay.self.Told == "" && s.relay.self.Sent >= s.direct.self.Sent
		},
	},
	{
		aspects: []string{told},
		what:    "a read hears of the RST; through the relay a write does, or the reverse",
		why:     "a socket tells of an RST once, and which call asks first is a matter of time",
		applies: func(s situation) bool {
			return s.direct.self.Heard == RST && s.relay.self.Heard == RST
		},
	},
	{
		aspects: []string{heard, told},
		what:    "the other end sent an RST where it sent a FIN, or the reverse: by close(2), or by closing before its writer was through",
		why:     "close(2) sends an RST if unread bytes have come by then, or when bytes come later; that, and which of an end's two tasks is first, is a matter of time",
		applies: func(s situation) bool {
			d, r := s.direct.other, s.relay.other
			reset := r.Cut && r.resets(s.relay.self) && !d.resets(s.direct.self) // since bytes came later
			return d.Over != gone && r.Over != gone && (d.Over != r.Over || d.Finished != r.Finished || reset)
		},
	},
	{
		aspects: []string{heard},
		what:    "an RST; through the relay all bytes and a FIN, and later the RST",
		why:     "the relay had taken all bytes and the FIN off the other end's hands before that reset, or was reset since it had closed",
		applies: func(s situation) bool {
			r := s.relay.other
			return s.direct.self.Heard == RST && s.relay.self.Heard == FIN && r.Finished && (r.Over != RST || r.Acked == r.Sent)
		},
	},
	{
		aspects: []string{heard},
		what:    "all bytes and a FIN; through a relay that is stopped meanwhile what was acknowledged, and an RST",
		why:     "a reset drops what is not acknowledged, and nobody acknowledges more than the relay's receive buffer takes",
		applies: func(s situation) bool {
			r := s.relay.other
			return s.set.Fault == pause && s.direct.self.Heard == FIN && s.relay.self.Heard == RST && r.Over == RST && !r.FINAcked
		},
	},
	{
		aspects: []string{heard},
		what:    "an end that is slow to read hears of an RST at once; through the relay it ends the connection itself before it has read what came before",
		why:     "the relay passes an RST on behind the bytes that it had acknowledged",
		applies: func(s situation) bool {
			r := s.relay
			more := r.self.Received < r.other.Acked || r.self.Over == RST && r.self.Received < r.other.Sent // had come
			return s.direct.self.Heard == RST && r.self.Heard == "" && r.self.Over != gone && r.other.Over == RST && more
		},
	},
	{
		aspects: []string{connected, heard, told},
		what:    "the server gets a connection that is reset already; through the relay it gets none",
		why:     "the client reset the connection before the relay had opened the other one",
		applies: func(s situation) bool {
			return !s.client && !s.relay.self.Served && s.relay.other.Over == RST && s.relay.other.Acked == 0
		},
	},
	{
		aspects: []string{heard, told, amount},
		what:    "an end that closes the connection has read more by then, or less, or has heard of the other end's end or not",
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
		what:    "an end that is slow to read hears of an RST at once; through the relay its writes wait until it has read what came before",
		why:     "the relay passes an RST on behind the bytes that it had acknowledged, and takes no more for who sent it",
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
		why:  "the mark cannot be passed on by splice(2), and no byte may be lost; all sockets of the test have SO_OOBINLINE",
	},
	{
		what: "a handler that waits for the rest of a match holds the beginning of one back, until more bytes or the stream's end come",
		why:  "it cannot know yet; only the last bytes of a direction end within a match",
	},
	{
		what: "close(2) with SO_LINGER returns earlier",
		why:  "it waits for acknowledgements, and these come from the relay",
	},
	{
		what: fmt.Sprintf("calls wait for up to %v longer in all", slack),
		why:  "two connections are opened and closed in place of one, and the relay shares the machine",
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
			fmt.Fprintf(&b, "| up to %d busy streams at once: calls wait for up to %v longer | the relay waits for a CPU, which all ends share with it; "+
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

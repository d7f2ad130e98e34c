package twin

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// Verbs of steps. A writer sends, waits and ends; a reader reads, waits and ends. Either may close
// the connection under the other.
const (
	send   = "send"   // n bytes
	urgent = "urgent" // one byte, as urgent data
	await  = "await"  // until the end's reader has n bytes
	fin    = "fin"    // shutdown(SHUT_WR)
	read   = "read"   // n bytes, or up to the stream's end
	drain  = "drain"  // up to the stream's end
	shutrd = "shutrd" // shutdown(SHUT_RD), and read no more
	wait   = "wait"   // for a time
	closes = "close"  // close(2)
	resets = "reset"  // close(2) with SO_LINGER 0
)

// step is one thing that an end does. Its text is "send 1000", "wait 200ms", "read 100 @5000",
// "fin".
type step struct {
	verb string
	n    int64 // bytes
	rate int64 // bytes per second that a reader takes; 0: as they come
	wait time.Duration
}

func (s step) String() string {
	switch s.verb {
	case send, await, read:
		if s.rate > 0 {
			return fmt.Sprintf("%s %d @%d", s.verb, s.n, s.rate)
		}
		return fmt.Sprintf("%s %d", s.verb, s.n)
	case wait:
		return fmt.Sprintf("%s %v", s.verb, s.wait)
	case drain:
		if s.rate > 0 {
			return fmt.Sprintf("%s @%d", s.verb, s.rate)
		}
	}
	return s.verb
}

// MarshalText makes steps strings in JSON.
func (s step) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText reads what MarshalText wrote.
func (s *step) UnmarshalText(text []byte) (err error) {
	f := strings.Fields(string(text))
	if len(f) == 0 {
		return fmt.Errorf("a step without a verb")
	}
	s.verb = f[0]
	for _, arg := range f[1:] {
		switch {
		case s.verb == wait:
			s.wait, err = time.ParseDuration(arg)
		case strings.HasPrefix(arg, "@"):
			s.rate, err = strconv.ParseInt(arg[1:], 10, 64)
		default:
			s.n, err = strconv.ParseInt(arg, 10, 64)
		}
		if err != nil {
			return fmt.Errorf("step %q: %w", text, err)
		}
	}
	return nil
}

// options are those of an end's socket. Zero values leave the kernel's own.
type options struct {
	RcvBuf  int  `json:"rcvbuf,omitempty"`
	SndBuf  int  `json:"sndbuf,omitempty"`
	MSS     int  `json:"mss,omitempty"`
	NoDelay bool `json:"nodelay,omitempty"`
	Linger  int  `json:"linger,omitempty"` // seconds
}

// part is what one end does: the two lists run side by side. When both are through, the end closes.
type part struct {
	Options options `json:"options,omitzero"`
	Write   []step  `json:"write,omitempty"`
	Read    []step  `json:"read,omitempty"`
}

// Servers that are not there.
const (
	refused = "refused" // nobody listens
	deaf    = "deaf"    // somebody listens, does not accept, and closes the listener after a second
)

// script is what a client and a server do with a connection.
type script struct {
	Kind   string   `json:"kind"` // for reports only
	V6     bool     `json:"v6,omitempty"`
	Again  bool     `json:"again,omitempty"`  // twice, from the same port of the client
	Absent string   `json:"absent,omitempty"` // why there is no server
	Late   duration `json:"late,omitzero"`    // how late the server accepts
	Client part     `json:"client"`
	Server part     `json:"server"`
}

// duration is a time.Duration that is readable in JSON.
type duration time.Duration

func (d duration) MarshalText() ([]byte, error) { return []byte(time.Duration(d).String()), nil }

func (d *duration) UnmarshalText(text []byte) error {
	v, err := time.ParseDuration(string(text))
	*d = duration(v)
	return err
}

// lasts bounds how long the script takes on its own account: everything that its ends wait for.
func (s script) lasts() time.Duration {
	all := time.Duration(s.Late)
	total := func(steps []step, sent int64) (d time.Duration) {
		for _, st := range steps {
			d += st.wait
			if n := min(st.n, sent); st.verb == read && st.rate > 0 {
				d += time.Duration(n) * time.Second / time.Duration(st.rate)
			} else if st.verb == drain && st.rate > 0 {
				d += time.Duration(sent) * time.Second / time.Duration(st.rate)
			}
		}
		return d
	}
	for _, p := range []struct{ self, other part }{{s.Client, s.Server}, {s.Server, s.Client}} {
		all += total(p.self.Write, 0) + total(p.self.Read, p.other.sends())
		all += time.Duration(p.self.Options.Linger) * time.Second
	}
	if s.Again {
		all *= 2
	}
	return all
}

// sends is the number of bytes that the part wants to send.
func (p part) sends() (n int64) {
	for _, s := range p.Write {
		switch s.verb {
		case send:
			n += s.n
		case urgent:
			n++
		}
	}
	return n
}

// valid: the script comes to an end by itself. Readers read to the end or end the connection, and
// at least one end does not leave the first word to the other.
func (s script) valid() bool {
	first := s.Absent != ""
	for _, p := range []struct{ self, other part }{{s.Client, s.Server}, {s.Server, s.Client}} {
		if n := len(p.self.Read); n == 0 || !slices.Contains([]string{drain, closes, resets, shutrd}, p.self.Read[n-1].verb) {
			return false
		}
		first = first || p.self.ends(p.other.sends())
	}
	return first
}

// ends reports whether the part ends a direction or the connection whatever the other end does,
// which sends so much.
func (p part) ends(sent int64) bool {
	if n := len(p.Write); n > 0 && slices.Contains([]string{fin, closes, resets}, p.Write[n-1].verb) {
		return true
	}
	for _, s := range p.Read {
		switch s.verb {
		case closes, resets, shutrd:
			return true
		case drain:
			return false
		}
		if sent -= s.n; sent < 0 {
			return false
		}
	}
	return false
}

func TestStepsAreReadAsTheyAreWritten(t *testing.T) {
	for _, text := range []string{"send 1000", "wait 200ms", "read 100 @5000", "read 7", "drain", "drain @10", "await 3", "fin", "reset"} {
		var s step
		if err := s.UnmarshalText([]byte(text)); err != nil || s.String() != text {
			t.Errorf("%q is read as %q, %v", text, s, err)
		}
	}
}

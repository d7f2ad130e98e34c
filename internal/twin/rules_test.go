package twin

import (
	"fmt"
	"testing"
)

// breaches are the rules that an outcome breaks. They hold for every connection with any path
// between its ends; a router's outcomes are held to them as well.
func (o outcome) breaches() (all []string) {
	for _, d := range []struct {
		who         string
		self, other view
	}{{"client", o.Client, o.Server}, {"server", o.Server, o.Client}} {
		for _, breach := range d.self.breaches(d.other) {
			all = append(all, d.who+": "+breach)
		}
	}
	return all
}

// breaches compares what an end heard with what the other end did.
func (v view) breaches(other view) (all []string) {
	say := func(format string, args ...any) { all = append(all, fmt.Sprintf(format, args...)) }
	if v.Wrong != "" {
		say("wrong bytes: %s", v.Wrong)
	}
	if v.Hung != "" {
		say("%s did not return", v.Hung)
	}
	if v.Received > other.Sent {
		say("%d bytes came, %d were sent", v.Received, other.Sent)
	}
	switch v.Heard {
	case FIN:
		if !other.Finished {
			say("FIN, though the other end sent none (it ended with %s)", other.ended())
		} else if v.Received != other.Sent {
			say("FIN after %d bytes of %d", v.Received, other.Sent)
		}
	case RST:
		if other.Served && !other.resets(v) {
			say("RST, though the other end sent none (it ended with %s)", other.ended())
		}
		if other.Over == RST && v.Received < other.Acked {
			say("RST after %d bytes; %d of %d had been acknowledged", v.Received, other.Acked, other.Sent)
		}
		if other.FINAcked && other.Over == RST {
			say("RST in place of a FIN that had been acknowledged")
		}
	}
	if v.Told != "" && v.Heard != FIN && v.Heard != RST && other.Served && !other.resets(v) {
		say("write was told %s, though the other end sent no RST (it ended with %s)", v.Told, other.ended())
	}
	return all
}

// resets: the end's kernel sent an RST, or had to when more came from the other end.
func (v view) resets(other view) bool {
	return v.Over == RST || v.Over != "" && v.Received < other.Sent
}

func (v view) ended() string {
	if v.Over == "" {
		return "nothing"
	}
	return v.Over
}

func TestRulesFindWhatIsWrong(t *testing.T) {
	whole := view{Served: true, Sent: 100, Acked: 100, Finished: true, Over: FIN}
	cut := view{Served: true, Sent: 100, Acked: 60, Over: RST}
	for what, c := range map[string]struct {
		self, other view
		ok          bool
	}{
		"all and a FIN":                         {view{Heard: FIN, Received: 100}, whole, true},
		"a FIN too early":                       {view{Heard: FIN, Received: 99}, whole, false},
		"an RST that nobody sent":               {view{Heard: RST, Received: 100}, whole, false},
		"an RST, since the other end had gone":  {view{Heard: RST, Received: 10, Sent: 5}, whole, true},
		"all that was acknowledged, and an RST": {view{Heard: RST, Received: 60}, cut, true},
		"less than was acknowledged":            {view{Heard: RST, Received: 59}, cut, false},
		"a FIN in place of an RST":              {view{Heard: FIN, Received: 100}, cut, false},
		"an RST in place of a FIN": {view{Heard: RST, Received: 100},
			view{Served: true, Sent: 100, Acked: 100, Finished: true, FINAcked: true, Over: RST}, false},
		"more than was sent":                {view{Received: 101}, whole, false},
		"a hang":                            {view{Hung: "read"}, whole, false},
		"wrong bytes":                       {view{Wrong: "byte 7"}, whole, false},
		"a write that failed for no reason": {view{Told: "EPIPE"}, whole, false},
	} {
		if got := c.self.breaches(c.other); (len(got) == 0) != c.ok {
			t.Errorf("%s: %q", what, got)
		}
	}
}

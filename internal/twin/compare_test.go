package twin

import (
	"fmt"
	"time"
)

// situation is a connection as it was with both: what the table of allowed differences looks at.
type situation struct {
	script script
	set    setting
	client bool // self is the client
	direct pairOfViews
	relay  pairOfViews
}

// pairOfViews are the views of an end and of the other one.
type pairOfViews struct{ self, other view }

// finding is something that is not as it must be.
type finding struct {
	what string
	kind kind
}

type kind int

const (
	breach     kind = iota // of a rule: never right
	difference             // between the twins: right if a router does the same at another time
	slow                   // a call waited longer than directly, or the machine was too busy for the script
)

// slack is how much longer than directly calls may wait; stall is what no second try excuses.
const (
	slack = time.Second
	stall = 5 * time.Second
)

// compare gives what is different with the relay and is not allowed, and notes what is.
func compare(c script, set setting, direct, relay outcome, allowed *tally) (all []finding) {
	for _, s := range []situation{
		{c, set, true, pairOfViews{direct.Client, direct.Server}, pairOfViews{relay.Client, relay.Server}},
		{c, set, false, pairOfViews{direct.Server, direct.Client}, pairOfViews{relay.Server, relay.Client}},
	} {
		who := "server"
		if s.client {
			who = "client"
		}
		say := func(k kind, format string, args ...any) {
			all = append(all, finding{who + ": " + fmt.Sprintf(format, args...), k})
		}
		d, r := s.direct.self, s.relay.self
		same := true
		for _, aspect := range aspects {
			if aspect.of(d, r) {
				continue
			}
			same = false
			if row := aspect.allowed(s); row != nil {
				allowed.note(row.what)
			} else {
				say(difference, "%s", aspect.name)
			}
		}
		if !same {
			continue
		}
		extra := slack + set.Fault.allowance()
		busy := profiles[set.Profile].busy
		for _, t := range []struct {
			name          string
			direct, relay time.Duration
		}{{"reads", d.ReadWait, r.ReadWait}, {writes, d.WriteWait, r.WriteWait}} {
			if t.relay > t.direct+extra+busy {
				if row := (aspect{name: t.name}).allowed(s); row != nil {
					allowed.note(row.what)
					continue
				}
				k := slow
				if t.relay > t.direct+stall+extra {
					k = breach
				}
				say(k, "%s waited for %v through the relay, %v directly; the longest single call: %v", t.name,
					t.relay.Round(time.Millisecond), t.direct.Round(time.Millisecond), r.Longest.Round(time.Millisecond))
			}
		}
	}
	return all
}

// aspect is something in which views are compared.
type aspect struct {
	name string
	of   func(direct, relay view) (same bool)
}

const (
	connected = "whether there was a connection"
	heard     = "how reading ended"
	told      = "what writing was told"
	amount    = "bytes that were read"
	writes    = "writes" // how long they waited
)

var aspects = []aspect{
	{connected, func(d, r view) bool { return d.Served == r.Served }},
	{heard, func(d, r view) bool { return d.Heard == r.Heard }},
	{told, func(d, r view) bool { return (d.Told == "") == (r.Told == "") }},
	// Behind a FIN the rules know the number, before an RST timing decides it, within the rules.
	{amount, func(d, r view) bool { return d.Heard != "" || r.Heard != "" || d.Received == r.Received }},
}

func (v view) String() string {
	if !v.Served {
		return "[no connection: " + or(v.Heard, "none came") + "]"
	}
	round := func(d time.Duration) time.Duration { return d.Round(time.Millisecond) }
	text := fmt.Sprintf("[sent %d, the last at %v; read %d; reads: %s; writes: %s; ended with %s at %v, %d acknowledged", v.Sent, round(v.SentAt),
		v.Received, or(v.Heard, "no end"), or(v.Told, "no error"), v.ended(), round(v.OverAt), v.Acked)
	if v.Finished {
		text += fmt.Sprintf("; FIN at %v", round(v.FinishedAt))
	}
	if v.Cut {
		text += "; closed while it read"
	}
	return text + fmt.Sprintf("; waited %v to read, %v to write, %v at most; overslept by %v]", round(v.ReadWait), round(v.WriteWait),
		round(v.Longest), round(v.Overslept))
}

func or(text, instead string) string {
	if text == "" {
		return instead
	}
	return text
}

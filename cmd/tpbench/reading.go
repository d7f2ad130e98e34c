package main

import (
	"fmt"

	"github.com/tprelay/tprelay/bench/units"
	"github.com/tprelay/tprelay/engine"
	"github.com/tprelay/tprelay/tproxy"
)

// What counts as what: the sender and the receiver agree up to agreement, and
// bytes have piled up in a relay from so many high watermarks on.
const (
	agreement = 1.1
	pile      = 4 * engine.DefaultHighWatermark
)

// agrees: the sender believed in the rate at which bytes arrived.
func (r run) agrees() bool {
	return r.SenderRate <= r.ArrivedRate*agreement && r.ArrivedRate <= r.SenderRate*agreement
}

func (r run) rates() (sender, arrived string) {
	return units.FormatRate(r.SenderRate, 1), units.FormatRate(r.ArrivedRate, 1)
}

// read puts into sentences what the figures say, be it what was to be shown or not.
func (r *report) read() []string {
	var sentences []string
	for _, run := range r.Runs {
		switch {
		case !run.Relay:
		case run.FlowControl:
			sentences = append(sentences, readControlled(run))
		default:
			sentences = append(sentences, readUncontrolled(run))
		}
	}
	return append(sentences, r.readAddresses())
}

func readControlled(r run) string {
	sender, arrived := r.rates()
	text := "With flow control, the sender behind the relay "
	switch {
	case r.agrees():
		text += fmt.Sprintf("believed in %s, and %s arrived", sender, arrived)
	case r.SenderRate < r.ArrivedRate:
		text += fmt.Sprintf("was held at %s while %s arrived: what it had sent before was still on its way", sender, arrived)
	default:
		text += fmt.Sprintf("believed in %s, but %s arrived, which is not as it should be", sender, arrived)
	}
	return text + fmt.Sprintf("; at most %s waited in the relay.", units.FormatBytes(r.Process.PendingPeak))
}

func readUncontrolled(r run) string {
	sender, arrived := r.rates()
	waited := units.FormatBytes(r.Process.PendingPeak)
	piled := fmt.Sprintf("%s piled up in the relay, whose memory grew by %s", waited, units.FormatBytes(r.Process.growth()))
	text := "Without it, the sender believed in " + sender
	switch {
	case r.Process.PendingPeak < pile:
		text += fmt.Sprintf(" and %s arrived, with at most %s waiting in the relay: these figures do not show what flow control is for.", arrived, waited)
	case r.agrees():
		text += fmt.Sprintf(" and %s arrived, yet %s.", arrived, piled)
	case r.SenderRate < r.ArrivedRate:
		text += fmt.Sprintf(" while %s arrived, and %s: these figures do not show what flow control is for.", arrived, piled)
	default:
		text += fmt.Sprintf(" while %s arrived; %s.", arrived, piled)
	}
	if r.Process.Starved > 0 {
		text += " Only its memory limit ended that."
	}
	return text
}

func (r *report) readAddresses() string {
	for _, run := range r.Runs {
		switch {
		case run.Saw == sawClient:
		case run.Saw == sawRelay && r.Settings.Mode == tproxy.Redirect.String():
			return "Behind the relay, the server saw the relay's address, as is usual with REDIRECT."
		default:
			return fmt.Sprintf("In the run %q the client was %v, but the server saw %v, which is not as it should be.", run.Name, run.Client, run.ServerSaw)
		}
	}
	return "In every run the server saw the client's own address and port."
}

package main

import (
	"fmt"
	"strings"

	"github.com/tprelay/tprelay/bench/units"
)

// Whose address the server saw.
const (
	sawClient    = "client" // the client's own, and its port
	sawOtherPort = "client, other port"
	sawRelay     = "relay"
	sawStranger  = "stranger"
)

// report is all that the demo found out.
type report struct {
	Settings settings `json:"settings"`
	Runs     []run    `json:"runs"`
	Reading  []string `json:"reading"` // what the figures say, in sentences
	Notes    []string `json:"notes,omitempty"`
}

// settings are what the runs had in common.
type settings struct {
	Mode       string  `json:"mode"`
	IPv6       bool    `json:"ipv6"`
	Access     uint64  `json:"access_bit_per_s"`
	Bottleneck uint64  `json:"bottleneck_bit_per_s"`
	Queue      float64 `json:"queue_seconds"` // before each link
	Delay      float64 `json:"delay_seconds"` // of each link, one way
	Seconds    int     `json:"seconds"`
	Skipped    int     `json:"skipped_seconds"` // at the beginning, which the rates leave out
	Traffic    string  `json:"traffic"`
	Backend    string  `json:"backend"`
}

// run is one transfer.
type run struct {
	Name        string  `json:"name"`
	Relay       bool    `json:"relay"`
	FlowControl bool    `json:"flow_control"`
	SenderRate  float64 `json:"sender_bit_per_s"`
	ArrivedRate float64 `json:"arrived_bit_per_s"`
	// In the whole run.
	SentBytes    int64         `json:"sent_bytes"`
	ArrivedBytes int64         `json:"arrived_bytes"`
	Saw          string        `json:"server_saw_address_of"`
	Process      *relayFigures `json:"relay_process,omitempty"`
	transfer
}

// table gives the report for people.
func (r *report) table() string {
	var b strings.Builder
	s := r.Settings
	family := "IPv4"
	if s.IPv6 {
		family = "IPv6"
	}
	fmt.Fprintf(&b, "h1 --- %v --- h2 --- %v --- h3; relay on h2 by %s; %s by %s, %d s per run\n",
		units.Rate(s.Access), units.Rate(s.Bottleneck), strings.ToUpper(s.Mode), family, s.Traffic, s.Seconds)
	if s.Delay > 0 {
		fmt.Fprintf(&b, "delay: %g ms per link, one way\n", s.Delay*1000)
	}
	for _, note := range r.Notes {
		fmt.Fprintln(&b, note)
	}
	fmt.Fprintf(&b, "rates: mean of seconds %d to %d, as buffers fill before that; memory: peak of the whole run\n\n",
		s.Skipped+1, s.Seconds)

	rows := [][]string{{"", "sender saw", "arrived", "relay's memory", "waiting in it", "server saw as client"}}
	for _, run := range r.Runs {
		rows = append(rows, run.row())
	}
	align(&b, rows)
	b.WriteByte('\n')
	for _, sentence := range r.Reading {
		fmt.Fprintln(&b, sentence)
	}
	return b.String()
}

func (r run) row() []string {
	memory, waiting := "-", "-"
	if p := r.Process; p != nil {
		memory = fmt.Sprintf("%s (+%s)", units.FormatBytes(p.RSSPeak), units.FormatBytes(p.growth()))
		waiting = units.FormatBytes(p.PendingPeak)
	}
	saw := map[string]string{
		sawClient: "its own", sawOtherPort: "its own, with another port", sawRelay: "the relay's", sawStranger: "a stranger's",
	}[r.Saw]
	return []string{
		r.Name, units.FormatRate(r.SenderRate, 1), units.FormatRate(r.ArrivedRate, 1), memory, waiting,
		fmt.Sprintf("%v (%s)", r.ServerSaw, saw),
	}
}

// align writes rows in columns, all but the first and the last to the right.
func align(b *strings.Builder, rows [][]string) {
	width := make([]int, len(rows[0]))
	for _, row := range rows {
		for i, cell := range row {
			width[i] = max(width[i], len(cell))
		}
	}
	for _, row := range rows {
		for i, cell := range row {
			switch i {
			case 0:
				fmt.Fprintf(b, "%-*s", width[i], cell)
			case len(row) - 1:
				fmt.Fprintf(b, "  %s\n", cell)
			default:
				fmt.Fprintf(b, "  %*s", width[i], cell)
			}
		}
	}
}

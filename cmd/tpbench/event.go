package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/netip"
	"sync"

	"github.com/tprelay/tprelay/bench/bottleneck"
	"github.com/tprelay/tprelay/bench/units"
)

// Kinds of events.
const (
	eventListening = "listening" // Local is where
	eventOpen      = "open"      // a connection stands: Local, Peer
	eventInterval  = "interval"  // a second has passed: Start, End, Bytes, Connections
	eventClose     = "close"     // a connection is over: Local, Peer, Bytes, End, Error
	eventTotal     = "total"     // the last: what there was in all
)

// event is what serve and load tell, one line each. Times are seconds since the
// first connection stood.
type event struct {
	Event       string          `json:"event"`
	Local       *netip.AddrPort `json:"local,omitempty"`
	Peer        *netip.AddrPort `json:"peer,omitempty"`
	Start       float64         `json:"start"`
	End         float64         `json:"end"`
	Bytes       int64           `json:"bytes"` // received (serve) or accepted by the socket (load)
	Rate        float64         `json:"bit_per_s,omitempty"`
	Connections int             `json:"connections,omitempty"` // now; in the total: that there were
	Error       string          `json:"error,omitempty"`

	// In the total of load.
	Returned  int64   `json:"returned,omitempty"`       // bytes that came back
	Delivered *bool   `json:"delivered,omitempty"`      // the other end closed after it had everything
	Waited    float64 `json:"waited_seconds,omitempty"` // for that, after the last byte was sent
}

// interval is what the event says of a piece of time.
func (e event) interval() bottleneck.Interval {
	return bottleneck.Interval{Start: e.Start, End: e.End, Bytes: e.Bytes}
}

// String gives the event in plain words.
func (e event) String() string {
	switch e.Event {
	case eventListening:
		return fmt.Sprintf("listening on %v", e.Local)
	case eventOpen:
		return fmt.Sprintf("%7.2f s  open   %v, peer %v", e.Start, e.Local, e.Peer)
	case eventInterval:
		return fmt.Sprintf("%7.2f s  %14s  %10s  %d connections", e.End, units.FormatRate(e.Rate, 1), units.FormatBytes(e.Bytes), e.Connections)
	case eventClose:
		text := fmt.Sprintf("%7.2f s  close  %v, peer %v: %s", e.End, e.Local, e.Peer, units.FormatBytes(e.Bytes))
		if e.Error != "" {
			text += ", " + e.Error
		}
		return text
	}
	text := fmt.Sprintf("total: %d bytes in %.2f s, %s, %d connections", e.Bytes, e.End-e.Start, units.FormatRate(e.Rate, 1), e.Connections)
	if e.Returned > 0 {
		text += fmt.Sprintf("; %d bytes came back", e.Returned)
	}
	switch {
	case e.Delivered == nil:
	case *e.Delivered:
		text += fmt.Sprintf("; the other end had everything %.2f s later", e.Waited)
	default:
		text += fmt.Sprintf("; the other end did not have everything %.2f s later", e.Waited)
	}
	return text
}

// printer writes events, from any goroutine.
type printer struct {
	mu   sync.Mutex
	to   io.Writer
	json bool
	err  error // the first that writing gave
}

func (p *printer) print(e event) {
	if e.Event == eventInterval || e.Event == eventTotal {
		e.Rate = e.interval().Rate()
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.err != nil {
		return
	}
	if p.json {
		p.err = json.NewEncoder(p.to).Encode(e)
	} else {
		_, p.err = fmt.Fprintln(p.to, e)
	}
}

// failed is the error of the first write that failed.
func (p *printer) failed() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.err
}

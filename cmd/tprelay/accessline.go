package main

import (
	"net/netip"
	"time"

	"github.com/tprelay/tprelay/engine"
	"github.com/tprelay/tprelay/tproxy"
)

// accessLine is one line of the access log. Scripts depend on the names of its fields.
type accessLine struct {
	Time        time.Time         `json:"time"` // when the pair ended, UTC
	ID          uint64            `json:"id"`
	Client      netip.AddrPort    `json:"client"`
	Destination netip.AddrPort    `json:"destination,omitzero"` // the original one
	Connected   netip.AddrPort    `json:"connected,omitzero"`
	Listener    netip.AddrPort    `json:"listener,omitzero"`
	Mode        string            `json:"mode"`
	Spoof       tproxy.SpoofLevel `json:"spoof"` // full, ip or none
	Established bool              `json:"established"`
	DurationMS  float64           `json:"duration_ms"`
	Up          accessDirection   `json:"up"`   // client to destination
	Down        accessDirection   `json:"down"` // destination to client
	Reason      engine.Reason     `json:"reason"`
	Error       string            `json:"error,omitempty"`
}

type accessDirection struct {
	Bytes        uint64      `json:"bytes"`        // accepted by the receiver's socket
	Acknowledged uint64      `json:"acknowledged"` // of these, by the receiver's kernel
	Messages     uint64      `json:"messages"`
	Path         engine.Path `json:"path"`
	Pauses       uint32      `json:"pauses"`
	PausedMS     float64     `json:"paused_ms"`
}

func newAccessLine(p engine.PairInfo) accessLine {
	line := accessLine{
		Time:        p.Since.Add(p.Duration).UTC(),
		ID:          p.ID,
		Client:      p.Client,
		Destination: p.Destination,
		Connected:   p.Connected,
		Listener:    p.Listener,
		Mode:        p.Mode.String(),
		Spoof:       p.SpoofLevel,
		Established: p.Established,
		DurationMS:  milliseconds(p.Duration),
		Up:          newAccessDirection(p.Upstream),
		Down:        newAccessDirection(p.Downstream),
		Reason:      p.Reason,
	}
	if p.Err != nil {
		line.Error = p.Err.Error()
	}
	return line
}

func newAccessDirection(d engine.DirectionInfo) accessDirection {
	return accessDirection{
		Bytes:        d.Bytes,
		Acknowledged: d.Acknowledged,
		Messages:     d.Messages,
		Path:         d.Path,
		Pauses:       d.Pauses,
		PausedMS:     milliseconds(d.PausedFor),
	}
}

// milliseconds returns d in milliseconds, rounded down to the microsecond.
func milliseconds(d time.Duration) float64 {
	return float64(d.Microseconds()) / 1000
}

package bottleneck

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/netip"
	"time"

	"github.com/tprelay/tprelay/internal/netlab"
)

// adminPatience bounds one question to a relay's admin end.
const adminPatience = 2 * time.Second

// admin asks a tprelay on a host about its pairs.
type admin struct {
	client http.Client
	base   string
}

func newAdmin(host *netlab.Host, at netip.AddrPort) *admin {
	return &admin{http.Client{Timeout: adminPatience, Transport: &http.Transport{DialContext: host.Dial}}, "http://" + at.String()}
}

func (a *admin) close() { a.client.CloseIdleConnections() }

func (a *admin) get(ctx context.Context, path string, to any) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, a.base+path, nil)
	if err != nil {
		return err
	}
	answer, err := a.client.Do(request)
	if err != nil {
		return fmt.Errorf("ask the relay: %w", err)
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return fmt.Errorf("ask the relay: %s: %s", path, answer.Status)
	}
	if err := json.NewDecoder(answer.Body).Decode(to); err != nil {
		return fmt.Errorf("ask the relay: %s: %w", path, err)
	}
	return nil
}

// pairInfo is what is wanted of an engine.PairInfo, the rest of which does not read
// itself back from JSON.
type pairInfo struct {
	Client   netip.AddrPort
	Upstream struct {
		Bytes             uint64
		Pending           int64
		Pauses            uint32
		PausedFor         time.Duration
		Paused, Throttled bool
	}
}

// Relay is what a tprelay says of the pair that is measured, in the direction that bytes
// go, and of itself.
type Relay struct {
	Pending   int64   `json:"pending_bytes"` // taken from the sender, not yet accepted by the socket to the receiver
	Paused    bool    `json:"paused"`        // it does not read because the receiver does not take more
	Pauses    uint32  `json:"pauses"`        // times that it began to
	PausedFor float64 `json:"paused_s"`      // in all, to 0.1 s
	Throttled bool    `json:"throttled"`     // through the buffers of its sockets, as it keeps pausing
	Throttles uint64  `json:"throttles"`     // times that these were set
	Moved     uint64  `json:"moved_bytes"`   // accepted by the socket to the receiver
	Charged   int64   `json:"charged_bytes"` // to its memory limit
}

// look gives what the relay says of the client's pair; nil if it has none.
func (a *admin) look(ctx context.Context, client netip.AddrPort) (*Relay, error) {
	var pairs []pairInfo
	if err := a.get(ctx, "/pairs", &pairs); err != nil {
		return nil, err
	}
	var stats struct {
		Throttles uint64
		Memory    int64
	}
	if err := a.get(ctx, "/stats", &stats); err != nil {
		return nil, err
	}
	for _, p := range pairs {
		if p.Client != client {
			continue
		}
		u := p.Upstream
		return &Relay{
			Pending: u.Pending, Paused: u.Paused, Pauses: u.Pauses, PausedFor: u.PausedFor.Seconds(), Throttled: u.Throttled,
			Throttles: stats.Throttles, Moved: u.Bytes, Charged: stats.Memory,
		}, nil
	}
	return nil, nil
}

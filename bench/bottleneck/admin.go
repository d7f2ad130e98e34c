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

// adminTimeout bounds one request to the admin API.
const adminTimeout = 2 * time.Second

// admin asks a tprelay on a host for its statistics and pairs.
type admin struct {
	client http.Client
	base   string
}

func newAdmin(host *netlab.Host, at netip.AddrPort) *admin {
	return &admin{http.Client{Timeout: adminTimeout, Transport: &http.Transport{DialContext: host.Dial}}, "http://" + at.String()}
}

func (a *admin) close() { a.client.CloseIdleConnections() }

func (a *admin) get(ctx context.Context, path string, to any) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, a.base+path, nil)
	if err != nil {
		return err
	}
	answer, err := a.client.Do(request)
	if err != nil {
		return fmt.Errorf("admin API: %w", err)
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return fmt.Errorf("admin API: %s: %s", path, answer.Status)
	}
	if err := json.NewDecoder(answer.Body).Decode(to); err != nil {
		return fmt.Errorf("admin API: %s: %w", path, err)
	}
	return nil
}

// pairInfo has the wanted fields of an engine.PairInfo. Some of the others cannot be decoded
// from JSON.
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

// Relay is what tprelay reports on the measured pair, in the direction of the transfer, and
// on itself.
type Relay struct {
	Pending   int64   `json:"pending_bytes"` // taken from the sender, not yet accepted by the socket to the receiver
	Paused    bool    `json:"paused"`        // it does not read, because the receiver takes no more
	Pauses    uint32  `json:"pauses"`        // how often it stopped reading
	PausedFor float64 `json:"paused_s"`      // total, to 0.1 s
	Throttled bool    `json:"throttled"`     // the buffers of its sockets are limited
	Throttles uint64  `json:"throttles"`     // how often they were set
	Moved     uint64  `json:"moved_bytes"`   // accepted by the socket to the receiver
	Charged   int64   `json:"charged_bytes"` // against its memory limit
}

// look returns what the relay reports on the client's pair, or nil if there is none.
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

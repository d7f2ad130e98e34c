package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"sync"
	"syscall"
	"time"

	"github.com/tprelay/tprelay/internal/netlab"
	"github.com/tprelay/tprelay/tproxy"
)

// relayProcess is a running relay, and what was seen of it.
type relayProcess struct {
	cmd     *netlab.Cmd
	watched sync.WaitGroup

	mu   sync.Mutex
	seen relayFigures
}

// relayFigures are what was seen of a relay, memory in bytes.
type relayFigures struct {
	RSSAtStart  int64  `json:"rss_at_start"` // before the first connection
	RSSPeak     int64  `json:"rss_peak"`
	AnonPeak    int64  `json:"rss_anon_peak"` // the part that is not its program file
	PendingPeak int64  `json:"pending_peak"`  // taken from senders, and not yet accepted by the sockets to the receivers
	BudgetPeak  int64  `json:"budget_peak"`   // charged to its memory limit: buffers, and pipes by capacity
	Pauses      uint64 `json:"pauses"`        // times that it stopped reading because the receiver did not take more
	Starved     uint64 `json:"starved"`       // times that it did because of the memory limit
	Accepted    uint64 `json:"accepted"`
	Pending     int64  `json:"-"` // now
}

// stopPatience is for a relay that is stuck: it resets what it has and ends, which takes moments, and
// some seconds on a machine that has no time for it.
const stopPatience = 30 * time.Second

// growth is by how much its memory grew.
func (f *relayFigures) growth() int64 { return max(f.RSSPeak-f.RSSAtStart, 0) }

// startRelay starts the relay on the host, and returns when it listens.
func startRelay(ctx context.Context, host *netlab.Host, mode tproxy.Mode, listen netip.AddrPort, flowControl bool) (*relayProcess, error) {
	args := []string{"relay", "--mode", mode.String(), "--listen", listen.String()}
	if !flowControl {
		args = append(args, "--no-flow-control")
	}
	p := &relayProcess{cmd: host.Command(ctx, self, args...)}
	samples, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := p.cmd.Start(); err != nil {
		samples.Close()
		return nil, err
	}
	ready := make(chan struct{})
	p.watched.Go(func() {
		defer samples.Close()
		p.read(samples, ready)
	})
	select {
	case <-ready:
	case <-p.cmd.Done():
		p.watched.Wait()
		if err := p.cmd.Wait(); err != nil {
			return nil, err
		}
		return nil, errors.New("the relay ended before it listened")
	}
	memory, err := readMemory(p.cmd.PID())
	if err != nil {
		p.kill()
		return nil, err
	}
	p.mu.Lock()
	p.seen.RSSAtStart = memory.rss
	p.mu.Unlock()
	p.look(memory)
	p.watched.Go(p.watch)
	return p, nil
}

// read takes the relay's samples until it ends, and closes ready at the first.
func (p *relayProcess) read(samples io.Reader, ready chan<- struct{}) {
	for dec := json.NewDecoder(samples); ; {
		var s relaySample
		if dec.Decode(&s) != nil {
			return
		}
		p.mu.Lock()
		f := &p.seen
		f.Pending = s.Pending
		f.PendingPeak, f.BudgetPeak = max(f.PendingPeak, s.Pending), max(f.BudgetPeak, s.Memory)
		f.Pauses, f.Starved, f.Accepted = s.Pauses, s.Starved, s.Accepted
		p.mu.Unlock()
		if ready != nil {
			close(ready)
			ready = nil
		}
	}
}

// watch looks at the relay's memory until it ends.
func (p *relayProcess) watch() {
	ticker := time.NewTicker(samplePeriod)
	defer ticker.Stop()
	for {
		select {
		case <-p.cmd.Done():
			return
		case <-ticker.C:
			if memory, err := readMemory(p.cmd.PID()); err == nil {
				p.look(memory)
			}
		}
	}
}

func (p *relayProcess) look(m memory) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.seen.RSSPeak, p.seen.AnonPeak = max(p.seen.RSSPeak, m.peak), max(p.seen.AnonPeak, m.anon)
}

// figures are what was seen so far.
func (p *relayProcess) figures() relayFigures {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.seen
}

// stop ends the relay kindly and gives all that was seen of it.
func (p *relayProcess) stop() (*relayFigures, error) {
	memory, err := readMemory(p.cmd.PID())
	if err != nil {
		return nil, err
	}
	p.look(memory)
	if err := p.cmd.Signal(syscall.SIGTERM); err != nil {
		return nil, err
	}
	late := time.AfterFunc(stopPatience, p.cmd.Stop)
	err = p.cmd.Wait()
	if !late.Stop() && err != nil {
		err = fmt.Errorf("the relay did not end when told to: %w", err)
	}
	p.watched.Wait()
	seen := p.figures()
	return &seen, err
}

// kill ends the relay in any event.
func (p *relayProcess) kill() {
	p.cmd.Stop()
	p.watched.Wait()
}

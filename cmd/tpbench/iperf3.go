package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"time"

	"github.com/tprelay/tprelay/bench/flow"
	"github.com/tprelay/tprelay/internal/netlab"
)

// iperf3 is traffic by that program, found at path.
type iperf3 struct{ path string }

func (iperf3) name() string { return "iperf3" }

func (t iperf3) send(ctx context.Context, lab *netlab.Lab, to netip.AddrPort, seconds int) (transfer, error) {
	// A server for one test: it prints its report and ends.
	server := lab.H3.Command(ctx, t.path, "-s", "-1", "-J", "-i", "1", "-p", strconv.Itoa(int(to.Port())))
	var report bytes.Buffer
	server.Stdout = &report
	if err := server.Start(); err != nil {
		return transfer{}, err
	}
	defer server.Stop()
	if err := listening(ctx, lab.H3, server, to.Port()); err != nil {
		return transfer{}, err
	}
	client, err := lab.H1.Iperf3(ctx, netlab.Iperf3Options{Server: to, Duration: time.Duration(seconds) * time.Second, Interval: time.Second})
	if err != nil {
		return transfer{}, err
	}
	if err := ended(ctx, server); err != nil {
		return transfer{}, err
	}
	sent, err := parseIperf3(client.JSON)
	if err != nil {
		return transfer{}, fmt.Errorf("iperf3 client: %w", err)
	}
	got, err := parseIperf3(report.Bytes())
	if err != nil {
		return transfer{}, fmt.Errorf("iperf3 server: %w", err)
	}
	return transfer{Client: sent.local, ServerSaw: got.remote, Sender: sent.intervals, Arrived: got.intervals}, nil
}

// ended waits for a server whose client is through.
func ended(ctx context.Context, server *netlab.Cmd) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	select {
	case <-server.Done():
		return server.Wait()
	case <-ctx.Done():
		return fmt.Errorf("the server did not end after its client: %w", ctx.Err())
	}
}

// listening waits until the server does, or has ended instead.
func listening(ctx context.Context, host *netlab.Host, server *netlab.Cmd, port uint16) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	waited := make(chan error, 1)
	go func() { waited <- host.WaitListen(ctx, port) }()
	select {
	case err := <-waited:
		return err
	case <-server.Done():
		cancel()
		<-waited
		if err := server.Wait(); err != nil {
			return err
		}
		return errors.New("the server ended before it listened")
	}
}

// iperf3End is one end's report.
type iperf3End struct {
	local, remote netip.AddrPort // of the first data connection
	intervals     []flow.Interval
}

func parseIperf3(text []byte) (end iperf3End, err error) {
	var report struct {
		Start struct {
			Connected []struct {
				LocalHost  string `json:"local_host"`
				LocalPort  uint16 `json:"local_port"`
				RemoteHost string `json:"remote_host"`
				RemotePort uint16 `json:"remote_port"`
			} `json:"connected"`
		} `json:"start"`
		Intervals []struct {
			Sum struct {
				Start float64 `json:"start"`
				End   float64 `json:"end"`
				Bytes int64   `json:"bytes"`
			} `json:"sum"`
		} `json:"intervals"`
		Error string `json:"error"`
	}
	if err := json.Unmarshal(text, &report); err != nil {
		return end, fmt.Errorf("its report: %w", err)
	}
	if report.Error != "" {
		return end, errors.New(report.Error)
	}
	if len(report.Start.Connected) == 0 {
		return end, errors.New("its report names no connection")
	}
	c := report.Start.Connected[0]
	if end.local, err = hostPort(c.LocalHost, c.LocalPort); err != nil {
		return end, err
	}
	if end.remote, err = hostPort(c.RemoteHost, c.RemotePort); err != nil {
		return end, err
	}
	for _, i := range report.Intervals {
		end.intervals = append(end.intervals, flow.Interval(i.Sum))
	}
	return end, nil
}

// hostPort reads an address as iperf3 gives it, which to an IPv6 socket may be a
// mapped one.
func hostPort(host string, port uint16) (netip.AddrPort, error) {
	address, err := netip.ParseAddr(host)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("its report: %w", err)
	}
	return netip.AddrPortFrom(address.Unmap(), port), nil
}

package netlab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"time"
)

// Iperf3Server starts an iperf3 server on the port, over IPv4 and IPv6, and
// returns when it listens. ctx bounds the wait and the server's life. It serves
// one client and ends: one that goes on closes its listening socket between two
// clients and opens another, and a client that came in between is reset.
func (h *Host) Iperf3Server(ctx context.Context, port uint16) (*Cmd, error) {
	path, err := program("iperf3")
	if err != nil {
		return nil, err
	}
	c := h.Command(ctx, path, "-s", "-1", "-p", strconv.Itoa(int(port)))
	if err := c.startDaemon(ctx, port); err != nil {
		return nil, err
	}
	return c, nil
}

// Iperf3Options say what an iperf3 client does. Only Server is required.
type Iperf3Options struct {
	// Server is where the client believes the server to be.
	Server netip.AddrPort
	// Duration in whole seconds, rounded up. Default 5 s.
	Duration time.Duration
	// Bytes to send, instead of a Duration. Default 0: by Duration.
	Bytes uint64
	// Interval between the values of Intervals, at least 100 ms. Default 1 s.
	Interval time.Duration
	// Streams is the number of parallel connections. Default 1.
	Streams int
	// Reverse makes the server send.
	Reverse bool
	// From is the local address, its port the local port of the first data
	// connection. Default: the kernel's choice; port 0: likewise.
	From netip.AddrPort
	// Args are further arguments.
	Args []string
}

// Iperf3Result is what both ends say. Rates are in bit/s of payload.
type Iperf3Result struct {
	Sender, Receiver           float64 // means over the whole run
	SenderBytes, ReceiverBytes uint64
	Retransmits                int // segments that the sender sent again
	// Intervals are as the client saw them: the sender, or the receiver if Reverse.
	Intervals []Iperf3Interval
	// JSON is the client's full report.
	JSON []byte
}

// Iperf3Interval is one interval of a run, its times counted from the beginning.
type Iperf3Interval struct {
	Start, End time.Duration
	Rate       float64 // bit/s
}

// Iperf3 runs an iperf3 client in the host to its end.
func (h *Host) Iperf3(ctx context.Context, o Iperf3Options) (*Iperf3Result, error) {
	path, err := program("iperf3")
	if err != nil {
		return nil, err
	}
	c := h.Command(ctx, path, o.args()...)
	out, err := c.Output()
	var report iperf3Report
	if jsonErr := json.Unmarshal(out, &report); jsonErr != nil && err == nil {
		err = c.wrap(fmt.Errorf("its report: %w", jsonErr))
	}
	if report.Error != "" { // said there and not on stderr
		if err == nil {
			err = c.wrap(errors.New(report.Error))
		} else {
			err = fmt.Errorf("%w: %s", err, report.Error)
		}
	}
	if err != nil {
		return nil, err
	}
	return report.result(out), nil
}

func (o Iperf3Options) args() []string {
	args := []string{"-J", "-c", o.Server.Addr().String(), "-p", strconv.Itoa(int(o.Server.Port()))}
	if o.Bytes > 0 {
		args = append(args, "-n", strconv.FormatUint(o.Bytes, 10))
	} else {
		d := o.Duration
		if d == 0 {
			d = 5 * time.Second
		}
		args = append(args, "-t", strconv.Itoa(int((d+time.Second-1)/time.Second)))
	}
	if o.Interval > 0 {
		args = append(args, "-i", strconv.FormatFloat(o.Interval.Seconds(), 'f', 2, 64))
	}
	if o.Streams > 1 {
		args = append(args, "-P", strconv.Itoa(o.Streams))
	}
	if o.Reverse {
		args = append(args, "-R")
	}
	if o.From.IsValid() {
		args = append(args, "-B", o.From.Addr().String())
		if o.From.Port() != 0 {
			args = append(args, "--cport", strconv.Itoa(int(o.From.Port())))
		}
	}
	return append(args, o.Args...)
}

// iperf3Report is the part of iperf3's JSON that we read.
type iperf3Report struct {
	Intervals []struct {
		Sum iperf3Sum `json:"sum"`
	} `json:"intervals"`
	End struct {
		Sent     iperf3Sum `json:"sum_sent"`
		Received iperf3Sum `json:"sum_received"`
	} `json:"end"`
	Error string `json:"error"`
}

type iperf3Sum struct {
	Start       float64 `json:"start"`
	End         float64 `json:"end"`
	Bytes       uint64  `json:"bytes"`
	Rate        float64 `json:"bits_per_second"`
	Retransmits int     `json:"retransmits"`
}

func (r *iperf3Report) result(raw []byte) *Iperf3Result {
	result := &Iperf3Result{
		Sender: r.End.Sent.Rate, SenderBytes: r.End.Sent.Bytes,
		Receiver: r.End.Received.Rate, ReceiverBytes: r.End.Received.Bytes,
		Retransmits: r.End.Sent.Retransmits,
		JSON:        raw,
	}
	for _, i := range r.Intervals {
		result.Intervals = append(result.Intervals, Iperf3Interval{
			Start: time.Duration(i.Sum.Start * float64(time.Second)),
			End:   time.Duration(i.Sum.End * float64(time.Second)),
			Rate:  i.Sum.Rate,
		})
	}
	return result
}

package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/tprelay/tprelay/internal/netlab"
)

// iperf3 lets that program send. Its streams are measured after the warm-up; CPU time
// is that of the whole transfer, over all its bytes.
func (b *bed) iperf3(ctx context.Context, figures map[string]float64) error {
	if _, err := b.lab.H3.Iperf3Server(ctx, serverPort); err != nil {
		return err
	}
	warmUp := b.plan.WarmUp.Round(time.Second)
	from, err := b.usage()
	if err != nil {
		return err
	}
	result, err := b.lab.H1.Iperf3(ctx, netlab.Iperf3Options{
		Server: b.relay.Target(), Duration: warmUp + b.plan.Window, Streams: b.step.Point.Connections, Reverse: b.step.Point.Down,
	})
	if err != nil {
		return err
	}
	to, err := b.usage()
	if err != nil {
		return err
	}
	var sum float64
	var n int
	for _, i := range result.Intervals {
		if i.Start >= warmUp-100*time.Millisecond {
			sum, n = sum+i.Rate, n+1
		}
	}
	if n == 0 || sum == 0 {
		return errors.New("iperf3: nothing arrived after the warm-up")
	}
	figures[throughput] = sum / float64(n) / giga
	perUnit(figures, b, to.minus(from), float64(result.ReceiverBytes)/giga, 1)
	return nil
}

// wrk lets that program ask, and nginx answer. Both begin and end within what is
// measured, as wrk has no warm-up.
func (b *bed) wrk(ctx context.Context, figures map[string]float64) error {
	nginx, err := b.lab.H3.Nginx(ctx, serverPort, "")
	if err != nil {
		return err
	}
	const file = "unlogged/reply"
	err = os.Mkdir(filepath.Join(nginx.Root, "unlogged"), 0o755)
	if err == nil {
		err = os.WriteFile(filepath.Join(nginx.Root, file), make([]byte, b.step.Point.Reply), 0o644)
	}
	if err != nil {
		return fmt.Errorf("file for nginx: %w", err)
	}
	from, err := b.usage()
	if err != nil {
		return err
	}
	seconds := max(int(b.plan.Window.Round(time.Second)/time.Second), 1)
	out, err := b.lab.H1.Command(ctx, "wrk", "-t1", "-c"+strconv.Itoa(b.step.Point.Connections), fmt.Sprintf("-d%ds", seconds),
		"--latency", fmt.Sprintf("http://%v/%s", b.relay.Target(), file)).Output()
	if err != nil {
		return err
	}
	to, err := b.usage()
	if err != nil {
		return err
	}
	requests, err := parseWrk(string(out), figures)
	if err != nil {
		return fmt.Errorf("wrk: %w", err)
	}
	perUnit(figures, b, to.minus(from), requests, micro)
	return nil
}

// parseWrk reads what wrk --latency prints, in lines such as
//
//	   99%    4.30ms
//	263114 requests in 4.00s, 65.74MB read
//	Socket errors: connect 0, read 1, write 0, timeout 0
//	Non-2xx or 3xx responses: 5
//	Requests/sec:  65778.50
func parseWrk(text string, figures map[string]float64) (requests float64, err error) {
	quantiles := map[string]string{"50%": p50, "90%": p90, "99%": p99}
	figures[errorCount] = 0
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		switch {
		case len(f) == 2 && quantiles[f[0]] != "":
			d, err := time.ParseDuration(f[1]) // us, ms, s, m
			if err != nil {
				return 0, fmt.Errorf("%q: %w", strings.TrimSpace(line), err)
			}
			figures[quantiles[f[0]]] = inMilliseconds(d)
		case len(f) > 2 && f[1] == "requests" && f[2] == "in":
			if requests, err = strconv.ParseFloat(f[0], 64); err != nil {
				return 0, fmt.Errorf("%q: %w", strings.TrimSpace(line), err)
			}
		case len(f) == 2 && f[0] == "Requests/sec:":
			if figures[rate], err = strconv.ParseFloat(f[1], 64); err != nil {
				return 0, fmt.Errorf("%q: %w", strings.TrimSpace(line), err)
			}
		case len(f) > 2 && f[0] == "Socket" && f[1] == "errors:", len(f) > 1 && f[0] == "Non-2xx":
			for _, word := range f {
				if n, err := strconv.ParseFloat(strings.Trim(word, ","), 64); err == nil {
					figures[errorCount] += n
				}
			}
		}
	}
	if requests == 0 || figures[rate] == 0 {
		return 0, errors.New("it counted no requests")
	}
	return requests, nil
}

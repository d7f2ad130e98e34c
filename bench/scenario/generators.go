package scenario

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/tprelay/tprelay/bench/testbed"
	"github.com/tprelay/tprelay/internal/netlab"
)

// Generator is a program that sends and receives in place of the benchmark's own clients and
// servers: a check of these. It measures by itself, with other bounds than a window's.
type Generator struct {
	Name     string
	Scenario string // the only one that it does
	Note     string // how its figures differ
	Measure  func(ctx context.Context, tb *testbed.Testbed, w Workload) (Figures, error)
}

// Generators lists them.
func Generators() []Generator {
	return []Generator{
		{"iperf3", bulk{}.About().Name, "iperf3 reports the sender's rate after the warm-up; CPU time is that of the whole transfer over all its bytes", iperf3},
		{"wrk", rr{}.About().Name, "wrk has no warm-up: opening the connections is within what was measured", wrk},
	}
}

// iperf3 measures streams.
func iperf3(ctx context.Context, tb *testbed.Testbed, w Workload) (Figures, error) {
	if _, err := tb.Lab.H3.Iperf3Server(ctx, testbed.ServerPort); err != nil {
		return nil, err
	}
	warmUp := tb.WarmUp.Round(time.Second)
	from, err := tb.Usage()
	if err != nil {
		return nil, err
	}
	result, err := tb.Lab.H1.Iperf3(ctx, netlab.Iperf3Options{
		Server: tb.Running.Target(), Duration: warmUp + tb.Window, Streams: w.Connections, Reverse: w.Down,
	})
	if err != nil {
		return nil, err
	}
	to, err := tb.Usage()
	if err != nil {
		return nil, err
	}
	var sum float64
	var n int
	for _, i := range result.Intervals {
		if i.Start >= warmUp-100*time.Millisecond {
			sum, n = sum+i.Rate, n+1
		}
	}
	if n == 0 || sum == 0 {
		return nil, errors.New("iperf3: nothing arrived after the warm-up")
	}
	f := Figures{Throughput: sum / float64(n) / giga}
	f.addUsage(tb, to.Minus(from), float64(result.ReceiverBytes)/giga, 1)
	return f, nil
}

// wrk measures requests, with nginx at the other end.
func wrk(ctx context.Context, tb *testbed.Testbed, w Workload) (Figures, error) {
	nginx, err := tb.Lab.H3.Nginx(ctx, testbed.ServerPort, "")
	if err != nil {
		return nil, err
	}
	const file = "unlogged/reply"
	err = os.Mkdir(filepath.Join(nginx.Root, "unlogged"), 0o755)
	if err == nil {
		err = os.WriteFile(filepath.Join(nginx.Root, file), make([]byte, w.Reply), 0o644)
	}
	if err != nil {
		return nil, fmt.Errorf("file for nginx: %w", err)
	}
	from, err := tb.Usage()
	if err != nil {
		return nil, err
	}
	seconds := max(int(tb.Window.Round(time.Second)/time.Second), 1)
	out, err := tb.Lab.H1.Command(ctx, "wrk", "-t1", "-c"+strconv.Itoa(w.Connections), fmt.Sprintf("-d%ds", seconds),
		"--latency", fmt.Sprintf("http://%v/%s", tb.Running.Target(), file)).Output()
	if err != nil {
		return nil, err
	}
	to, err := tb.Usage()
	if err != nil {
		return nil, err
	}
	f, requests, err := parseWrk(string(out))
	if err != nil {
		return nil, fmt.Errorf("wrk: %w", err)
	}
	f.addUsage(tb, to.Minus(from), requests, micro)
	return f, nil
}

// parseWrk reads what wrk --latency prints, in lines such as
//
//	   99%    4.30ms
//	263114 requests in 4.00s, 65.74MB read
//	Socket errors: connect 0, read 1, write 0, timeout 0
//	Non-2xx or 3xx responses: 5
//	Requests/sec:  65778.50
func parseWrk(text string) (figures Figures, requests float64, err error) {
	quantiles := map[string]string{"50%": P50, "90%": P90, "99%": P99}
	figures = Figures{Errors: 0}
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		switch {
		case len(f) == 2 && quantiles[f[0]] != "":
			d, err := time.ParseDuration(f[1]) // us, ms, s, m
			if err != nil {
				return nil, 0, fmt.Errorf("%q: %w", strings.TrimSpace(line), err)
			}
			figures[quantiles[f[0]]] = inMilliseconds(d)
		case len(f) > 2 && f[1] == "requests" && f[2] == "in":
			if requests, err = strconv.ParseFloat(f[0], 64); err != nil {
				return nil, 0, fmt.Errorf("%q: %w", strings.TrimSpace(line), err)
			}
		case len(f) == 2 && f[0] == "Requests/sec:":
			if figures[Rate], err = strconv.ParseFloat(f[1], 64); err != nil {
				return nil, 0, fmt.Errorf("%q: %w", strings.TrimSpace(line), err)
			}
		case len(f) > 2 && f[0] == "Socket" && f[1] == "errors:", len(f) > 1 && f[0] == "Non-2xx":
			for _, word := range f {
				if n, err := strconv.ParseFloat(strings.Trim(word, ","), 64); err == nil {
					figures[Errors] += n
				}
			}
		}
	}
	if requests == 0 || figures[Rate] == 0 {
		return nil, 0, errors.New("it counted no requests")
	}
	return figures, requests, nil
}

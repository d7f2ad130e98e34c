package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"github.com/tprelay/tprelay/bench/protocol"
	"github.com/tprelay/tprelay/bench/server"
	"github.com/tprelay/tprelay/bench/worker"
	"github.com/tprelay/tprelay/bench/worker/workertest"
	"github.com/tprelay/tprelay/internal/leak"
	"github.com/tprelay/tprelay/internal/netlab/netlabtest"
)

// asWorker tells the test binary to be a worker.
const asWorker = "CLIENT_TEST_AS_WORKER"

func TestMain(m *testing.M) {
	if os.Getenv(asWorker) != "" {
		if err := worker.Work(context.Background(), os.Stdin, os.Stdout, newTask); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(netlabtest.Main(m))
}

// newTask makes the task of any job.
func newTask(job worker.Job, fail func(error)) worker.Task {
	if job.Kind == worker.Serve {
		return server.New(job, fail)
	}
	return New(job)
}

// start starts a worker.
func start(t *testing.T, ctx context.Context, job worker.Job) *workertest.Hand {
	t.Helper()
	return workertest.Start(t, ctx, newTask, job)
}

// serve starts a server.
func serve(t *testing.T, threads int) (*workertest.Hand, netip.AddrPort) {
	t.Helper()
	address := workertest.Ports(t)
	return start(t, t.Context(), worker.Job{Kind: worker.Serve, Address: address, Threads: threads}).Ready(), address
}

// measureAll starts workers for all of the jobs and has them measure at the same time.
func measureAll(t *testing.T, address netip.AddrPort, jobs []worker.Job) []*worker.Result {
	t.Helper()
	var hands []*workertest.Hand
	for _, job := range jobs {
		job.Address = address
		hands = append(hands, start(t, t.Context(), job).Ready())
	}
	w := workertest.Window(short)
	for _, h := range hands {
		h.Say(w)
	}
	var results []*worker.Result
	for _, h := range hands {
		results = append(results, h.Result())
	}
	return results
}

// short is a window in which something happens on any machine, also on one whose host holds it
// up for a while.
const short = 600 * time.Millisecond

func TestEachKindMeasures(t *testing.T) {
	leak.Check(t)
	for name, job := range map[string]worker.Job{
		"rr":                {Kind: worker.RR},
		"rr, many":          {Kind: worker.RR, Connections: 300, Threads: 2},
		"rr, 64 KiB":        {Kind: worker.RR, Connections: 3, Reply: 64 << 10},
		"rr, long requests": {Kind: worker.RR, Connections: 3, Request: 5 << 20, Reply: 1},
		"rr, header alone":  {Kind: worker.RR, Request: 16, Reply: 1000},
		"rr, open loop":     {Kind: worker.RR, Connections: 20, Rate: 2000},
		"cps":               {Kind: worker.CPS, Connections: 5},
		"cps, 64 KiB":       {Kind: worker.CPS, Connections: 20, Reply: 64 << 10},
		"cps, 3 MiB":        {Kind: worker.CPS, Connections: 2, Reply: 3 << 20},
		"bulk up":           {Kind: worker.Bulk, Connections: 2},
		"bulk down":         {Kind: worker.Bulk, Connections: 2, Down: true},
		"idle":              {Kind: worker.Idle, Connections: 200},
		"slow":              {Kind: worker.Slow, Connections: 2, Pace: 1 << 20},
	} {
		t.Run(name, func(t *testing.T) {
			leak.Check(t)
			server, address := serve(t, job.Threads)
			job.Address = address
			client := start(t, t.Context(), job).Ready()
			w := workertest.Window(short)
			server.Say(w)
			client.Say(w)
			got, atServer := client.Result(), server.Result()
			if err := client.End(); err != nil {
				t.Error(err)
			}
			if err := server.End(); err != nil {
				t.Error(err)
			}
			if got.Errors != 0 || got.Error != "" || atServer.Errors != 0 {
				t.Errorf("%d errors: %s; %d at the server: %s", got.Errors, got.Error, atServer.Errors, atServer.Error)
			}
			if job.Kind == worker.CPS && got.Connections < got.Requests/2 || job.Kind != worker.CPS && got.Connections != uint64(max(job.Connections, 1)) {
				t.Errorf("%d connections", got.Connections)
			}
			up, down := job.Kind == worker.Bulk && !job.Down, job.Kind == worker.Slow || job.Down
			if (got.Bytes > 0) != down || (atServer.Bytes > 0) != up {
				t.Errorf("%d bytes at the client, %d at the server", got.Bytes, atServer.Bytes)
			}
			asks := job.Kind == worker.RR || job.Kind == worker.CPS
			if (got.Requests > 0) != asks || (got.Latency != nil) != asks {
				t.Errorf("%d requests, latencies: %t", got.Requests, got.Latency != nil)
			}
			if asks {
				h := hdrhistogram.Import(got.Latency)
				if h.TotalCount() != int64(got.Requests) || h.Min() < int64(worker.MinLatency) || h.ValueAtQuantile(50) > h.Max() {
					t.Errorf("%d latencies of %d requests, from %v", h.TotalCount(), got.Requests, time.Duration(h.Min()))
				}
			}
			if got.CPU < 0 || atServer.CPU < 0 {
				t.Errorf("CPU %v, %v at the server", got.CPU, atServer.CPU)
			}
		})
	}
}

func TestServerGivesOneResultPerWindow(t *testing.T) {
	leak.Check(t)
	server, address := serve(t, 1)
	for range 2 {
		client := start(t, t.Context(), worker.Job{Kind: worker.Bulk, Address: address}).Ready()
		if r := server.Measure(short); r.Bytes == 0 {
			t.Error("nothing arrived")
		}
		client.End()
	}
	if r := server.Measure(short); r.Bytes != 0 {
		t.Errorf("%d bytes from nobody", r.Bytes)
	}
}

func TestNobodyListens(t *testing.T) {
	leak.Check(t)
	jobs := []worker.Job{
		{Kind: worker.RR, Connections: 100}, {Kind: worker.RR, Connections: 100, Rate: 1000}, {Kind: worker.CPS}, {Kind: worker.Bulk, Connections: 3}, {Kind: worker.Idle, Connections: 100}, {Kind: worker.Slow, Pace: 1},
	}
	for i, r := range measureAll(t, workertest.Ports(t), jobs) {
		job := jobs[i]
		if r.Errors < uint64(job.Connections) || r.Errors == 0 || !strings.Contains(r.Error, "connection refused") || r.Requests != 0 || r.Bytes != 0 || r.Connections != 0 {
			t.Errorf("%s: %+v", job.Kind, *r)
		}
	}
}

// listen accepts connections on both ports and does something with each.
func listen(t *testing.T, do func(net.Conn)) netip.AddrPort {
	t.Helper()
	address := workertest.Ports(t)
	for _, a := range []netip.AddrPort{address, worker.Job{Address: address}.StreamAddress()} {
		l, err := net.Listen("tcp", a.String())
		if err != nil {
			t.Fatal(err)
		}
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				do(c)
			}
		}()
		t.Cleanup(func() {
			l.Close()
			<-ended
		})
	}
	return address
}

func TestWhoResetsEverythingIsCountedAsErrors(t *testing.T) {
	leak.Check(t)
	for name, do := range map[string]func(net.Conn){
		"reset":  protocol.Reset,
		"closed": func(c net.Conn) { c.Close() },
		"garbage": func(c net.Conn) {
			c.Write([]byte("HTTP/1.1 400 Bad Request\r\n\r\n"))
			c.Read(make([]byte, 128))
			c.Close()
		},
	} {
		jobs := []worker.Job{{Kind: worker.RR, Connections: 10}, {Kind: worker.RR, Connections: 10, Rate: 100}, {Kind: worker.CPS}, {Kind: worker.Bulk}, {Kind: worker.Idle, Connections: 10}, {Kind: worker.Slow, Pace: 1}}
		for i, r := range measureAll(t, listen(t, do), jobs) {
			job := jobs[i]
			if r.Errors < uint64(job.Connections) || r.Errors == 0 || r.Error == "" || r.Requests != 0 || r.Bytes != 0 || job.Kind != worker.CPS && r.Connections != 0 {
				t.Errorf("%s, %s: %+v", name, job.Kind, *r)
			}
		}
	}
}

func TestServerDiesInTheMiddle(t *testing.T) {
	leak.Check(t)
	for _, job := range []worker.Job{
		{Kind: worker.RR, Connections: 50}, {Kind: worker.RR, Connections: 50, Rate: 1000}, {Kind: worker.CPS, Connections: 2},
		{Kind: worker.Bulk, Connections: 2}, {Kind: worker.Bulk, Down: true}, {Kind: worker.Idle, Connections: 50}, {Kind: worker.Slow, Pace: 1 << 30},
	} {
		server, address := serve(t, 1)
		job.Address = address
		client := start(t, t.Context(), job).Ready()
		if err := server.End(); err != nil {
			t.Error(err)
		}
		r := client.Measure(short)
		if want := uint64(max(job.Connections, 1)); r.Errors < want || r.Error == "" || job.Kind != worker.CPS && (r.Errors != want || r.Connections != want) {
			t.Errorf("%s: %+v", job.Kind, *r)
		}
	}
}

func TestWorkerEndsWithItsInput(t *testing.T) {
	leak.Check(t)
	_, address := serve(t, 1)
	for _, job := range []worker.Job{
		{Kind: worker.RR, Connections: 50}, {Kind: worker.RR, Rate: 1}, {Kind: worker.CPS, Connections: 2}, {Kind: worker.Bulk}, {Kind: worker.Idle}, {Kind: worker.Slow, Pace: 1},
	} {
		job.Address = address
		if err := start(t, t.Context(), job).Ready().End(); err != nil {
			t.Errorf("%s without a window: %v", job.Kind, err)
		}
		h := start(t, t.Context(), job).Ready()
		w := worker.Window{From: time.Now().Add(300 * time.Millisecond), To: time.Now().Add(time.Hour)}
		h.Say(w)
		time.Sleep(time.Until(w.From)) // a worker does not say that its window has begun
		if err := h.End(); err != nil {
			t.Errorf("%s in its window: %v", job.Kind, err)
		}
		came := make(chan struct{}, max(job.Connections, 1))
		job.Address = listen(t, func(c net.Conn) {
			t.Cleanup(func() { c.Close() })
			came <- struct{}{}
		})
		h = start(t, t.Context(), job)
		<-came
		if err := h.End(); err != nil && job.Kind != worker.CPS { // a CPS worker is ready, and cannot say so
			t.Errorf("%s while it sets up: %v", job.Kind, err)
		}
	}
}

func TestWorkerEndsWithItsContext(t *testing.T) {
	leak.Check(t)
	_, address := serve(t, 1)
	ctx, cancel := context.WithCancel(t.Context())
	h := start(t, ctx, worker.Job{Kind: worker.RR, Address: address}).Ready()
	cancel()
	if err := h.Ended(); !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), address.String()) {
		t.Errorf("got %v", err)
	}
}

func TestTakenPortIsAnError(t *testing.T) {
	leak.Check(t)
	_, address := serve(t, 1)
	h := start(t, t.Context(), worker.Job{Kind: worker.Serve, Address: address})
	if err := h.Ended(); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("got %v", err)
	}
}

func TestWhatCannotBeDoneIsRefused(t *testing.T) {
	leak.Check(t)
	here := netip.MustParseAddrPort("127.0.0.1:1")
	for want, job := range map[string]worker.Job{
		`kind "ftp"`:                        {Kind: "ftp", Address: here},
		"address invalid":                   {Kind: worker.RR},
		"address 127.0.0.1:65535":           {Kind: worker.RR, Address: netip.MustParseAddrPort("127.0.0.1:65535")},
		"-1 connections":                    {Kind: worker.RR, Address: here, Connections: -1},
		"request of 15 bytes":               {Kind: worker.RR, Address: here, Request: 15},
		"reply of -1 bytes":                 {Kind: worker.RR, Address: here, Reply: -1},
		"rate of -1":                        {Kind: worker.RR, Address: here, Rate: -1},
		"0 bytes per second":                {Kind: worker.Slow, Address: here},
		"257 threads":                       {Kind: worker.Serve, Address: here, Threads: 257},
		"-1 processors":                     {Kind: worker.Serve, Address: here, Processors: -1},
		"want one that lies ahead":          {Kind: worker.CPS, Address: here},
		"listen on 192.0.2.1:80: bind: can": {Kind: worker.Serve, Address: netip.MustParseAddrPort("192.0.2.1:80")},
	} {
		in := `{"From":"2020-01-01T00:00:00Z","To":"2020-01-01T00:00:01Z"}`
		text, err := json.Marshal(job)
		if err != nil {
			t.Fatal(err)
		}
		r, w := io.Pipe()
		go io.WriteString(w, string(text)+in)
		err = worker.Work(t.Context(), r, io.Discard, newTask)
		w.Close()
		r.Close()
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, wanted %q", err, want)
		}
	}
	for want, in := range map[string]string{"read the job: EOF": "", "read the job: invalid": "}"} {
		if err := worker.Work(t.Context(), strings.NewReader(in), io.Discard, newTask); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v", in, err)
		}
	}
}

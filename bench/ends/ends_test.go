package ends

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

	"github.com/tprelay/tprelay/internal/netlab"
)

// asWorker tells the test binary to be a worker.
const asWorker = "ENDS_TEST_AS_WORKER"

func TestMain(m *testing.M) {
	if os.Getenv(asWorker) != "" {
		if err := Work(context.Background(), os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	if err := netlab.Enter(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// hand is a worker in this process.
type hand struct {
	t    *testing.T
	in   *io.PipeWriter
	out  *json.Decoder
	mute func() error // closes the reader of out
	done chan error
}

// employ starts a worker.
func employ(t *testing.T, ctx context.Context, job Job) *hand {
	t.Helper()
	inR, inW := io.Pipe()
	outR, outW := io.Pipe()
	h := &hand{t: t, in: inW, out: json.NewDecoder(outR), mute: outR.Close, done: make(chan error, 1)}
	go func() {
		err := Work(ctx, inR, outW)
		outW.Close()
		h.done <- err
	}()
	t.Cleanup(func() { h.end() })
	h.say(job)
	return h
}

// ready waits until it is.
func (h *hand) ready() *hand {
	h.t.Helper()
	var ready readyLine
	if err := h.out.Decode(&ready); err != nil || !ready.Ready {
		h.t.Fatalf("not ready: %v, %v", err, h.end())
	}
	return h
}

func (h *hand) say(v any) {
	h.t.Helper()
	if err := write(h.in, v); err != nil {
		h.t.Fatal(err)
	}
}

// window is one that begins soon, and not too soon for a busy machine.
func window(length time.Duration) Window {
	from := time.Now().Add(300 * time.Millisecond)
	return Window{From: from, To: from.Add(length)}
}

func (h *hand) result() *Result {
	h.t.Helper()
	r := new(Result)
	if err := h.out.Decode(r); err != nil {
		h.t.Fatalf("no result: %v, %v", err, h.end())
	}
	return r
}

// measureAll employs workers for all of the jobs and has them measure at the same time.
func measureAll(t *testing.T, address netip.AddrPort, jobs []Job) []*Result {
	t.Helper()
	var hands []*hand
	for _, job := range jobs {
		job.Address = address
		hands = append(hands, employ(t, t.Context(), job).ready())
	}
	w := window(short)
	for _, h := range hands {
		h.say(w)
	}
	var results []*Result
	for _, h := range hands {
		results = append(results, h.result())
	}
	return results
}

func (h *hand) measure(length time.Duration) *Result {
	h.t.Helper()
	h.say(window(length))
	return h.result()
}

// end ends it, if it has not ended, and gives what Work returned.
func (h *hand) end() error {
	h.in.Close()
	h.mute()
	select {
	case err := <-h.done:
		h.done <- err
		return err
	case <-time.After(20 * time.Second):
		h.t.Error("the worker does not end")
		return errors.New("hangs")
	}
}

// ports gives an address on loopback whose port and the next one are free.
func ports(t *testing.T) netip.AddrPort {
	t.Helper()
	for range 100 {
		first, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		address := netip.MustParseAddrPort(first.Addr().String())
		first.Close()
		if address.Port() == 65535 {
			continue
		}
		second, err := net.Listen("tcp", Job{Address: address}.bulkAddress().String())
		if err == nil {
			second.Close()
			return address
		}
	}
	t.Fatal("no two ports in a row are free")
	return netip.AddrPort{}
}

// serve starts a server.
func serve(t *testing.T, threads int) (*hand, netip.AddrPort) {
	t.Helper()
	address := ports(t)
	return employ(t, t.Context(), Job{Kind: Serve, Address: address, Threads: threads}).ready(), address
}

// short is a window in which something happens on any machine, also on one whose host holds it
// up for a while.
const short = 600 * time.Millisecond

func TestEachKindMeasures(t *testing.T) {
	t.Cleanup(netlab.CheckLeaks(t))
	for name, job := range map[string]Job{
		"rr":                {Kind: RR},
		"rr, many":          {Kind: RR, Connections: 300, Threads: 2},
		"rr, 64 KiB":        {Kind: RR, Connections: 3, Reply: 64 << 10},
		"rr, long requests": {Kind: RR, Connections: 3, Request: 5 << 20, Reply: 1},
		"rr, header alone":  {Kind: RR, Request: 16, Reply: 1000},
		"rr, open loop":     {Kind: RR, Connections: 20, Rate: 2000},
		"cps":               {Kind: CPS, Connections: 5},
		"cps, 64 KiB":       {Kind: CPS, Connections: 20, Reply: 64 << 10},
		"cps, 3 MiB":        {Kind: CPS, Connections: 2, Reply: 3 << 20},
		"bulk up":           {Kind: Bulk, Connections: 2},
		"bulk down":         {Kind: Bulk, Connections: 2, Down: true},
		"idle":              {Kind: Idle, Connections: 200},
		"slow":              {Kind: Slow, Connections: 2, Pace: 1 << 20},
	} {
		t.Run(name, func(t *testing.T) {
			t.Cleanup(netlab.CheckLeaks(t))
			server, address := serve(t, job.Threads)
			job.Address = address
			client := employ(t, t.Context(), job).ready()
			w := window(short)
			server.say(w)
			client.say(w)
			got, atServer := client.result(), server.result()
			if err := client.end(); err != nil {
				t.Error(err)
			}
			if err := server.end(); err != nil {
				t.Error(err)
			}
			if got.Errors != 0 || got.Error != "" || atServer.Errors != 0 {
				t.Errorf("%d errors: %s; %d at the server: %s", got.Errors, got.Error, atServer.Errors, atServer.Error)
			}
			if job.Kind == CPS && got.Connections < got.Requests/2 || job.Kind != CPS && got.Connections != uint64(max(job.Connections, 1)) {
				t.Errorf("%d connections", got.Connections)
			}
			up, down := job.Kind == Bulk && !job.Down, job.Kind == Slow || job.Down
			if (got.Bytes > 0) != down || (atServer.Bytes > 0) != up {
				t.Errorf("%d bytes at the client, %d at the server", got.Bytes, atServer.Bytes)
			}
			asks := job.Kind == RR || job.Kind == CPS
			if (got.Requests > 0) != asks || (got.Latency != nil) != asks {
				t.Errorf("%d requests, latencies: %t", got.Requests, got.Latency != nil)
			}
			if asks {
				h := hdrhistogram.Import(got.Latency)
				if h.TotalCount() != int64(got.Requests) || h.Min() < int64(leastLatency) || h.ValueAtQuantile(50) > h.Max() {
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
	t.Cleanup(netlab.CheckLeaks(t))
	server, address := serve(t, 1)
	for range 2 {
		client := employ(t, t.Context(), Job{Kind: Bulk, Address: address}).ready()
		if r := server.measure(short); r.Bytes == 0 {
			t.Error("nothing arrived")
		}
		client.end()
	}
	if r := server.measure(short); r.Bytes != 0 {
		t.Errorf("%d bytes from nobody", r.Bytes)
	}
}

func TestNobodyListens(t *testing.T) {
	t.Cleanup(netlab.CheckLeaks(t))
	jobs := []Job{
		{Kind: RR, Connections: 100}, {Kind: RR, Connections: 100, Rate: 1000}, {Kind: CPS}, {Kind: Bulk, Connections: 3}, {Kind: Idle, Connections: 100}, {Kind: Slow, Pace: 1},
	}
	for i, r := range measureAll(t, ports(t), jobs) {
		job := jobs[i]
		if r.Errors < uint64(job.Connections) || r.Errors == 0 || !strings.Contains(r.Error, "connection refused") || r.Requests != 0 || r.Bytes != 0 || r.Connections != 0 {
			t.Errorf("%s: %+v", job.Kind, *r)
		}
	}
}

// listen accepts connections on both ports and does something with each.
func listen(t *testing.T, do func(net.Conn)) netip.AddrPort {
	t.Helper()
	address := ports(t)
	for _, a := range []netip.AddrPort{address, Job{Address: address}.bulkAddress()} {
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
	t.Cleanup(netlab.CheckLeaks(t))
	for name, do := range map[string]func(net.Conn){
		"reset":  discard,
		"closed": func(c net.Conn) { c.Close() },
		"garbage": func(c net.Conn) {
			c.Write([]byte("HTTP/1.1 400 Bad Request\r\n\r\n"))
			c.Read(make([]byte, 128))
			c.Close()
		},
	} {
		jobs := []Job{{Kind: RR, Connections: 10}, {Kind: RR, Connections: 10, Rate: 100}, {Kind: CPS}, {Kind: Bulk}, {Kind: Idle, Connections: 10}, {Kind: Slow, Pace: 1}}
		for i, r := range measureAll(t, listen(t, do), jobs) {
			job := jobs[i]
			if r.Errors < uint64(job.Connections) || r.Errors == 0 || r.Error == "" || r.Requests != 0 || r.Bytes != 0 || job.Kind != CPS && r.Connections != 0 {
				t.Errorf("%s, %s: %+v", name, job.Kind, *r)
			}
		}
	}
}

func TestServerDiesInTheMiddle(t *testing.T) {
	t.Cleanup(netlab.CheckLeaks(t))
	for _, job := range []Job{
		{Kind: RR, Connections: 50}, {Kind: RR, Connections: 50, Rate: 1000}, {Kind: CPS, Connections: 2},
		{Kind: Bulk, Connections: 2}, {Kind: Bulk, Down: true}, {Kind: Idle, Connections: 50}, {Kind: Slow, Pace: 1 << 30},
	} {
		server, address := serve(t, 1)
		job.Address = address
		client := employ(t, t.Context(), job).ready()
		if err := server.end(); err != nil {
			t.Error(err)
		}
		r := client.measure(short)
		if want := uint64(max(job.Connections, 1)); r.Errors < want || r.Error == "" || job.Kind != CPS && (r.Errors != want || r.Connections != want) {
			t.Errorf("%s: %+v", job.Kind, *r)
		}
	}
}

func TestWorkerEndsWithItsInput(t *testing.T) {
	t.Cleanup(netlab.CheckLeaks(t))
	_, address := serve(t, 1)
	mute := listen(t, func(c net.Conn) { t.Cleanup(func() { c.Close() }) })
	for _, job := range []Job{
		{Kind: RR, Connections: 50}, {Kind: RR, Rate: 1}, {Kind: CPS, Connections: 2}, {Kind: Bulk}, {Kind: Idle}, {Kind: Slow, Pace: 1},
	} {
		job.Address = address
		if err := employ(t, t.Context(), job).ready().end(); err != nil {
			t.Errorf("%s without a window: %v", job.Kind, err)
		}
		h := employ(t, t.Context(), job).ready()
		h.say(Window{From: time.Now().Add(300 * time.Millisecond), To: time.Now().Add(time.Hour)})
		time.Sleep(350 * time.Millisecond)
		if err := h.end(); err != nil {
			t.Errorf("%s in its window: %v", job.Kind, err)
		}
		job.Address = mute
		h = employ(t, t.Context(), job)
		time.Sleep(20 * time.Millisecond)
		if err := h.end(); err != nil && job.Kind != CPS { // which is ready, and cannot say so
			t.Errorf("%s while it sets up: %v", job.Kind, err)
		}
	}
}

func TestWorkerEndsWithItsContext(t *testing.T) {
	t.Cleanup(netlab.CheckLeaks(t))
	_, address := serve(t, 1)
	ctx, cancel := context.WithCancel(t.Context())
	h := employ(t, ctx, Job{Kind: RR, Address: address}).ready()
	cancel()
	if err := <-h.done; !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), address.String()) {
		t.Errorf("got %v", err)
	}
	h.done <- nil
}

func TestTakenPortIsAnError(t *testing.T) {
	t.Cleanup(netlab.CheckLeaks(t))
	_, address := serve(t, 1)
	h := employ(t, t.Context(), Job{Kind: Serve, Address: address})
	if err := <-h.done; !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("got %v", err)
	}
	h.done <- nil
}

func TestWhatCannotBeDoneIsRefused(t *testing.T) {
	t.Cleanup(netlab.CheckLeaks(t))
	here := netip.MustParseAddrPort("127.0.0.1:1")
	for want, job := range map[string]Job{
		`kind "ftp"`:                        {Kind: "ftp", Address: here},
		"address invalid":                   {Kind: RR},
		"address 127.0.0.1:65535":           {Kind: RR, Address: netip.MustParseAddrPort("127.0.0.1:65535")},
		"-1 connections":                    {Kind: RR, Address: here, Connections: -1},
		"request of 15 bytes":               {Kind: RR, Address: here, Request: 15},
		"reply of -1 bytes":                 {Kind: RR, Address: here, Reply: -1},
		"rate of -1":                        {Kind: RR, Address: here, Rate: -1},
		"0 bytes per second":                {Kind: Slow, Address: here},
		"257 threads":                       {Kind: Serve, Address: here, Threads: 257},
		"-1 processors":                     {Kind: Serve, Address: here, Processors: -1},
		"want one that is still to come":    {Kind: CPS, Address: here},
		"listen on 192.0.2.1:80: bind: can": {Kind: Serve, Address: netip.MustParseAddrPort("192.0.2.1:80")},
	} {
		in := `{"From":"2020-01-01T00:00:00Z","To":"2020-01-01T00:00:01Z"}`
		text, err := line(job)
		if err != nil {
			t.Fatal(err)
		}
		r, w := io.Pipe()
		go io.WriteString(w, string(text)+in)
		err = Work(t.Context(), r, io.Discard)
		w.Close()
		r.Close()
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, wanted %q", err, want)
		}
	}
	for want, in := range map[string]string{"read the job: EOF": "", "read the job: invalid": "}"} {
		if err := Work(t.Context(), strings.NewReader(in), io.Discard); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v", in, err)
		}
	}
}

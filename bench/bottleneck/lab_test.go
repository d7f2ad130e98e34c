package bottleneck

import (
	"context"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/tprelay/tprelay/bench/relays"
	"github.com/tprelay/tprelay/internal/leak"
	"github.com/tprelay/tprelay/internal/netlab"
	"github.com/tprelay/tprelay/internal/netlab/netlabtest"
)

func TestMain(m *testing.M) {
	os.Exit(netlabtest.Main(m))
}

// setup is a short measurement.
func setup(r Reader) *Setup {
	return &Setup{
		Path:   Path{Access: 20e6, Bottleneck: 6e6, Queue: 100 * time.Millisecond},
		Reader: r, Length: 1500 * time.Millisecond, Every: 20 * time.Millisecond, Unsent: 16 << 10,
	}
}

func TestTransferIsMeasured(t *testing.T) {
	direct, err := relays.Find(Direct, "")
	if err != nil {
		t.Fatal(err)
	}
	for name, reader := range map[string]Reader{"link": {}, "slow": {Pace: 100_000}, "stopped": {Stopped: true}} {
		t.Run(name, func(t *testing.T) {
			leak.Check(t)
			told := 0
			m, err := setup(reader).Run(context.Background(), direct, func(Sample) { told++ })
			if err != nil {
				t.Fatal(err)
			}
			last := m.Samples[len(m.Samples)-1]
			if told != len(m.Samples) || m.Client != m.ServerSaw {
				t.Errorf("told of %d samples of %d; client %v, server saw %v", told, len(m.Samples), m.Client, m.ServerSaw)
			}
			if last.SentBytes <= 0 || last.ArrivedBytes > last.SentBytes || (last.ArrivedBytes > 0) == reader.Stopped {
				t.Errorf("sent %d, arrived %d", last.SentBytes, last.ArrivedBytes)
			}
			if last.Sender == nil || last.Receiver == nil || last.Incoming != nil || last.Outgoing != nil || last.Relay != nil {
				t.Errorf("%+v", last)
			}
			if _, has := m.Figures[DelayMedian]; has == reader.Stopped {
				t.Errorf("%v", m.Figures)
			}
			if total(m.Sent()) != last.SentBytes || total(m.Arrived()) != last.ArrivedBytes {
				t.Error("the intervals are not the whole")
			}
		})
	}
}

func TestSeveralConnectionsAreOneTransfer(t *testing.T) {
	leak.Check(t)
	iocopy, err := relays.Find("iocopy", "")
	if err != nil {
		t.Fatal(err)
	}
	s := setup(Reader{})
	s.Flows, s.Self = 20, aTPBench(t)
	m, err := s.Run(context.Background(), iocopy, nil)
	if err != nil {
		t.Fatal(err)
	}
	last := m.Samples[len(m.Samples)-1]
	if m.Client != m.ServerSaw || last.Incoming == nil || last.Receiver == nil || last.ArrivedBytes <= 0 {
		t.Errorf("client %v, server saw %v: %+v", m.Client, m.ServerSaw, last)
	}
}

func TestOrdinarySenderIsMeasuredBesideTheOther(t *testing.T) {
	leak.Check(t)
	direct, err := relays.Find(Direct, "")
	if err != nil {
		t.Fatal(err)
	}
	s := setup(Reader{})
	s.Ordinary = true
	m, err := s.Run(context.Background(), direct, nil)
	if err != nil {
		t.Fatal(err)
	}
	if m.Timed == nil || len(m.Timed.Samples) == 0 || m.Timed.Client == m.Client {
		t.Fatalf("the second transfer: %+v", m.Timed)
	}
	// What its kernel may hold unsent is bounded in the second transfer only.
	held := func(r *Record) (most uint32) {
		for _, sample := range r.Samples {
			most = max(most, sample.Sender.NotSent)
		}
		return most
	}
	if first, second := held(&m.Record), held(m.Timed); first <= 2*second {
		t.Errorf("%d and %d bytes were not sent yet", first, second)
	}
	if _, ok := m.Figures[DelayMedian]; !ok {
		t.Errorf("%v", m.Figures)
	}
}

func TestReaderStopsAndGoesOn(t *testing.T) {
	leak.Check(t)
	direct, err := relays.Find(Direct, "")
	if err != nil {
		t.Fatal(err)
	}
	resume := 500 * time.Millisecond
	m, err := setup(Reader{Resume: resume}).Run(context.Background(), direct, nil)
	if err != nil {
		t.Fatal(err)
	}
	if len(m.delays) == 0 {
		t.Error("nothing arrived after it went on")
	}
	for _, d := range m.delays {
		if d.at < resume.Seconds() {
			t.Errorf("a block arrived after %g s", d.at)
		}
	}
}

func TestHostsThatExistAreMeasured(t *testing.T) {
	leak.Check(t)
	lab := netlabtest.New(t, netlab.Config{})
	s := setup(Reader{})
	s.Self = aTPBench(t)
	for _, h := range []*netlab.Host{lab.H1, lab.H2, lab.H3} {
		cmd := h.Command(context.Background(), "sleep", "1000")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		s.Path.Attach = append(s.Path.Attach, cmd.PID())
	}
	iocopy, err := relays.Find("iocopy", "")
	if err != nil {
		t.Fatal(err)
	}
	m, err := s.Run(context.Background(), iocopy, nil)
	if err != nil {
		t.Fatal(err)
	}
	if m.Client != m.ServerSaw || m.Client.Addr() != lab.H1.Addr4 || m.Figures[ArrivedRate] <= 0 {
		t.Errorf("client %v, server saw %v: %v", m.Client, m.ServerSaw, m.Figures)
	}
}

// aTPBench builds tpbench where everybody may run it.
func aTPBench(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "tpbench")
	if out, err := exec.Command("go", "build", "-o", path, "github.com/tprelay/tprelay/cmd/tpbench").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	return path
}

func TestTransferThatDoesNotArriveFails(t *testing.T) {
	leak.Check(t)
	lab := netlabtest.New(t, netlab.Config{})
	elsewhere, err := lab.H3.Listen("tcp", netip.AddrPortFrom(lab.H3.Addr4, serverPort+1).String())
	if err != nil {
		t.Fatal(err)
	}
	defer elsewhere.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 200*time.Millisecond)
	defer cancel()
	tr := Transfer{
		Lab: lab, Server: netip.AddrPortFrom(lab.H3.Addr4, serverPort), Target: addrPort(elsewhere.Addr()),
		Length: time.Second, Every: 20 * time.Millisecond,
	}
	if _, err := tr.Run(ctx); err == nil {
		t.Error("it was measured")
	}
}

func TestInterruptedTransferSaysSo(t *testing.T) {
	leak.Check(t)
	direct, err := relays.Find(Direct, "")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	if _, err := setup(Reader{}).Run(ctx, direct, func(Sample) { cancel() }); err == nil || ctx.Err() == nil {
		t.Errorf("error %v", err)
	}
}

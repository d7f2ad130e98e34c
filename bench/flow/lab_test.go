package flow

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/tprelay/tprelay/bench/relays"
	"github.com/tprelay/tprelay/internal/netlab"
)

func TestMain(m *testing.M) {
	if err := netlab.Enter(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(m.Run())
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
			t.Cleanup(netlab.CheckLeaks(t))
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
			if Total(m.Sent()) != last.SentBytes || Total(m.Arrived()) != last.ArrivedBytes {
				t.Error("the intervals are not the whole")
			}
		})
	}
}

func TestTransferThatDoesNotArriveFails(t *testing.T) {
	t.Cleanup(netlab.CheckLeaks(t))
	lab, err := netlab.New(netlab.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer lab.Close()
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
	t.Cleanup(netlab.CheckLeaks(t))
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

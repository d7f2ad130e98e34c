//go:build record

package engine

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tprelay/tprelay/engine/internal/pump"
	"github.com/tprelay/tprelay/internal/netlab"
	"github.com/tprelay/tprelay/internal/sock"
	"github.com/tprelay/tprelay/tproxy"
)

// recorded is a connection of which a trace is recorded: its upstream direction, sampled once in
// 100 ms and more often at the beginning.
type recorded struct {
	name, what string
	lab        netlab.Config
	congestion string
	loss       int // percent of the packets that come from the client
	send       func(client net.Conn)
	receive    func(server net.Conn)
}

var recordings = []recorded{
	{
		name: "bottleneck", what: "20 Mbit/s in front of the relay, 6 Mbit/s and a round trip of 20 ms behind it; 6 s",
		congestion: "cubic",
		lab: netlab.Config{
			Access:     netlab.Link{Rate: 20e6},
			Bottleneck: netlab.Link{Rate: 6e6, Delay: 10 * time.Millisecond},
		},
		send: sendFor(6 * time.Second), receive: receiveAll,
	},
	{
		name: "stop", what: "50 Mbit/s behind the relay; the server reads for 2 s, stops for 3 s, and goes on for 3 s",
		congestion: "cubic",
		lab:        netlab.Config{Bottleneck: netlab.Link{Rate: 50e6, Delay: time.Millisecond}},
		send:       sendFor(8 * time.Second),
		receive: func(server net.Conn) {
			server.SetReadDeadline(time.Now().Add(2 * time.Second))
			io.Copy(io.Discard, onlyReads{server})
			server.SetReadDeadline(time.Time{})
			time.Sleep(3 * time.Second)
			receiveAll(server)
		},
	},
	{
		name: "slowstart", what: "8 MB over a round trip of 600 ms behind the relay: slow start, and no queue",
		congestion: "reno", // cubic leaves slow start when round trips vary, as they do on a busy machine
		lab:        netlab.Config{Bottleneck: netlab.Link{Delay: 300 * time.Millisecond}},
		send:       sendBytes(8 << 20), receive: receiveAll,
	},
	{
		name: "briefstalls", what: "unlimited links; the server reads 400 MB/s at most, so that the direction stalls without end, and nothing waits long",
		congestion: "cubic",
		send:       sendFor(3 * time.Second),
		receive: func(server net.Conn) {
			buf := make([]byte, 256<<10)
			for begin, total := time.Now(), 0; ; {
				n, err := server.Read(buf)
				if err != nil {
					return
				}
				total += n
				time.Sleep(time.Until(begin.Add(time.Duration(float64(total) / 400e6 * 1e9))))
			}
		},
	},
	{
		name: "loss", what: "3 MB; 4 % of the client's packets are lost in front of the relay; a round trip of 100 ms behind it",
		lab:        netlab.Config{Access: netlab.Link{Delay: time.Millisecond}, Bottleneck: netlab.Link{Delay: 50 * time.Millisecond}},
		congestion: "cubic", loss: 4, send: sendBytes(3 << 20), receive: receiveAll,
	},
}

// onlyReads hides WriteTo, and with it splice.
type onlyReads struct{ io.Reader }

func receiveAll(server net.Conn) { io.Copy(io.Discard, onlyReads{server}) }

func sendBytes(n int) func(net.Conn) {
	return func(client net.Conn) { client.Write(make([]byte, n)) }
}

func sendFor(d time.Duration) func(net.Conn) {
	return func(client net.Conn) {
		client.SetWriteDeadline(time.Now().Add(d))
		for data, err := make([]byte, 64<<10), error(nil); err == nil; {
			_, err = client.Write(data)
		}
	}
}

// TestRecordTraces writes the traces that the tests of engine/internal/flowcontrol read.
func TestRecordTraces(t *testing.T) {
	for _, r := range recordings {
		t.Run(r.name, func(t *testing.T) {
			path := filepath.Join("internal", "flowcontrol", "testdata", r.name+".trace")
			if err := os.WriteFile(path, []byte(r.record(t)), 0o644); err != nil {
				t.Fatal(err)
			}
		})
	}
}

func (r *recorded) record(t *testing.T) string {
	lab, err := netlab.New(r.lab)
	if err != nil {
		t.Fatal(err)
	}
	defer lab.Close()
	for _, h := range []*netlab.Host{lab.H1, lab.H2, lab.H3} {
		for name, value := range map[string]string{
			"tcp_congestion_control": r.congestion,
			"tcp_rmem":               "4096 131072 6291456",
			"tcp_wmem":               "4096 16384 4194304",
		} {
			if err := h.SetSysctl("net.ipv4."+name, value); err != nil {
				t.Fatal(err)
			}
		}
	}
	if r.loss > 0 {
		text := fmt.Sprintf("table inet lossy {\n chain in {\n type filter hook prerouting priority -300\n iifname %q numgen random mod 100 < %d drop\n }\n}\n", netlab.Left, r.loss)
		if err := lab.H2.NFT(context.Background(), text); err != nil {
			t.Fatal(err)
		}
	}
	servers, err := lab.H3.Listen("tcp", netip.AddrPortFrom(lab.H3.Addr4, 0).String())
	if err != nil {
		t.Fatal(err)
	}
	defer servers.Close()
	at := netip.AddrPortFrom(lab.H2.Addr4, 9091)
	e, err := New(Options{
		Loops: 1, ThreadInit: lab.H2.Enter,
		Listeners: []Listener{{Address: at, Mode: tproxy.Forward, Upstream: servers.Addr().(*net.TCPAddr).AddrPort()}},
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- e.Run(ctx) }()
	defer func() {
		stop()
		<-ended
	}()
	client, err := lab.H1.Dial(ctx, "tcp", at.String())
	if err != nil {
		t.Fatal(err)
	}
	server, err := servers.Accept()
	if err != nil {
		t.Fatal(err)
	}
	received := make(chan bool)
	go func() {
		defer close(received)
		r.receive(server)
		server.Close()
	}()
	go func() {
		r.send(client)
		client.Close()
	}()

	var b strings.Builder
	fmt.Fprintf(&b, "# %s\n# Times are in milliseconds, round trips in microseconds, rates in bytes per second.\n%s\n", r.what, traceHeader)
	var looked, last, ticks = uint64(0), uint32(0), uint32(0)
	for {
		select {
		case <-received:
			return b.String()
		case <-time.After(5 * time.Millisecond):
		}
		const lookEvery, lookUntil = 32 << 10, 1 << 20 // as in package pump
		ok := e.loops[0].ask(func(l *loop) {
			p := l.pairs.at(0)
			if p.state != stateOpen {
				return
			}
			d := &p.dir[upstream]
			l.clock()
			switch now := l.millis(); {
			case now-ticks >= uint32(tickLength.Milliseconds()):
				ticks = now
				l.trace(&b, "tick", p, d.Is(pump.HasStalled) || d.Pauses != last)
				last = d.Pauses
			case d.Bytes/lookEvery != looked && d.Bytes < lookUntil:
				looked = d.Bytes / lookEvery
				l.trace(&b, "look", p, false)
			}
		})
		if !ok {
			t.Fatal("the loop has ended")
		}
	}
}

// traceHeader names the columns of a trace.
var traceHeader = "kind now delivered pending stalled hasStalled eof " +
	"mss rtt minRTT cwnd ssthresh sndWnd unacked sacked notsent acked deliveryRate appLimited " +
	"sourceRTT sourceMinRTT advMSS rcvMSS rcvWnd rcvSpace used size unread most"

// trace adds a line about the upstream direction of p.
func (l *loop) trace(b *strings.Builder, kind string, p *pair, hasStalled bool) {
	var sink, source unix.TCPInfo
	if !sock.TCPInfo(int(p.fd[outgoing]), &sink) || !sock.TCPInfo(int(p.fd[incoming]), &source) {
		return
	}
	m, _ := l.receiveBuffer(int(p.fd[incoming]))
	d := &p.dir[upstream]
	flag := func(v bool) int {
		if v {
			return 1
		}
		return 0
	}
	fmt.Fprintln(b, kind, l.millis(), d.Bytes, d.Pending, flag(d.Is(pump.Stalled)), flag(hasStalled), flag(d.Is(pump.EOF)),
		sink.Snd_mss, sink.Rtt, sink.Min_rtt, sink.Snd_cwnd, sink.Snd_ssthresh, sink.Snd_wnd, sink.Unacked, sink.Sacked,
		sink.Notsent_bytes, sink.Bytes_acked, sink.Delivery_rate, flag(sock.AppLimited(&sink)),
		source.Rtt, source.Min_rtt, source.Advmss, source.Rcv_mss, source.Rcv_wnd, source.Rcv_space,
		m.Used, m.Size, sock.Unread(int(p.fd[incoming])), m.Most)
}

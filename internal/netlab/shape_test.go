package netlab_test

import (
	"bytes"
	"errors"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/tprelay/tprelay/internal/leak"
	"github.com/tprelay/tprelay/internal/netlab"
)

// transfer sends n bytes and returns when they have arrived.
func transfer(t *testing.T, from, to net.Conn, n int) {
	t.Helper()
	sent := make(chan error, 1)
	go func() {
		_, err := from.Write(make([]byte, n))
		sent <- err
	}()
	if _, err := io.ReadFull(to, make([]byte, n)); err != nil {
		t.Fatal(err)
	}
	if err := <-sent; err != nil {
		t.Fatal(err)
	}
}

func TestRateBoundsWhatArrives(t *testing.T) {
	for name, rate := range map[string]uint64{"6 Mbit/s": 6_000_000, "200 Mbit/s": 200_000_000} {
		t.Run(name, func(t *testing.T) {
			link := netlab.Link{Rate: rate}
			lab := newLab(t, netlab.Config{Bottleneck: link})
			for _, addr := range []netip.Addr{lab.H3.Addr4, lab.H3.Addr6} {
				client, server := pair(t, lab.H1, lab.H3, addr)
				for _, way := range []struct {
					from, to net.Conn
					host     *netlab.Host
					iface    string
				}{{client, server, lab.H2, netlab.Right}, {server, client, lab.H3, netlab.Edge}} {
					before, err := way.host.QueueStats(way.iface)
					if err != nil {
						t.Fatal(err)
					}
					start := time.Now()
					n := int(rate / 8 / 4)
					transfer(t, way.from, way.to, n)
					after, err := way.host.QueueStats(way.iface)
					if err != nil {
						t.Fatal(err)
					}
					elapsed := time.Since(start)

					passed := int(after.Bytes - before.Bytes)
					packets := int(after.Packets - before.Packets)
					if most := int(float64(rate)/8*elapsed.Seconds()) + link.BurstBytes() + 1514; passed > most {
						t.Errorf("%d bytes passed in %s, at most %d may", passed, elapsed, most)
					}
					if passed < n {
						t.Errorf("%d bytes passed, but %d arrived", passed, n)
					}
					if link.BurstBytes() < 2*2*1514 && passed > packets*1514 {
						t.Errorf("packets of %d bytes on the link", passed/packets)
					}
					t.Logf("%s: %.2f Mbit/s on the wire, %d bytes a packet, %d drops",
						way.iface, float64(passed)*8/elapsed.Seconds()/1e6, passed/packets, after.Dropped-before.Dropped)
				}
			}
		})
	}
}

func TestQueueDropsWhatItCannotHold(t *testing.T) {
	link := netlab.Link{Rate: 100_000, Queue: 20_000}
	lab := newLab(t, netlab.Config{Bottleneck: link})
	sink, err := lab.H3.ListenPacket("udp", netip.AddrPortFrom(lab.H3.Addr4, 0).String())
	if err != nil {
		t.Fatal(err)
	}
	defer sink.Close()
	source, err := lab.H1.Dial(within(t, 5*time.Second), "udp", sink.LocalAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer source.Close()

	const datagrams, size = 200, 1000
	const onWire = size + 8 + 20 + 14
	payload := bytes.Repeat([]byte("x"), size)
	// The first one resolves the neighbours' addresses: until then a host keeps about a hundred.
	if _, err := source.Write(payload); err != nil {
		t.Fatal(err)
	}
	sink.SetReadDeadline(time.Now().Add(time.Minute))
	if _, _, err := sink.ReadFrom(make([]byte, size)); err != nil {
		t.Fatal(err)
	}
	before, err := lab.H2.QueueStats(netlab.Right)
	if err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	for range datagrams {
		if _, err := source.Write(payload); err != nil {
			t.Fatal(err)
		}
		stats, err := lab.H2.QueueStats(netlab.Right)
		if err != nil {
			t.Fatal(err)
		}
		if int(stats.Backlog) > link.Queue {
			t.Fatalf("%d bytes wait in a queue of %d", stats.Backlog, link.Queue)
		}
	}
	// The kernel brings the datagrams to the bottleneck in its own time.
	var stats netlab.QueueStats
	for deadline := start.Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		if stats, err = lab.H2.QueueStats(netlab.Right); err != nil {
			t.Fatal(err)
		}
		if int(stats.Dropped)+int(stats.Packets-before.Packets)+int(stats.Backlog)/onWire >= datagrams {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("of %d datagrams not all came to the bottleneck: %+v", datagrams, stats)
		}
	}
	passable := int(float64(link.Rate)/8*time.Since(start).Seconds()) + link.BurstBytes() + link.Queue
	if least := datagrams - passable/onWire - 1; int(stats.Dropped) < least {
		t.Errorf("%d datagrams of %d were dropped, at least %d have no room", stats.Dropped, datagrams, least)
	}
}

func TestBottleneckCanBeReshaped(t *testing.T) {
	lab := newLab(t, netlab.Config{})
	if _, err := lab.H2.QueueStats(netlab.Right); err == nil {
		t.Error("there are queue counters without a rate limit")
	}
	for _, l := range []netlab.Link{{Rate: 1_000_000}, {Rate: 50_000_000_000}, {}, {}} {
		if err := lab.SetBottleneck(l); err != nil {
			t.Fatal(err)
		}
		if _, err := lab.H3.QueueStats(netlab.Edge); (err == nil) != (l.Rate > 0) {
			t.Errorf("%+v: queue: %v", l, err)
		}
		pair(t, lab.H1, lab.H3, lab.H3.Addr4)
	}
}

func TestDelaysOfLinksAddUp(t *testing.T) {
	leak.Check(t)
	const delay = 20 * time.Millisecond
	lab, err := netlab.New(netlab.Config{Access: netlab.Link{Delay: delay}, Bottleneck: netlab.Link{Rate: 10_000_000, Delay: delay}})
	if errors.Is(err, netlab.ErrNoNetem) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer lab.Close()
	start := time.Now()
	client, server := pair(t, lab.H1, lab.H3, lab.H3.Addr4)
	if took := time.Since(start); took < 4*delay {
		t.Errorf("connected in %s, although a round trip takes %s", took, 4*delay)
	}
	client.Close()
	server.Close()
}

package netlab_test

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/tprelay/tprelay/internal/leak"
	"github.com/tprelay/tprelay/internal/netlab"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// newDelayedLab makes a lab with delay lines, or skips where there can be none.
func newDelayedLab(t *testing.T, cfg netlab.Config) *netlab.Lab {
	t.Helper()
	f, err := os.OpenFile("/dev/net/tun", os.O_RDWR, 0)
	if err != nil {
		t.Skip(err)
	}
	f.Close()
	return newLab(t, netlab.WithLines(cfg))
}

// roundTrip is the shortest of some of one byte.
func roundTrip(t *testing.T, client, server net.Conn) time.Duration {
	t.Helper()
	shortest := time.Hour
	b := make([]byte, 1)
	for range 3 {
		start := time.Now()
		for _, way := range []struct{ from, to net.Conn }{{client, server}, {server, client}} {
			if _, err := way.from.Write(b); err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadFull(way.to, b); err != nil {
				t.Fatal(err)
			}
		}
		shortest = min(shortest, time.Since(start))
	}
	return shortest
}

func TestLineDelaysBothWays(t *testing.T) {
	leak.Check(t)
	const delay = 20 * time.Millisecond
	for name, link := range map[string]netlab.Link{"no rate": {Delay: delay}, "with rate": {Delay: delay, Rate: 100_000_000}} {
		t.Run(name, func(t *testing.T) {
			lab := newDelayedLab(t, netlab.Config{Bottleneck: link})
			for _, addr := range []netip.Addr{lab.H3.Addr4, lab.H3.Addr6} {
				start := time.Now()
				client, server := pair(t, lab.H1, lab.H3, addr)
				if took := time.Since(start); took < 2*delay {
					t.Errorf("connected in %s, although a round trip takes %s", took, 2*delay)
				}
				took := roundTrip(t, client, server)
				if took < 2*delay {
					t.Errorf("a round trip of %s over a delay of %s one way", took, delay)
				}
				t.Logf("round trip to %s: %s", addr, took)
			}
			if _, ok := lab.H1.LineStats(netlab.Edge); ok {
				t.Error("the link without a delay is a line")
			}
		})
	}
}

func TestLineDeliversAllInOrder(t *testing.T) {
	leak.Check(t)
	for name, rate := range map[string]uint64{"no rate": 0, "600 Mbit/s": 600_000_000, "100 Mbit/s": 100_000_000} {
		t.Run(name, func(t *testing.T) {
			link := netlab.Link{Rate: rate, Delay: 5 * time.Millisecond}
			lab := newDelayedLab(t, netlab.Config{Access: link, Bottleneck: link})
			ends := []struct {
				host  *netlab.Host
				iface string
			}{{lab.H1, netlab.Edge}, {lab.H2, netlab.Left}, {lab.H2, netlab.Right}, {lab.H3, netlab.Edge}}
			// What a host said before its peer was up is lost. It is over when bytes
			// have passed both ways, as nothing overtakes.
			client, server := pair(t, lab.H1, lab.H3, lab.H3.Addr4)
			roundTrip(t, client, server)
			before := map[int]uint64{}
			for i, end := range ends {
				stats, _ := end.host.LineStats(end.iface)
				before[i] = stats.Dropped
			}
			for _, addr := range []netip.Addr{lab.H3.Addr4, lab.H3.Addr6} {
				client, server := pair(t, lab.H1, lab.H3, addr)
				var both sync.WaitGroup
				for seed, way := range []struct{ from, to net.Conn }{{client, server}, {server, client}} {
					sent := make([]byte, 8<<20)
					random := rand.NewChaCha8([32]byte{byte(seed)})
					_, _ = random.Read(sent)
					both.Go(func() {
						if _, err := way.from.Write(sent); err != nil {
							t.Error(err)
						}
					})
					both.Go(func() {
						got := make([]byte, len(sent))
						if _, err := io.ReadFull(way.to, got); err != nil {
							t.Error(err)
						}
						if !bytes.Equal(got, sent) {
							t.Error("what arrived is not what was sent")
						}
					})
				}
				both.Wait()
			}
			for i, end := range ends {
				stats, ok := end.host.LineStats(end.iface)
				if !ok || stats.Dropped > before[i] || stats.Passed == 0 {
					t.Errorf("%s %s: line %v: %+v", end.host.Name, end.iface, ok, stats)
				}
			}
		})
	}
}

func TestLineDelayCanBeChanged(t *testing.T) {
	leak.Check(t)
	lab := newDelayedLab(t, netlab.Config{Bottleneck: netlab.Link{Delay: time.Minute}})
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
	if _, err := source.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(time.Millisecond) {
		if stats, _ := lab.H2.LineStats(netlab.Right); stats.Waiting > 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("nothing is on its way")
		}
	}
	if err := lab.SetBottleneck(netlab.Link{}); err != nil {
		t.Fatal(err)
	}
	// It would have been on its way for a minute.
	if _, _, err := sink.ReadFrom(make([]byte, 10)); err != nil {
		t.Fatal(err)
	}
	client, server := pair(t, lab.H1, lab.H3, lab.H3.Addr4)
	t.Logf("round trip without delay: %s", roundTrip(t, client, server))
	for _, delay := range []time.Duration{30 * time.Millisecond, 10 * time.Millisecond} {
		if err := lab.SetBottleneck(netlab.Link{Rate: 50_000_000, Delay: delay}); err != nil {
			t.Fatal(err)
		}
		took := roundTrip(t, client, server)
		if took < 2*delay {
			t.Errorf("a round trip of %s over a delay of %s one way", took, delay)
		}
		t.Logf("round trip with %s one way: %s", delay, took)
	}
}

func TestLineIsClosedWithFramesOnTheirWay(t *testing.T) {
	leak.Check(t)
	lab := newDelayedLab(t, netlab.Config{Access: netlab.Link{Delay: time.Minute}, Bottleneck: netlab.Link{Delay: time.Minute}})
	conn, err := lab.H1.Dial(within(t, 5*time.Second), "udp", netip.AddrPortFrom(lab.H3.Addr4, 9).String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Write([]byte("lost")); err != nil {
		t.Fatal(err)
	}
	if err := lab.Close(); err != nil {
		t.Error(err)
	}
}

func TestLineLooksCutFromBothEnds(t *testing.T) {
	lab := newDelayedLab(t, netlab.Config{Bottleneck: netlab.Link{Delay: time.Millisecond}})
	carrier := func(host *netlab.Host, iface string) bool {
		var flags uint32
		err := host.Do(func() error {
			link, err := netlink.LinkByName(iface)
			if err == nil {
				flags = link.Attrs().RawFlags
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		return flags&unix.IFF_LOWER_UP != 0
	}
	restore, err := lab.H3.CutLink(netlab.Edge)
	if err != nil {
		t.Fatal(err)
	}
	if carrier(lab.H2, netlab.Right) {
		t.Error("the other end of a link that is cut has a carrier")
	}
	if err := restore(); err != nil {
		t.Fatal(err)
	}
	if !carrier(lab.H2, netlab.Right) || !carrier(lab.H3, netlab.Edge) {
		t.Error("a link that was restored has no carrier")
	}
	client, server := pair(t, lab.H1, lab.H3, lab.H3.Addr4)
	roundTrip(t, client, server)
}

func TestDelayOfALinkMadeWithoutNeedsNetem(t *testing.T) {
	leak.Check(t)
	lab := newLab(t, netlab.Config{})
	err := lab.SetAccess(netlab.Link{Delay: time.Millisecond})
	if err != nil && !errors.Is(err, netlab.ErrNoNetem) {
		t.Error(err)
	}
	t.Logf("the error: %v", err)
}

func TestNetemOnlyMakesNoLine(t *testing.T) {
	leak.Check(t)
	lab, err := netlab.New(netlab.Config{NetemOnly: true, Access: netlab.Link{Delay: time.Millisecond}})
	if errors.Is(err, netlab.ErrNoNetem) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer lab.Close()
	if _, ok := lab.H1.LineStats(netlab.Edge); ok {
		t.Error("there is a line")
	}
}

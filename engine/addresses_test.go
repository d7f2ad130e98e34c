package engine

import (
	"math"
	"net"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tprelay/tprelay/engine/internal/handover"
	"github.com/tprelay/tprelay/intercept"
)

// told keeps the last pair that ended.
type told struct{ PairInfo }

// still is the loop of an engine that does not run: the test calls its methods.
func still(t *testing.T, o Options) (*loop, *told) {
	t.Helper()
	observer := new(told)
	o.Loops, o.Observer.PairEnded = 1, func(i PairInfo) { observer.PairInfo = i }
	e, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { e.Close() })
	l := e.loops[0]
	l.clock()
	return l, observer
}

// anyFlow is a descriptor to use in place of a client's connection.
func anyFlow(t *testing.T) int {
	t.Helper()
	two, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(two[1]) })
	return two[0]
}

var someClient = netip.MustParseAddrPort("192.0.2.9:4711")

// TestDestinationPortZeroIsRefusedAsSuch: it is not dialed, and PairInfo shows it.
func TestDestinationPortZeroIsRefusedAsSuch(t *testing.T) {
	zero := netip.MustParseAddrPort("192.0.2.1:0")
	l, observer := still(t, Options{})
	l.engine.active.Add(1)
	l.adopt(anyFlow(t), someClient, nil, zero)
	if i := observer.PairInfo; i.Reason != ReasonDialError || i.Destination != zero || i.Err != errPortZero {
		t.Errorf("the client's own: %+v", i)
	}

	l, observer = still(t, Options{Interceptor: intercept.InterceptorFunc(func(intercept.Pair) intercept.Decision {
		return intercept.Decision{Destination: zero}
	})})
	l.engine.active.Add(1)
	l.adopt(anyFlow(t), someClient, nil, netip.MustParseAddrPort("192.0.2.1:80"))
	if i := observer.PairInfo; i.Reason != ReasonDialError || i.Connected != zero || i.Err != errPortZero {
		t.Errorf("the interceptor's: %+v", i)
	}
}

// TestDurationIsByTheMonotonicClock: setting the wall clock does not change Duration, and neither
// does a hand-over. Since follows the wall clock.
func TestDurationIsByTheMonotonicClock(t *testing.T) {
	l, _ := still(t, Options{})
	l.engine.active.Add(1)
	p := l.begin(anyFlow(t), someClient)
	p.began -= int64(time.Hour)
	if i := l.info(p); i.Duration < time.Hour || i.Duration > time.Hour+time.Minute || !i.Since.Add(i.Duration).Equal(l.now) {
		t.Errorf("after an hour: %v, since %v", i.Duration, i.Since)
	}
	p.state = stateWaiting
	w := handover.Pair{Record: l.handoverRecord(p), FDs: []int{anyFlow(t)}}
	next, observer := still(t, Options{})
	next.engine.active.Add(1)
	next.takeIn(w)
	next.endAll(ReasonDrained)
	if d := observer.Duration; d < time.Hour || d > time.Hour+time.Minute {
		t.Errorf("in the next process: %v", d)
	}
}

// TestZonesAreKept: a link-local address is useless without its link.
func TestZonesAreKept(t *testing.T) {
	client := netip.MustParseAddrPort("[fe80::9%3]:4711")
	destination := netip.MustParseAddrPort("[fe80::1%2]:80")
	l, _ := still(t, Options{})
	l.engine.active.Add(1)
	p := l.begin(anyFlow(t), client)
	p.setDestination(destination)
	p.state = stateWaiting
	if i := l.info(p); i.Client != client || i.Destination != destination || i.Connected != destination {
		t.Errorf("here: %+v", i)
	}
	w := handover.Pair{Record: l.handoverRecord(p), FDs: []int{anyFlow(t)}}
	next, observer := still(t, Options{})
	next.engine.active.Add(1)
	next.takeIn(w)
	next.endAll(ReasonDrained)
	if observer.Client != client || observer.Destination != destination {
		t.Errorf("in the next process: %+v", observer.PairInfo)
	}
}

// TestDenyHoldsForAddressesWithZones: netip.Prefix.Contains is false for addresses with a zone.
func TestDenyHoldsForAddressesWithZones(t *testing.T) {
	l, _ := still(t, Options{Deny: []netip.Prefix{netip.MustParsePrefix("fe80::/10")}})
	if reason, ok := l.forbidden(netip.MustParseAddrPort("[fe80::1%2]:80"), false); !ok || reason != ReasonDenied {
		t.Errorf("%v, %v", reason, ok)
	}
}

// TestOwnAddressesAreKnown: all that the standard library lists, and link-local ones with their
// link.
func TestOwnAddressesAreKnown(t *testing.T) {
	locals, err := localAddrs()
	if err != nil {
		t.Fatal(err)
	}
	interfaces, err := net.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range interfaces {
		addrs, err := i.Addrs()
		if err != nil {
			t.Fatal(err)
		}
		for _, a := range addrs {
			ip, _ := netip.AddrFromSlice(a.(*net.IPNet).IP)
			ip = ip.Unmap()
			if !locals[ip] {
				t.Errorf("%v is not known", ip)
			}
			if ip.Is6() && ip.IsLinkLocalUnicast() && locals[ip.WithZone("9999")] {
				t.Errorf("%v of another link counts as our own", ip)
			}
		}
	}
}

// TestPairThatWaitsForADescriptorHasAConnectTimeout: the wait counts towards ConnectTimeout.
func TestPairThatWaitsForADescriptorHasAConnectTimeout(t *testing.T) {
	l, observer := still(t, Options{ConnectTimeout: 3 * tickLength})
	l.engine.descriptors = 1 // none is low enough
	l.engine.active.Add(1)
	l.adopt(anyFlow(t), someClient, nil, netip.MustParseAddrPort("192.0.2.1:80"))
	for range 3 {
		if l.pairs.used != 1 || l.fdWaiters != 1 {
			t.Fatalf("tick %d: %d pairs, %d wait: %+v", l.tick, l.pairs.used, l.fdWaiters, observer.PairInfo)
		}
		l.tick++
		l.wheel.expire(&l.pairs, l.tick, l.expired)
	}
	if l.pairs.used != 0 || l.fdWaiters != 0 || observer.Reason != ReasonConnectTimeout {
		t.Errorf("%d pairs, %d wait: %+v", l.pairs.used, l.fdWaiters, observer.PairInfo)
	}
}

// TestHugeConnectTimeoutIsNotOverAtOnce: the timer wheel must not take a number of ticks that large
// for the past.
func TestHugeConnectTimeoutIsNotOverAtOnce(t *testing.T) {
	for _, huge := range []time.Duration{1 << 31 * tickLength, math.MaxInt64} {
		l, observer := still(t, Options{ConnectTimeout: huge})
		l.engine.active.Add(1)
		p := l.begin(anyFlow(t), someClient)
		l.armConnect(p)
		for range 3 {
			l.tick++
			l.wheel.expire(&l.pairs, l.tick, l.expired)
		}
		if l.pairs.used != 1 {
			t.Errorf("%v: %+v", huge, observer.PairInfo)
		}
	}
}

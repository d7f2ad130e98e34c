package e2e

import (
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tprelay/tprelay/internal/netlab"
	"github.com/tprelay/tprelay/tproxy"
)

// load is a number of streams at once, all of whose senders are faster than their readers.
type load struct {
	limit   int // of the socket buffers of all three hosts, in bytes
	twoWay  bool
	streams int
	control string // congestion control
}

func (l load) String() string {
	ways := "one-way"
	if l.twoWay {
		ways = "two-way"
	}
	return fmt.Sprintf("%dKiB-%s-%d-%s", l.limit>>10, ways, l.streams, l.control)
}

// loads are all combinations with TPRELAY_E2E_FULL (five minutes), and otherwise some in which
// each value occurs.
func loads(t *testing.T) (ls []load) {
	if os.Getenv("TPRELAY_E2E_FULL") == "" {
		ls = []load{
			{256 << 10, true, 200, "cubic"},
			{64 << 10, true, 200, "bbr"},
			{256 << 10, true, 30, "bbr"},
			{1 << 20, true, 30, "cubic"},
			{6 << 20, false, 200, "cubic"},
			{64 << 10, false, 30, "cubic"},
			{6 << 20, true, 1, "bbr"},
		}
	} else {
		for _, limit := range []int{64 << 10, 256 << 10, 1 << 20, 6 << 20} {
			for _, twoWay := range []bool{false, true} {
				for _, streams := range []int{1, 30, 200} {
					for _, control := range []string{"cubic", "bbr"} {
						ls = append(ls, load{limit, twoWay, streams, control})
					}
				}
			}
		}
	}
	names, err := netlab.Sysctl("net.ipv4.tcp_allowed_congestion_control")
	if err != nil {
		t.Fatal(err)
	}
	return slices.DeleteFunc(ls, func(l load) bool {
		missing := !slices.Contains(strings.Fields(names), l.control)
		if missing {
			t.Logf("%v: this machine does not allow %s", l, l.control)
		}
		return missing
	})
}

// TestEveryDirectionProgresses: of streams whose readers are slower than their senders, each
// direction delivers something in every second. (A receive window that the throttle had made
// smaller than a segment did not open again: its sender waited for its persist timer, which
// traffic in the other direction kept starting anew.)
func TestEveryDirectionProgresses(t *testing.T) {
	for _, l := range loads(t) {
		t.Run(l.String(), func(t *testing.T) { everyDirectionProgresses(t, l) })
	}
}

// flow is one direction of a stream.
type flow struct {
	from, to *net.TCPConn
	bytes    atomic.Int64 // that have arrived
	seen     int64        // of bytes, when it was last looked at
	still    int          // looks since the last byte
}

func everyDirectionProgresses(t *testing.T, load load) {
	const (
		looks    = 35
		lookEach = 100 * time.Millisecond
		// A flow may stand still for so many looks. They are counted and not timed: a machine
		// that is too busy to look is too busy to pass bytes on.
		patient = 10
		// What a reader takes in a second, and all of them together.
		rate, allRates = 1_000_000, 100_000_000
	)
	g := start(t, setup{variant: variant{mode: tproxy.TPROXY}})
	for _, h := range []*netlab.Host{g.H1, g.H2, g.H3} {
		for name, value := range map[string]string{
			"tcp_rmem":               fmt.Sprintf("4096 %d %d", min(128<<10, load.limit), load.limit),
			"tcp_wmem":               fmt.Sprintf("4096 %d %d", 16<<10, load.limit),
			"tcp_congestion_control": load.control,
		} {
			if err := h.SetSysctl("net.ipv4."+name, value); err != nil {
				t.Fatal(err)
			}
		}
	}
	l := g.listen()
	var flows []*flow
	for range load.streams {
		client, server := g.pair(l)
		flows = append(flows, &flow{from: client, to: server})
		if load.twoWay {
			flows = append(flows, &flow{from: server, to: client})
		}
	}
	each := min(rate, allRates/len(flows))
	var ends sync.WaitGroup
	for _, f := range flows {
		ends.Go(f.send)
		ends.Go(func() { f.receive(each) })
	}

	stopped := 0
	for look := range looks {
		time.Sleep(lookEach) // the flows move on meanwhile
		for _, f := range flows {
			if n := f.bytes.Load(); n > f.seen {
				f.seen, f.still = n, 0
			} else if f.still++; f.still == patient {
				if stopped++; stopped <= 3 {
					t.Errorf("from %v to %v: %d bytes, and none in the last %v of %v", local(f.from), local(f.to), f.seen,
						patient*lookEach, time.Duration(look+1)*lookEach)
				}
			}
		}
	}
	total := int64(0)
	for _, f := range flows {
		total += f.seen
	}
	if stopped > 0 {
		t.Errorf("%d times, one of %d flows stood still", stopped, len(flows))
	}
	t.Logf("%d MB in %v, throttled %d times", total/1e6, looks*lookEach, g.Stats().Throttles)
	for _, f := range flows {
		f.from.Close()
		f.to.Close()
	}
	ends.Wait()
}

// send sends as fast as it can until the connection is closed.
func (f *flow) send() {
	data := make([]byte, 64<<10)
	for err := error(nil); err == nil; {
		_, err = f.from.Write(data)
	}
}

// receive takes so many bytes in a second, until the connection is closed.
func (f *flow) receive(rate int) {
	buf := make([]byte, 16<<10)
	for due := time.Now(); ; {
		n, err := f.to.Read(buf)
		f.bytes.Add(int64(n))
		if err != nil {
			return
		}
		if now := time.Now(); due.Before(now) {
			due = now
		}
		due = due.Add(time.Duration(n) * time.Second / time.Duration(rate))
		time.Sleep(time.Until(due)) // keeps the receiver to its rate
	}
}

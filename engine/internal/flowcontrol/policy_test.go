package flowcontrol

import (
	"reflect"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// steady is a sink that delivers 1 MB/s over a least round trip of 20 ms, with more under way than
// that takes and a congestion window that it uses.
func steady() unix.TCPInfo {
	return unix.TCPInfo{
		Snd_mss: 1000, Rtt: 25_000, Min_rtt: 20_000, Snd_cwnd: 25, Snd_ssthresh: 20, Unacked: 25, Snd_wnd: 1 << 20,
		Notsent_bytes: 60_000, Delivery_rate: 1e6,
	}
}

// farSlowStart is a sink in slow start over 100 ms that uses its congestion window.
func farSlowStart() unix.TCPInfo {
	return unix.TCPInfo{
		Snd_mss: 1000, Rtt: 101_000, Min_rtt: 100_000, Snd_cwnd: 40, Snd_ssthresh: 1 << 30, Unacked: 39, Snd_wnd: 1 << 20,
		Notsent_bytes: 1 << 20, Delivery_rate: 400_000,
	}
}

func with(sink unix.TCPInfo, change func(*unix.TCPInfo)) unix.TCPInfo {
	change(&sink)
	return sink
}

// TestQueueIsTold: each part of the sign, at its limit and beyond.
func TestQueueIsTold(t *testing.T) {
	for name, c := range map[string]struct {
		sink    unix.TCPInfo
		pending uint32
		rate    int64
	}{
		"all is under way":                                       {steady(), 0, 0},
		"round trip has grown by 10 ms, bytes wait":              {with(steady(), func(i *unix.TCPInfo) { i.Rtt = 30_000 }), 0, 1e6},
		"a little less":                                          {with(steady(), func(i *unix.TCPInfo) { i.Rtt = 29_999 }), 0, 0},
		"but they take less than 30 ms":                          {with(steady(), func(i *unix.TCPInfo) { i.Rtt, i.Notsent_bytes = 30_000, 29_999 }), 0, 0},
		"with those that are pending":                            {with(steady(), func(i *unix.TCPInfo) { i.Rtt, i.Notsent_bytes = 30_000, 29_999 }), 1, 1e6},
		"the threshold is no slow start":                         {with(farSlowStart(), func(i *unix.TCPInfo) { i.Snd_ssthresh, i.Rtt = 40, 110_000 }), 0, 400_000},
		"nothing waits":                                          {with(steady(), func(i *unix.TCPInfo) { i.Rtt, i.Notsent_bytes = 49_999, 0 }), 0, 0},
		"round trip has doubled and grown by 10 ms":              {with(steady(), func(i *unix.TCPInfo) { i.Rtt, i.Notsent_bytes = 50_000, 0 }), 0, 1e6},
		"less than 3/4 of the window is under way":               {with(steady(), func(i *unix.TCPInfo) { i.Unacked = 18 }), 0, 1e6},
		"3/4 of the window":                                      {with(steady(), func(i *unix.TCPInfo) { i.Snd_cwnd, i.Unacked = 24, 18 }), 0, 0},
		"there is no rate":                                       {with(steady(), func(i *unix.TCPInfo) { i.Rtt, i.Delivery_rate = 90_000, 0 }), 0, 0},
		"flights without more to send: what is under way counts": {appLimited(with(steady(), func(i *unix.TCPInfo) { i.Rtt, i.Delivery_rate = 50_000, 10 })), 0, 500_000},
		"and if the delivery rate is more, that":                 {appLimited(with(steady(), func(i *unix.TCPInfo) { i.Rtt = 50_000 })), 0, 1e6},
		"slow start on a long path":                              {farSlowStart(), 0, 0},
		"its round trip varies by half":                          {with(farSlowStart(), func(i *unix.TCPInfo) { i.Rtt = 159_999 }), 0, 0},
		"and by more":                                            {with(farSlowStart(), func(i *unix.TCPInfo) { i.Rtt = 160_000 }), 0, 400_000},
		"its receive window holds it up":                         {with(farSlowStart(), func(i *unix.TCPInfo) { i.Snd_wnd, i.Unacked = 20_000, 19 }), 0, 0},
		"its receive window is open":                             {with(farSlowStart(), func(i *unix.TCPInfo) { i.Snd_wnd, i.Unacked = 40_000, 19 }), 0, 400_000},
		"slow start on a path of 29 ms": {with(farSlowStart(), func(i *unix.TCPInfo) {
			i.Min_rtt, i.Rtt, i.Snd_wnd, i.Unacked = 29_999, 39_998, 20_000, 19
		}), 0, 400_000},
	} {
		if rate := QueueRate(&c.sink, State{Pending: c.pending}); rate != c.rate {
			t.Errorf("%s: rate %d, want %d", name, rate, c.rate)
		}
	}
}

func appLimited(i unix.TCPInfo) unix.TCPInfo {
	(*[8]byte)(unsafe.Pointer(&i))[7] |= 1 // for which TCPInfo has no field: see sock.AppLimited
	return i
}

// TestAFastSinkHasNothingToHide: one that delivers 4 MiB in 30 ms.
func TestAFastSinkHasNothingToHide(t *testing.T) {
	const limit = 4 << 20 * 1000 / 30
	for _, c := range []struct {
		rate      int64
		throttled bool
		want      Verdict
	}{
		{limit - 100, false, Throttle}, {limit - 100, true, Throttle}, {limit + 100, false, Leave}, {limit + 100, true, Lift},
	} {
		if v := At(c.rate, State{Throttled: c.throttled}); v != c.want {
			t.Errorf("rate %d, throttled %v: %v, want %v", c.rate, c.throttled, v, c.want)
		}
	}
}

// tick is one call of Evaluate: what is seen, and what must follow.
type tick struct {
	change  func(*unix.TCPInfo, *State) // from now on
	verdict Verdict
	forget  bool
}

// TestEvaluate: ticks of 100 ms of a direction whose sink delivers 1 MB/s.
func TestEvaluate(t *testing.T) {
	same := tick{}
	set := func(f func(*unix.TCPInfo, *State)) tick { return tick{change: f} }
	repeat := func(n int, x tick) (ticks []tick) {
		for range n {
			ticks = append(ticks, x)
		}
		return ticks
	}
	join := func(parts ...[]tick) (ticks []tick) {
		for _, p := range parts {
			ticks = append(ticks, p...)
		}
		return ticks
	}
	throttle := tick{verdict: Throttle}
	calm := func(i *unix.TCPInfo, d *State) { d.HasStalled = false }
	for name, c := range map[string]struct {
		begin func(*unix.TCPInfo, uint32) Flow
		sink  unix.TCPInfo
		rate  int64
		state State
		ticks []tick
	}{
		"two ticks with a stall": {AfterStall, steady(), 1e6, State{HasStalled: true}, []tick{same, throttle, throttle}},
		"one, and a pause":       {AfterStall, steady(), 1e6, State{HasStalled: true}, []tick{same, {change: calm, forget: true}}},
		"what waits takes less than 30 ms": {AfterStall, with(steady(), func(i *unix.TCPInfo) { i.Notsent_bytes = 29_000 }), 1e6,
			State{HasStalled: true}, repeat(20, same)},
		"slow start that uses its window": {AfterStall, farSlowStart(), 1e6, State{HasStalled: true}, repeat(20, same)},
		"slow start that does not, at the same rate": {AfterStall, with(farSlowStart(), func(i *unix.TCPInfo) { i.Unacked = 29 }), 1e6,
			State{HasStalled: true}, join(repeat(2, same), []tick{throttle})},
		"slow start with a queue": {AfterStall, with(farSlowStart(), func(i *unix.TCPInfo) { i.Rtt = 160_000 }), 1e6,
			State{HasStalled: true}, []tick{same, throttle}},
		"ten calm ticks lift it": {AfterStall, steady(), 1e6, State{HasStalled: true},
			join(repeat(1, same), repeat(9, throttle), []tick{{change: calm, verdict: Throttle}}, repeat(8, throttle), []tick{{verdict: Lift}, same})},
		"the score has a limit": {AfterStall, steady(), 1e6, State{HasStalled: true},
			join(repeat(1, same), repeat(30, throttle), []tick{{change: calm, verdict: Throttle}}, repeat(8, throttle), []tick{{verdict: Lift}})},
		"after a look, five calm ticks": {AfterThrottle, steady(), 1e6, State{Throttled: true},
			join(repeat(4, throttle), []tick{{verdict: Lift}})},
		"once throttled, a queue is enough": {AfterThrottle, steady(), 1e6, State{Throttled: true}, join(
			repeat(4, throttle), []tick{{verdict: Lift}}, repeat(3, same),
			[]tick{{change: func(i *unix.TCPInfo, d *State) { i.Rtt = 50_000 }, verdict: Throttle}}, repeat(4, throttle), []tick{{verdict: Lift}})},
		"nothing moves for eleven ticks": {AfterStall, steady(), 0, State{Stalled: true, HasStalled: true},
			join(repeat(1, same), repeat(9, throttle), []tick{{forget: true, verdict: Leave}})},
		"nor stalls": {AfterThrottle, steady(), 0, State{Throttled: true, HasStalled: true},
			join(repeat(10, throttle), []tick{{forget: true, verdict: Lift}})},
		"end of the stream": {AfterThrottle, steady(), 1e6, State{Throttled: true, HasStalled: true},
			[]tick{throttle, {change: func(i *unix.TCPInfo, d *State) { d.EOF = true }, forget: true, verdict: Lift}}},
		"end of the stream, stalled": {AfterThrottle, steady(), 1e6, State{Throttled: true, Stalled: true},
			[]tick{throttle, {change: func(i *unix.TCPInfo, d *State) { d.EOF = true }, forget: true}}},
		"too fast": {AfterStall, steady(), 1e9, State{HasStalled: true}, []tick{same, set(func(i *unix.TCPInfo, d *State) { i.Notsent_bytes = 1 << 30 }), same}},
	} {
		t.Run(name, func(t *testing.T) {
			sink, d, now := c.sink, c.state, uint32(1000)
			f := c.begin(&sink, now)
			for i, x := range c.ticks {
				now += tickMillis
				sink.Bytes_acked += uint64(c.rate) / 10
				if x.change != nil {
					x.change(&sink, &d)
				}
				v, observe := f.Evaluate(&sink, d, now)
				if v != x.verdict || observe == x.forget {
					t.Fatalf("tick %d: verdict %d, observed %v; want %d, %v (%+v)", i, v, observe, x.verdict, !x.forget, f)
				}
				switch v {
				case Throttle:
					d.Throttled = true
				case Lift:
					d.Throttled = false
				}
			}
		})
	}
}

// TestRate: the best of the last five, each over 50 ms or half a round trip at least; bytes
// behind a gap count.
func TestRate(t *testing.T) {
	sink := steady()
	f := AfterStall(&sink, 0)
	sample := func(now uint32, bytes uint64) int64 {
		sink.Bytes_acked += bytes
		f.Evaluate(&sink, State{HasStalled: true}, now)
		return f.rate()
	}
	if r := sample(49, 1000); r != 0 {
		t.Errorf("after 49 ms: %d", r)
	}
	if r := sample(50, 1000); r != 40_000 {
		t.Errorf("after 50 ms: %d", r)
	}
	for i := range uint32(4) {
		if r := sample(150+i*100, 0); r != 40_000 {
			t.Errorf("%d ms later: %d", (i+1)*100, r)
		}
	}
	if r := sample(550, 0); r != 0 {
		t.Errorf("half a second later: %d", r)
	}
	sink.Sacked = 5
	if r := sample(650, 0); r != 50_000 {
		t.Errorf("behind a gap: %d", r)
	}
	sink.Min_rtt = 400_000
	if sample(849, 1000); f.since != 650 {
		t.Error("199 ms are less than half a round trip")
	}
	if sample(850, 1000); f.since != 850 {
		t.Error("200 ms are half a round trip")
	}
}

// TestSlack: doubled by each tick with a dry sink, up to 8 times, and halved after a second
// without.
func TestSlack(t *testing.T) {
	sink := with(steady(), func(i *unix.TCPInfo) { i.Notsent_bytes, i.Unacked = 0, 24 })
	f := AfterThrottle(&sink, 0)
	now := uint32(0)
	next := func() uint8 {
		now += 100
		sink.Bytes_acked += 100_000
		f.Evaluate(&sink, State{Throttled: true, HasStalled: true}, now)
		return f.slack
	}
	for i, want := range []uint8{1, 2, 3, 3} {
		if got := next(); got != want {
			t.Errorf("dry tick %d: %d, want %d", i, got, want)
		}
	}
	sink.Unacked = 25 // what 20 and 5 ms take
	for i := range 10 {
		if got := next(); got != 3 {
			t.Errorf("tick %d: %d", i, got)
		}
	}
	if got := next(); got != 2 {
		t.Errorf("after a second: %d", got)
	}
	sink.Unacked, sink.Notsent_bytes = 0, 1
	for range 11 {
		next()
	}
	if f.slack != 1 {
		t.Errorf("a sink with unsent bytes is not dry: %d", f.slack)
	}
}

// TestLimits: what a rate gives.
func TestLimits(t *testing.T) {
	sink := unix.TCPInfo{Snd_mss: 1000}
	far := unix.TCPInfo{Advmss: 1000, Rtt: 40_000, Min_rtt: 2000}
	near := unix.TCPInfo{Advmss: 1000, Rtt: 1000, Min_rtt: 1999}
	for name, c := range map[string]struct {
		rate   int64
		slack  uint8
		source unix.TCPInfo
		tuned  int64
		want   Limits
	}{
		"1 MB/s":               {1e6, 0, far, tuned, Limits{20_000, 50_000 + 10_000 + 8192, 40_000, 100_000, false}},
		"doubled twice":        {1e6, 2, far, tuned, Limits{80_000, 4 * 68_192, 40_000, 100_000, false}},
		"nothing":              {0, 0, far, tuned, Limits{4000, 8192, 0, 0, false}},
		"large segments":       {0, 0, unix.TCPInfo{Advmss: 1000, Rcv_mss: 3000, Min_rtt: 2000}, tuned, Limits{4000, 12_000, 0, 0, false}},
		"near, below the lock": {1_310_720, 3, near, tuned, Limits{209_712, 183_488, 1310, 131_072, false}},
		"near, locked":         {1_310_730, 0, near, tuned, Limits{26_214, 22_936, 1310, 131_073, true}},
		"near, at the ceiling": {5e6, 3, near, tuned, Limits{256 << 10, 192 << 10, 5000, 500_000, true}},
		"near, the next":       {20e6, 3, near, tuned, Limits{512 << 10, 384 << 10, 20_000, 2_000_000, true}},
		"near, no ceiling":     {30e6, 3, near, tuned, Limits{1 << 20, 768 << 10, 30_000, 3_000_000, true}},
		"near, fast":           {100e6, 0, near, tuned, Limits{2_000_000, 1_133_192, 100_000, 10_000_000, true}},
		"near, small tcp_rmem": {5e6, 3, near, 384 << 10, Limits{800_000, 8 * 64_442, 5000, 500_000, false}},
	} {
		if got := LimitsAt(c.rate, c.slack, &sink, &c.source, c.tuned); got != c.want {
			t.Errorf("%s: %+v, want %+v", name, got, c.want)
		}
	}
}

// TestWindow: what is set of the source's socket.
func TestWindow(t *testing.T) {
	source := unix.TCPInfo{Advmss: 1000}
	for name, c := range map[string]struct {
		offered uint32
		buffer  ReceiveBuffer
		limits  Limits
		want    Setting
	}{
		"as large as it should be":       {0, ReceiveBuffer{Size: 40_000, Most: 1e6}, Limits{Window: 20_000}, Setting{0, false, 20_000}},
		"a quarter larger is left":       {0, ReceiveBuffer{Size: 50_000, Most: 1e6}, Limits{Window: 20_000}, Setting{0, false, 20_000}},
		"larger":                         {0, ReceiveBuffer{Size: 50_002, Most: 1e6}, Limits{Window: 20_000}, Setting{20_000, false, 20_000}},
		"smaller":                        {0, ReceiveBuffer{Size: 30_000, Most: 1e6}, Limits{Window: 20_000}, Setting{20_000, false, 20_000}},
		"more than may be set":           {0, ReceiveBuffer{Size: 30_000, Most: 19_999}, Limits{Window: 20_000}, Setting{0, false, 20_000}},
		"locked":                         {15_000, ReceiveBuffer{Used: 10_000, Size: 40_000, Unread: 10_000, Most: 1e6}, Limits{Window: 20_000, Lock: true}, Setting{20_000, true, 20_000}},
		"what is offered may not fit":    {15_001, ReceiveBuffer{Used: 10_000, Size: 40_000, Unread: 9_999, Most: 1e6}, Limits{Window: 20_000, Lock: true}, Setting{0, false, 20_000}},
		"too much: shrinks with it":      {20_000, ReceiveBuffer{Used: 60_000, Size: 200_000, Unread: 40_000, Most: 1e6}, Limits{Window: 20_000}, Setting{46_875, false, 5000}},
		"less what drains":               {20_000, ReceiveBuffer{Used: 60_000, Size: 200_000, Unread: 40_000, Most: 1e6}, Limits{Window: 20_000, Drained: 10_000}, Setting{39_375, false, 5000}},
		"which is what is there at most": {20_000, ReceiveBuffer{Used: 60_000, Size: 200_000, Unread: 40_000, Most: 1e6}, Limits{Window: 20_000, Drained: 90_000}, Setting{20_000, false, 5000}},
		"never larger than it is":        {90_000, ReceiveBuffer{Used: 60_000, Size: 90_000, Unread: 40_000, Most: 1e6}, Limits{Window: 20_000}, Setting{0, false, 5000}},
		"nor than may be set":            {20_000, ReceiveBuffer{Used: 60_000, Size: 200_000, Unread: 40_000, Most: 30_000}, Limits{Window: 20_000}, Setting{30_000, false, 5000}},
		"overhead is two times at most":  {20_000, ReceiveBuffer{Used: 200_000, Size: 400_000, Unread: 40_000, Most: 1e6}, Limits{Window: 20_000}, Setting{122_500, false, 5000}},
		"the clamp is two segments":      {20_000, ReceiveBuffer{Used: 60_000, Size: 200_000, Unread: 40_000, Most: 1e6}, Limits{Window: 6000}, Setting{46_875, false, 2000}},
		"ten segments under way":         {20_000, ReceiveBuffer{Used: 60_000, Size: 200_000, Unread: 40_000, Most: 1e6}, Limits{Window: 20_000, UnderWay: 10_000, Drained: 10_000}, Setting{39_375, false, 5000}},
		"more: slowed down, not stopped": {20_000, ReceiveBuffer{Used: 60_000, Size: 200_000, Unread: 40_000, Most: 1e6}, Limits{Window: 20_000, UnderWay: 30_000, Drained: 10_000}, Setting{46_875, false, 15_000}},
		"and more is on its way":         {10_000, ReceiveBuffer{Used: 60_000, Size: 200_000, Unread: 40_000, Most: 1e6}, Limits{Window: 20_000, UnderWay: 60_000}, Setting{55_312, false, 30_000}},
	} {
		source.Rcv_wnd = c.offered
		if got := Window(&source, c.buffer, c.limits); got != c.want {
			t.Errorf("%s: %+v, want %+v", name, got, c.want)
		}
	}
}

// TestTunedWindow: as large as the kernel's tuning had made it, and no smaller than it is.
func TestTunedWindow(t *testing.T) {
	source := unix.TCPInfo{Advmss: 1000, Rcv_space: 100_000}
	for _, c := range []struct{ size, most, want int64 }{
		{100_000, 1e6, 216_000}, {431_999, 1e6, 216_000}, {432_000, 1e6, 0}, {100_000, 90_000, 90_000},
	} {
		if got := TunedWindow(&source, ReceiveBuffer{Size: c.size, Most: c.most}); got != c.want {
			t.Errorf("%+v: %d", c, got)
		}
	}
}

// TestMeter: the level of a direction that moves so many bytes in each tick of 100 ms.
func TestMeter(t *testing.T) {
	type step struct {
		bytes  uint64
		minRTT uint32
		state  State
		times  int
		level  Level
		apply  bool // at the last time
		over   bool // and it is not measured any more
	}
	const level0, level1 = 1_310_000, 2_621_000 // 128 and 256 KiB in 10 ms
	for name, steps := range map[string][]step{
		"a little for a second":               {{bytes: 1000, times: 9}, {bytes: 1000, times: 1, over: true}},
		"as much as fits":                     {{bytes: level0, times: 9}, {bytes: level0, times: 1, over: true}},
		"more, three times":                   {{bytes: level1, times: 1}, {bytes: level1, times: 1, level: 1, apply: true}, {bytes: level1, times: 20, level: 1}},
		"a burst":                             {{bytes: 3 * level0, times: 1}, {times: 8}, {times: 1, over: true}},
		"a larger one":                        {{bytes: 3*level0 + 6000, times: 1, level: 1, apply: true}, {times: 2, level: 1}, {times: 9, level: 1}, {times: 1, apply: true}},
		"much":                                {{bytes: 3 * level1, times: 1, level: 1, apply: true}, {bytes: 3 * level1, times: 1, level: 2, apply: true}},
		"much, but the sink is at fault":      {{bytes: 9 * level1, times: 20, state: State{Stalled: true}}},
		"what the round trip takes counts":    {{bytes: level0 / 2, minRTT: 8000, times: 3}, {bytes: level0, minRTT: 8000, times: 1, level: 1, apply: true}},
		"and alone, more than the lowest has": {{bytes: level0 / 2, minRTT: 16_200, times: 1, level: 2, apply: true}},
		"moderated":                           {{bytes: 1000, times: 1, state: State{Moderated: true}, level: 2}, {bytes: 1000, times: 9, level: 2}, {bytes: 1000, times: 1, apply: true}},
		"throttled":                           {{bytes: 9 * level1, times: 1, level: 2, apply: true}, {bytes: 9 * level1, times: 1, state: State{Throttled: true}}},
	} {
		t.Run(name, func(t *testing.T) {
			m := NewMeter(0, 0)
			var now uint32
			var delivered uint64
			for i, s := range steps {
				for n := range s.times {
					now += 100
					delivered += s.bytes
					apply, observe := m.Measure(&unix.TCPInfo{Min_rtt: s.minRTT}, s.state, delivered, now)
					last := n == s.times-1
					if m.Level() != s.level || apply != (s.apply && last) || observe == (s.over && last) {
						t.Fatalf("step %d.%d: level %d, apply %v, observe %v; want %+v (%+v)", i, n, m.Level(), apply, observe, s, m)
					}
				}
			}
		})
	}
}

// TestLevelThatIsNotInForceIsAppliedAgain: but not while the direction is throttled.
func TestLevelThatIsNotInForceIsAppliedAgain(t *testing.T) {
	m := NewMeter(0, 0)
	m.Applied(false)
	if m.Due(49) || !m.Due(50) || m.Moved(0) || !m.Moved(1) {
		t.Errorf("due after 49 ms %v, after 50 %v", m.Due(49), m.Due(50))
	}
	if apply, _ := m.Measure(nil, State{Throttled: true}, 0, 100); apply {
		t.Error("while throttled")
	}
	if apply, _ := m.Measure(nil, State{}, 0, 200); !apply {
		t.Error("not after that")
	}
	m.Applied(true)
	if apply, _ := m.Measure(nil, State{}, 0, 300); apply {
		t.Error("although it is in force")
	}
}

// TestCeiling: the receive buffer shrinks no further than what is used and offered.
func TestCeiling(t *testing.T) {
	for name, c := range map[string]struct {
		level         Level
		offered       uint32
		used, size    int64
		buffer, clamp int64
	}{
		"fits":                {0, 150_000, 193_216, 1e6, 393_216, 0},
		"does not":            {0, 150_000, 193_217, 1e6, 393_217, 196_608},
		"fits the next":       {1, 150_000, 193_217, 1e6, 786_432, 0},
		"full, and none more": {0, 0, 500_000, 500_000, 393_216, 0},
		"not full":            {0, 0, 499_999, 500_000, 499_999, 196_608},
	} {
		source := unix.TCPInfo{Rcv_wnd: c.offered}
		if buffer, clamp := Ceiling(c.level, &source, ReceiveBuffer{Used: c.used, Size: c.size}); buffer != c.buffer || clamp != c.clamp {
			t.Errorf("%s: %d, %d, want %d, %d", name, buffer, clamp, c.buffer, c.clamp)
		}
	}
	if u := []int64{Level(0).Unsent(), Level(1).Unsent(), NoCeiling.Unsent()}; !reflect.DeepEqual(u, []int64{256 << 10, 512 << 10, 0}) {
		t.Errorf("unsent %v", u)
	}
	if !Early(96<<10-1) || Early(96<<10) {
		t.Error("early ends at 96 KiB")
	}
}

// TestFlowsHaveNoPointers: the garbage collector never looks at them.
func TestFlowsHaveNoPointers(t *testing.T) {
	for _, typ := range []reflect.Type{reflect.TypeFor[Flow](), reflect.TypeFor[Meter]()} {
		for i := range typ.NumField() {
			switch k := typ.Field(i).Type.Kind(); k {
			case reflect.Pointer, reflect.Slice, reflect.String, reflect.Map, reflect.Func, reflect.Chan, reflect.Interface:
				t.Errorf("%v.%s is a %v", typ, typ.Field(i).Name, k)
			}
		}
	}
}

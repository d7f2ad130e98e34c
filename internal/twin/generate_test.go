package twin

import (
	"math"
	"math/rand/v2"
	"testing"
	"time"
)

const (
	kib = 1 << 10
	mib = 1 << 20
)

func drawBytes(r *rand.Rand, least, most float64) int64 {
	return whole(int64(least * math.Pow(most/least, r.Float64())))
}

func drawTime(r *rand.Rand, least, most time.Duration) time.Duration {
	return (least + time.Duration(r.Int64N(int64(most-least)))).Round(10 * time.Millisecond)
}

func oneIn(r *rand.Rand, n int) bool { return r.IntN(n) == 0 }

func sending(n int64) step         { return step{verb: send, n: n} }
func reading(n, rate int64) step   { return step{verb: read, n: n, rate: rate} }
func draining(rate int64) step     { return step{verb: drain, rate: rate} }
func waiting(d time.Duration) step { return step{verb: wait, wait: d} }
func awaiting(n int64) step        { return step{verb: await, n: n} }
func does(verb string) step        { return step{verb: verb} }

func drawOptions(r *rand.Rand) (o options) {
	if oneIn(r, 5) {
		o.RcvBuf = []int{4 * kib, 16 * kib, 100 * kib, 500 * kib}[r.IntN(4)]
	}
	if oneIn(r, 5) {
		o.SndBuf = []int{8 * kib, 64 * kib, 1 * mib}[r.IntN(3)]
	}
	if oneIn(r, 5) {
		o.MSS = []int{256, 536, 1000, 1300}[r.IntN(4)]
	}
	o.NoDelay = oneIn(r, 3)
	if oneIn(r, 20) {
		o.Linger = 1 + r.IntN(3)
	}
	return o
}

// mirrored has the ends change places, or not.
func mirrored(r *rand.Rand, s script) script {
	if oneIn(r, 2) {
		s.Client, s.Server = s.Server, s.Client
	}
	return s
}

// kinds are the scripts of every day. Weights are by repetition.
var kinds = []struct {
	name string
	draw func(*rand.Rand) script
}{
	{"free", drawFree}, {"free", drawFree}, {"free", drawFree}, {"free", drawFree},
	{"exchange", func(r *rand.Rand) script {
		n := func() int64 { return drawBytes(r, 1, 2*mib) }
		p := func() part { return part{Write: []step{sending(n()), does(fin)}, Read: []step{draining(0)}} }
		return script{Client: p(), Server: p()}
	}},
	{"requests", drawRequests},
	{"one way out", func(r *rand.Rand) script { // half-close, and a tail
		return mirrored(r, script{
			Client: part{Write: []step{sending(drawBytes(r, 1, 300*kib)), does(fin)}, Read: []step{draining(0)}},
			Server: part{Write: []step{waiting(drawTime(r, 300*time.Millisecond, 2*time.Second)), sending(drawBytes(r, 1, mib)), does(fin)},
				Read: []step{draining(0)}},
		})
	}},
	{"slow reader", func(r *rand.Rand) script {
		n := drawBytes(r, 10*kib, mib)
		return mirrored(r, script{
			Client: part{Write: []step{sending(n), does(fin)}, Read: []step{draining(0)}},
			Server: part{Write: []step{does(fin)}, Read: []step{draining(max(n/3, 1000))}},
		})
	}},
	{"pausing reader", func(r *rand.Rand) script {
		n := drawBytes(r, 10*kib, 3*mib)
		return mirrored(r, script{
			Client: part{Write: []step{sending(n), does(fin)}, Read: []step{draining(0)}},
			Server: part{Read: []step{reading(n/3, 0), waiting(drawTime(r, time.Second, 3*time.Second)), draining(0)}},
		})
	}},
	{"sender resets", func(r *rand.Rand) script {
		return mirrored(r, script{
			Client: part{Write: []step{sending(drawBytes(r, 1, 4*mib)), waiting(drawTime(r, 0, time.Second)), does(resets)}, Read: []step{draining(0)}},
			Server: part{Write: []step{sending(drawBytes(r, 1, 100*kib))}, Read: []step{draining(mib)}},
		})
	}},
	{"reader resets", func(r *rand.Rand) script {
		n := drawBytes(r, 1, 4*mib)
		return mirrored(r, script{
			Client: part{Write: []step{sending(n), does(fin)}, Read: []step{draining(0)}},
			Server: part{Write: []step{sending(drawBytes(r, 1, 50*kib))}, Read: []step{reading(whole(n/2)+1, 0), does(resets)}},
		})
	}},
	{"close without reading", func(r *rand.Rand) script {
		return mirrored(r, script{
			Client: part{Write: []step{sending(drawBytes(r, 1, mib))}, Read: []step{draining(0)}},
			Server: part{Write: []step{sending(drawBytes(r, 1, 50*kib))}, Read: []step{waiting(time.Second), does(closes)}},
		})
	}},
	{"writes to a closed end", func(r *rand.Rand) script {
		late := []step{waiting(600 * time.Millisecond)}
		for range 3 {
			late = append(late, sending(drawBytes(r, 1, 50*kib)), waiting(400*time.Millisecond))
		}
		return mirrored(r, script{
			Client: part{Write: []step{sending(drawBytes(r, 1, 50*kib)), does(closes)}, Read: []step{draining(0)}},
			Server: part{Write: late, Read: []step{draining(0)}},
		})
	}},
	{"stops listening", func(r *rand.Rand) script {
		return mirrored(r, script{
			Client: part{Write: []step{waiting(500 * time.Millisecond), sending(drawBytes(r, 1, 10*kib)), does(fin)}, Read: []step{draining(0)}},
			Server: part{Write: []step{waiting(time.Second), sending(drawBytes(r, 1, 10*kib)), does(fin)}, Read: []step{does(shutrd)}},
		})
	}},
	{"urgent", func(r *rand.Rand) script {
		var w []step
		total := int64(0)
		for range 1 + r.IntN(10) {
			n := whole(total+drawBytes(r, 1, 50*kib)) - total
			w = append(w, sending(n), does(urgent))
			total += n + 1
			if n := whole(total); n > total {
				w = append(w, sending(n-total))
				total = n
			}
		}
		return mirrored(r, script{
			Client: part{Write: append(w, does(fin)), Read: []step{draining(0)}},
			Server: part{Write: []step{does(fin)}, Read: []step{draining(0)}},
		})
	}},
	{"nobody listens", func(r *rand.Rand) script {
		return script{Absent: refused, Client: part{Write: []step{sending(10), does(fin)}, Read: []step{draining(0)}}, Server: idle()}
	}},
	{"nobody accepts", func(r *rand.Rand) script {
		return script{Absent: deaf, Client: part{Write: []step{sending(drawBytes(r, 1, 10*kib))}, Read: []step{draining(0)}}, Server: idle()}
	}},
	{"same port again", func(r *rand.Rand) script {
		return script{
			Again:  true,
			Client: part{Write: []step{sending(drawBytes(r, 1, 10*kib))}, Read: []step{draining(0)}},
			Server: part{Write: []step{sending(drawBytes(r, 1, 10*kib)), does(fin)}, Read: []step{draining(0)}},
		}
	}},
	{"same port after a reset", func(r *rand.Rand) script {
		n := drawBytes(r, 1, 10*kib)
		return script{
			Again:  true,
			Client: part{Read: []step{reading(n, 0), waiting(300 * time.Millisecond), does(resets)}},
			Server: part{Write: []step{sending(n)}, Read: []step{draining(0)}},
		}
	}},
	{"idle", func(r *rand.Rand) script {
		return mirrored(r, script{
			Client: part{Write: []step{waiting(drawTime(r, 0, 2*time.Second)), does(closes)}, Read: []step{draining(0)}},
			Server: part{Read: []step{draining(0)}},
		})
	}},
	{"comes and goes", func(r *rand.Rand) script {
		verb := []string{closes, resets}[r.IntN(2)]
		return script{Client: part{Write: []step{sending(int64(r.IntN(2000)) + 1)}, Read: []step{waiting(drawTime(r, 0, 50*time.Millisecond)), does(verb)}}, Server: idle()}
	}},
	{"half a match", drawHalf},
}

func idle() part { return part{Read: []step{draining(0)}} }

// drawAny draws any script of every day, with any options.
func drawAny(r *rand.Rand) script {
	k := kinds[r.IntN(len(kinds))]
	s := k.draw(r)
	s.Kind = k.name
	s.Client.Options, s.Server.Options = drawOptions(r), drawOptions(r)
	if oneIn(r, 10) {
		s.Late = duration(drawTime(r, 0, time.Second))
	}
	return s
}

// drawWhole draws a script of every day in which both ends get all.
func drawWhole(r *rand.Rand) script {
	for {
		switch s := drawAny(r); s.Kind {
		case "exchange", "requests", "one way out", "slow reader", "pausing reader", "urgent":
			return s
		}
	}
}

// drawFree draws steps without a plan.
func drawFree(r *rand.Rand) (s script) {
	p := func() (p part) {
		total := int64(0)
		for range r.IntN(5) {
			switch r.IntN(4) {
			case 0:
				p.Write = append(p.Write, waiting(drawTime(r, 0, 1500*time.Millisecond)))
			default:
				n := whole(total+drawBytes(r, 1, mib)) - total
				p.Write = append(p.Write, sending(n))
				total += n
			}
		}
		if verb := []string{fin, fin, fin, "", "", closes, resets}[r.IntN(7)]; verb != "" {
			p.Write = append(p.Write, does(verb))
		}
		for range r.IntN(4) {
			switch r.IntN(3) {
			case 0:
				p.Read = append(p.Read, waiting(drawTime(r, 0, 1500*time.Millisecond)))
			case 1:
				p.Read = append(p.Read, reading(drawBytes(r, 1, 500*kib), 0))
			case 2:
				n := drawBytes(r, 1, 500*kib)
				p.Read = append(p.Read, reading(n, max(n/2, 1000)))
			}
		}
		p.Read = append(p.Read, does([]string{drain, drain, drain, drain, drain, closes, resets}[r.IntN(7)]))
		return p
	}
	s.Client, s.Server = p(), p()
	if !s.valid() {
		s.Client.Write = append(s.Client.Write, does(fin))
	}
	return s
}

// drawRequests: the ends take turns.
func drawRequests(r *rand.Rand) (s script) {
	asked, answered := int64(0), int64(0)
	most := []float64{1.5, 1000, 100 * kib}[r.IntN(3)]
	for range 1 + r.IntN(20) {
		n := whole(asked+drawBytes(r, 1, most)) - asked
		s.Client.Write = append(s.Client.Write, sending(n))
		asked += n
		s.Server.Write = append(s.Server.Write, awaiting(asked))
		n = whole(answered+drawBytes(r, 1, most)) - answered
		s.Server.Write = append(s.Server.Write, sending(n))
		answered += n
		s.Client.Write = append(s.Client.Write, awaiting(answered))
		if oneIn(r, 5) {
			s.Client.Write = append(s.Client.Write, waiting(drawTime(r, 0, 500*time.Millisecond)))
		}
	}
	s.Client.Write = append(s.Client.Write, does([]string{fin, closes}[r.IntN(2)]))
	s.Client.Read, s.Server.Read = []step{draining(0)}, []step{draining(0)}
	return s
}

// drawHalf: the last bytes of a direction are the first ones of what the handler replaces, and it
// holds them back.
func drawHalf(r *rand.Rand) script {
	verb := []string{fin, closes, resets, resets}[r.IntN(4)]
	return mirrored(r, script{
		Client: part{Write: []step{sending(half(drawBytes(r, 1, 500*kib))), waiting(500 * time.Millisecond), does(verb)}, Read: []step{draining(0)}},
		Server: part{Read: []step{draining(0)}},
	})
}

// drawPausing: a sender finishes, and the reader pauses for longer than the half-close timeout,
// with more in front of it than its kernel takes, and goes on.
func drawPausing(r *rand.Rand) script {
	n := drawBytes(r, 300*kib, 3*mib)
	rest := drawTime(r, 3500*time.Millisecond, 6*time.Second)
	s := mirrored(r, script{
		Kind:   "pausing reader",
		Client: part{Write: []step{sending(n), does([]string{fin, closes}[r.IntN(2)])}, Read: []step{draining(0)}},
		Server: part{Write: []step{does(fin)}, Read: []step{reading(n/20, 0), waiting(rest), draining(0)}},
	})
	if oneIn(r, 3) { // the writer follows
		s = mirrored(r, script{
			Kind:   "slow reader",
			Client: part{Write: []step{sending(n), does(fin)}, Read: []step{draining(0)}},
			Server: part{Write: []step{does(fin)}, Read: []step{reading(n/2, n/12), draining(0)}},
		})
	}
	s.Client.Options.RcvBuf, s.Server.Options.RcvBuf = 32*kib, 32*kib
	return s
}

// drawSteady: a reader never stops, but takes what waits for it for longer than the idle timeout.
func drawSteady(r *rand.Rand) script {
	n := drawBytes(r, 200*kib, mib)
	ending := []string{fin, fin, closes}[r.IntN(3)]
	s := mirrored(r, script{
		Kind:   "steady reader",
		Client: part{Write: []step{sending(n), does(ending)}, Read: []step{draining(0)}},
		Server: part{Write: []step{does(fin)}, Read: []step{draining(n / 8)}},
	})
	if oneIn(r, 3) { // nobody has finished yet: the idle timeout alone
		s = mirrored(r, script{
			Kind:   "steady reader, open end",
			Client: part{Write: []step{sending(n), awaiting(1), does(fin)}, Read: []step{draining(0)}},
			Server: part{Write: []step{awaiting(n), sending(1), does(fin)}, Read: []step{draining(n / 8)}},
		})
	}
	s.Client.Options.RcvBuf, s.Server.Options.RcvBuf = 16*kib, 16*kib
	return s
}

// drawResets: a sender gives all that the way takes, and resets. The reader is slow and steady, and
// then fast, for the test's sake.
func drawResets(r *rand.Rand) script {
	if oneIn(r, 4) {
		s := drawHalf(r)
		s.Kind = "half a match"
		return s
	}
	rate := drawBytes(r, 20*kib, 200*kib)
	return mirrored(r, script{
		Kind:   "sender resets, slow reader",
		Client: part{Write: []step{sending(drawBytes(r, mib, 6*mib)), waiting(drawTime(r, 0, time.Second)), does(resets)}, Read: []step{draining(0)}},
		Server: part{Read: []step{reading(rate*12, rate), draining(0)}, Options: options{RcvBuf: []int{0, 16 * kib, 64 * kib}[r.IntN(3)]}},
	})
}

// drawTwoWays: both ends send for some seconds, faster than the other end reads. Some readers
// pause. Rates are such that two cores can pass the bytes of a crowd on, and that no
// acknowledgement lets the next one wait for long.
func drawTwoWays(r *rand.Rand) script {
	const seconds = 8
	up, down := drawBytes(r, 150*kib, 500*kib), drawBytes(r, 150*kib, 500*kib)
	reader := func(rate int64) (steps []step) {
		if oneIn(r, 3) {
			steps = append(steps, reading(rate*(1+r.Int64N(seconds/2)), rate), waiting(drawTime(r, 300*time.Millisecond, 1500*time.Millisecond)))
		}
		return append(steps, draining(rate))
	}
	return script{
		Kind:   "both ways",
		Client: part{Write: []step{sending(whole(seconds * up)), does(fin)}, Read: reader(down)},
		Server: part{Write: []step{sending(whole(seconds * down)), does(fin)}, Read: reader(up)},
	}
}

func TestScriptsThatAreDrawnAreValid(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for name, p := range profiles {
		for range 2000 {
			s := p.draw(r)
			if !s.valid() {
				t.Fatalf("%s: %+v", name, s)
			}
			if s.lasts() > 40*time.Second {
				t.Fatalf("%s: %v: %+v", name, s.lasts(), s)
			}
		}
	}
}

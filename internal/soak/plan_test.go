package soak

import (
	"math"
	"math/rand/v2"
	"time"

	"github.com/tprelay/tprelay/tproxy"
)

// target is whom a client wants to reach.
type target int

const (
	toServer      target = iota
	toClosedPort         // the server's host refuses
	toSilentPort         // it does not answer
	toAbsent             // nobody has that address
	toUnreachable        // there is no route
	toRelay              // the relay's own listener
)

// script is what the ends of a stream do. A client or server that ends with nil has
// seen all that it must.
type script struct {
	to             target
	client, server func(*end) error

	resets   bool // ends with an RST, if all is well
	silent   bool // the client sends nothing, not even a header
	hasty    bool // the client gives up within milliseconds
	samePort bool // from the worker's own port
}

// plan is a kind of stream.
type plan struct {
	name   string
	weight int
	// diverted: only where clients name the destination.
	diverted bool
	draw     func(*rand.Rand, *life) script
}

func plans() []plan {
	return []plan{
		{"bulk up", 8, false, func(r *rand.Rand, l *life) script { return bulk(size(r, l), int64(r.IntN(1000))) }},
		{"bulk down", 8, false, func(r *rand.Rand, l *life) script { return bulk(int64(r.IntN(1000)), size(r, l)) }},
		{"bulk both ways", 6, false, func(r *rand.Rand, l *life) script { return bulk(size(r, l), size(r, l)) }},
		{"requests", 14, false, func(r *rand.Rand, _ *life) script {
			return requests(messages(r, 1+r.IntN(200), 4000), messages(r, 200, 20000), 0)
		}},
		{"one byte ping-pong", 8, false, func(r *rand.Rand, _ *life) script { return pingPong(1 + r.IntN(1000)) }},
		{"client's FIN first", 6, false, func(r *rand.Rand, l *life) script { return clientFirst(size(r, l)/4, shortly(r)) }},
		{"server's FIN first", 6, false, func(r *rand.Rand, l *life) script { return serverFirst(size(r, l)/4, shortly(r)) }},
		{"idle, then requests", 5, false, func(r *rand.Rand, l *life) script {
			return requests(messages(r, 5, 4000), messages(r, 5, 20000), seconds(r, l, 6))
		}},
		{"slow reader", 4, false, func(r *rand.Rand, l *life) script { return slowReader(r, size(r, l)/4) }},
		{"reader that stops", 4, false, func(r *rand.Rand, l *life) script {
			return stopsReading(r, size(r, l), seconds(r, l, 4))
		}},
		{"RST by the client", 6, false, func(r *rand.Rand, l *life) script { return resetBy(r, size(r, l), true) }},
		{"RST by the server", 6, false, func(r *rand.Rand, l *life) script { return resetBy(r, size(r, l), false) }},
		{"urgent bytes", 4, false, func(r *rand.Rand, _ *life) script { return urgent(messages(r, 30, 50000)) }},
		{"same port again", 6, false, func(r *rand.Rand, _ *life) script { return samePort(messages(r, 2, 4000)) }},
		{"connects, never sends", 4, false, func(r *rand.Rand, l *life) script { return neverSends(seconds(r, l, 6)) }},
		{"connects, closes at once", 5, false, func(r *rand.Rand, _ *life) script { return closesAtOnce(r.IntN(2) == 0) }},
		{"gives up while connecting", 4, false, func(r *rand.Rand, _ *life) script { return givesUp(r, toServer) }},
		{"gives up on a silent server", 3, true, func(r *rand.Rand, _ *life) script { return givesUp(r, toSilentPort) }},
		{"closed port", 4, true, refusal(toClosedPort)},
		{"silent port", 1, true, refusal(toSilentPort)},
		{"absent host", 1, true, refusal(toAbsent)},
		{"unreachable net", 3, true, refusal(toUnreachable)},
		{"relay itself", 3, true, refusal(toRelay)},
	}
}

// drawPlan draws a kind of stream that the relay can serve.
func drawPlan(r *rand.Rand, l *life) plan {
	all := plans()
	total := 0
	for _, p := range all {
		if !p.diverted || l.mode != tproxy.Forward {
			total += p.weight
		}
	}
	n := r.IntN(total)
	for _, p := range all {
		if p.diverted && l.mode == tproxy.Forward {
			continue
		}
		if n -= p.weight; n < 0 {
			return p
		}
	}
	return all[0]
}

// size is an amount of bulk: 100 KiB to the life's most, small ones as often as big ones.
func size(r *rand.Rand, l *life) int64 {
	const least = 100 << 10
	return int64(least * math.Pow(float64(l.bulk)/least, r.Float64()))
}

// messages are up to n sizes of messages.
func messages(r *rand.Rand, n, most int) []int64 {
	sizes := make([]int64, n)
	for i := range sizes {
		sizes[i] = 1 + int64(r.IntN(1+r.IntN(most)))
	}
	return sizes
}

func shortly(r *rand.Rand) time.Duration { return time.Duration(r.IntN(300)) * time.Millisecond }

// seconds are up to n seconds, fewer in a short run.
func seconds(r *rand.Rand, l *life, n int) time.Duration {
	return time.Duration(r.Int64N(int64(min(time.Duration(n)*time.Second, l.patience))))
}

func sending(e *end, n int64) func() error   { return func() error { return e.send(n) } }
func receiving(e *end, n int64) func() error { return func() error { return e.receive(n) } }
func resting(e *end, d time.Duration) func() error {
	return func() error { return e.rest(d) }
}

// exchange sends so many bytes and a FIN, and receives so many and a FIN, at once.
func exchange(e *end, out, in int64) error {
	return e.both(
		func() error { return firstOf(sending(e, out), e.finish) },
		func() error { return firstOf(receiving(e, in), e.receiveEnd) })
}

func bulk(up, down int64) script {
	return script{
		client: func(e *end) error { return exchange(e, up, down) },
		server: func(e *end) error { return exchange(e, down, up) },
	}
}

func requests(asked, answered []int64, idle time.Duration) script {
	return script{
		client: func(e *end) error {
			if err := e.rest(idle); err != nil {
				return err
			}
			for i, n := range asked {
				if err := firstOf(sending(e, n), receiving(e, answered[i])); err != nil {
					return err
				}
			}
			return firstOf(e.finish, e.receiveEnd)
		},
		server: func(e *end) error {
			for i, n := range asked {
				if err := firstOf(receiving(e, n), sending(e, answered[i])); err != nil {
					return err
				}
			}
			return firstOf(e.receiveEnd, e.finish)
		},
	}
}

func pingPong(n int) script {
	ones := make([]int64, n)
	for i := range ones {
		ones[i] = 1
	}
	return requests(ones, ones, 0)
}

func clientFirst(tail int64, wait time.Duration) script {
	return script{
		client: func(e *end) error { return firstOf(e.finish, receiving(e, tail), e.receiveEnd) },
		server: func(e *end) error { return firstOf(e.receiveEnd, resting(e, wait), sending(e, tail), e.finish) },
	}
}

func serverFirst(tail int64, wait time.Duration) script {
	return script{
		client: func(e *end) error { return firstOf(e.receiveEnd, resting(e, wait), sending(e, tail), e.finish) },
		server: func(e *end) error { return firstOf(e.finish, receiving(e, tail), e.receiveEnd) },
	}
}

// flow is n bytes one way: upstream, or downstream. receive is how the receiver reads.
func flow(up bool, n int64, receive func(*end) error) script {
	sender := func(e *end) error { return firstOf(sending(e, n), e.finish, e.receiveEnd) }
	receiver := func(e *end) error { return firstOf(func() error { return receive(e) }, e.receiveEnd, e.finish) }
	if up {
		return script{client: sender, server: receiver}
	}
	return script{client: receiver, server: sender}
}

func slowReader(r *rand.Rand, n int64) script {
	const rests = 30
	wait := 10*time.Millisecond + shortly(r)/3
	return flow(r.IntN(2) == 0, n, func(e *end) error {
		for i := range int64(rests) {
			if err := firstOf(resting(e, wait), func() error { return e.receiveUpTo(n * (i + 1) / rests) }); err != nil {
				return err
			}
		}
		return nil
	})
}

func stopsReading(r *rand.Rand, n int64, wait time.Duration) script {
	return flow(r.IntN(2) == 0, n, func(e *end) error {
		return firstOf(receiving(e, n/3), resting(e, wait), func() error { return e.receiveUpTo(n) })
	})
}

// resetBy: one end resets the connection while bytes are on their way, both ways
// or one. The other gets some of them, and an RST; never a FIN.
func resetBy(r *rand.Rand, n int64, client bool) script {
	at := r.Int64N(n)
	back := n * int64(r.IntN(2))
	first := func(e *end) error {
		err := e.both(
			func() error { return firstOf(sending(e, at), e.reset) },
			func() error {
				err := e.receive(back)
				if err == nil {
					return e.receiveEnd() // until the other goroutine's reset
				}
				return err
			})
		if isBad(err) {
			return err
		}
		return nil
	}
	second := func(e *end) error {
		return e.both(
			func() error { return e.send(back) },
			func() error { return firstOf(receiving(e, n), e.receiveEnd) })
	}
	s := script{client: second, server: first, resets: true}
	if client {
		s.client, s.server = first, second
	}
	return s
}

func urgent(pieces []int64) script {
	var total int64
	for _, n := range pieces {
		total = whole(total+n) + 1
	}
	total = whole(total + 1)
	return script{
		client: func(e *end) error {
			for _, n := range pieces {
				if err := firstOf(sending(e, n), e.sendUrgent); err != nil {
					return err
				}
			}
			return firstOf(sending(e, 1), e.finish, e.receiveEnd)
		},
		server: func(e *end) error {
			return firstOf(func() error { return e.receiveUpTo(total) }, e.receiveEnd, e.finish)
		},
	}
}

// samePort: the relay's connection to the client is in TIME_WAIT when the client comes
// again, for the server's FIN comes first.
func samePort(sizes []int64) script {
	return script{
		samePort: true,
		client: func(e *end) error {
			return firstOf(sending(e, sizes[0]), receiving(e, sizes[1]), e.receiveEnd, e.finish)
		},
		server: func(e *end) error {
			return firstOf(receiving(e, sizes[0]), sending(e, sizes[1]), e.finish, e.receiveEnd)
		},
	}
}

func neverSends(wait time.Duration) script {
	return script{silent: true, client: func(e *end) error {
		return firstOf(resting(e, wait), e.finish, e.receiveEnd)
	}}
}

func closesAtOnce(reset bool) script {
	return script{silent: true, client: func(e *end) error {
		if reset {
			return e.reset()
		}
		return nil
	}}
}

func givesUp(r *rand.Rand, to target) script {
	wait := time.Duration(0)
	if to == toSilentPort {
		wait = shortly(r)
	}
	reset := r.IntN(2) == 0
	return script{to: to, silent: true, hasty: true, resets: true, client: func(e *end) error {
		if err := e.rest(wait); err != nil {
			return err
		}
		if reset {
			return e.reset()
		}
		return nil
	}}
}

func refusal(to target) func(*rand.Rand, *life) script {
	return func(*rand.Rand, *life) script {
		return script{to: to, resets: true, client: (*end).expectReset}
	}
}

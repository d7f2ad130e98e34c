package bottleneck

// Colours of the two connections: from the sender to the relay, and from there to the receiver.
const (
	sendingHalf   = "s1"
	receivingHalf = "s4"
)

// lines are the time lines of a transfer, from top to bottom.
func lines() []timeline {
	const kib, ms = 1 << 10, 1000
	paused := shade{"paused", "paused", func(s Sample) bool { return s.Relay != nil && s.Relay.Paused }}
	throttled := shade{"throttled", "throttled", func(s Sample) bool { return s.Relay != nil && s.Relay.Throttled }}
	plain := func(name, class string, f func(Sample) float64) series {
		return series{name, class, func(_, s Sample) (float64, bool) { return f(s), true }}
	}
	value := func(name, class string, f func(Sample) (float64, bool)) series {
		return series{name, class, func(_, s Sample) (float64, bool) { return f(s) }}
	}
	socket := func(name, class string, of func(Sample) *TCP, f func(*TCP) float64) series {
		return series{name, class, func(_, s Sample) (float64, bool) {
			if of(s) == nil {
				return 0, false
			}
			return f(of(s)), true
		}}
	}
	sender := func(s Sample) *TCP { return s.Sender }
	incoming := func(s Sample) *TCP { return s.Incoming }
	outgoing := func(s Sample) *TCP { return s.Outgoing }
	receiver := func(s Sample) *TCP { return s.Receiver }
	// The two sockets that send, and the two that receive.
	sending := func(f func(*TCP) float64) []series {
		return []series{socket("sender, to the relay", sendingHalf, sender, f), socket("relay, to the receiver", receivingHalf, outgoing, f)}
	}
	receiving := func(f func(*TCP) float64) []series {
		return []series{socket("relay, from the sender", sendingHalf, incoming, f), socket("receiver, from the relay", receivingHalf, receiver, f)}
	}
	// The share of the time since the previous sample.
	limited := func(name, class string, of func(Sample) *TCP) series {
		return series{name, class, func(before, s Sample) (float64, bool) {
			if of(s) == nil || of(before) == nil || s.At <= before.At {
				return 0, false
			}
			part := float64(of(s).RwndLimited-of(before).RwndLimited) / 1e6 / (s.At - before.At)
			return 100 * min(max(part, 0), 1), true
		}}
	}
	return []timeline{
		{title: "Rate in Mbit/s, means over 0.25 s", shades: []shade{paused}, curves: []series{
			plain("the sender saw", sendingHalf, func(s Sample) float64 { return s.SenderRate / 1e6 }),
			plain("arrived", receivingHalf, func(s Sample) float64 { return s.ArrivedRate / 1e6 }),
		}},
		{title: "Pending in tprelay, in KiB: taken from the sender, not yet accepted by the socket to the receiver", shades: []shade{throttled, paused}, curves: []series{
			value("pending", sendingHalf, ofRelay(func(r *Relay) float64 { return float64(r.Pending) / kib })),
		}},
		{title: "In flight: sent and not arrived, in KiB", curves: []series{
			plain("in flight", sendingHalf, func(s Sample) float64 { return float64(s.inFlight()) / kib }),
		}},
		{title: "One-way delay in ms, median of what arrived since the sample before", curves: []series{
			value("delay", receivingHalf, Sample.delay),
		}},
		{title: "Congestion window in KiB", curves: sending(func(t *TCP) float64 { return float64(t.CwndBytes) / kib })},
		{title: "Round trip time in ms, smoothed by TCP", curves: sending(func(t *TCP) float64 { return float64(t.RTT) / ms })},
		{title: "In the send buffer and not sent yet, in KiB", curves: sending(func(t *TCP) float64 { return float64(t.NotSent) / kib })},
		{title: "Sent and not acknowledged, in packets", curves: sending(func(t *TCP) float64 { return float64(t.UnackedPackets) })},
		{title: "Part of the time that a full receive window held the socket up, in %", least: 100, curves: []series{
			limited("sender, by the relay", sendingHalf, sender), limited("relay, by the receiver", receivingHalf, outgoing),
		}},
		{title: "Receive window that is offered, in KiB", curves: receiving(func(t *TCP) float64 { return float64(t.ReceiveWindow) / kib })},
		{title: "In the receive buffer and not read yet, in KiB", curves: receiving(func(t *TCP) float64 { return float64(t.Unread) / kib })},
		{title: "Memory of the relay's processes in MiB", curves: []series{
			value("resident", sendingHalf, func(s Sample) (float64, bool) { return float64(s.Memory) / mib, s.Memory > 0 }),
		}},
	}
}

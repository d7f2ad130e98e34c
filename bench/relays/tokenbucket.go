package relays

// tokenBucket is the relay that is paced by a timer, a process of tpbench.
func tokenBucket() Relay {
	return Relay{
		Name: "tokenbucket", Title: "token bucket, 6 Mbit/s", Way: Transparent, shares: true,
		Advice: "bench/relays/tokenbucket: a timer of 10 ms that lets 7,500 bytes pass, as in SoonyangZhang/tpproxy, whose rate follows TCP_INFO; " +
			"here it is fixed at tpbench slow's bottleneck. For another rate: --relay-command 'tpbench relay tokenbucket --listen $LISTEN --rate 3mbit'.",
		recipe: func(s site) ([]process, error) {
			args := []string{s.Self, "relay", "tokenbucket", "--listen", s.listen.String(), "--rate", "6mbit"}
			return []process{{args: args, ports: []uint16{s.listen.Port()}}}, nil
		},
	}
}

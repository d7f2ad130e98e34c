package relays

// gnets are a relay on gnet, a process of tpbench. gnet neither sets IP_TRANSPARENT on its
// listeners nor returns the original destination (a connection's LocalAddr is its listener's), so
// clients connect to the relay.
func gnets() []Relay {
	title := "gnet" + moduleVersion("github.com/panjf2000/gnet/v2")
	of := func(name, kind, advice string, flags ...string) Relay {
		return Relay{
			Name: name, Title: title + ", " + kind, Advice: advice, Way: Forward,
			recipe: func(s site) ([]process, error) {
				p := process{args: append([]string{s.Self, "relay", "gnet"}, flags...)}
				for _, f := range s.forwarded() {
					p.args = append(p.args, "--forward", f.listen.String()+"="+f.server.String())
					p.ports = append(p.ports, f.listen.Port())
				}
				return []process{p}, nil
			},
		}
	}
	return []Relay{
		of("gnet", "no flow control, 1 loop",
			"bench/relays/gnet: both connections of a pair on one event loop. gnet cannot stop reading (panjf2000/gnet issues 712 and 722), so what a receiver does not take piles up; beyond 4 GiB the relay ends, as it would for want of memory."),
		of("gnet-close", "closes slow receivers, 1 loop",
			"The same with the answer of gnet's author to slow receivers: look at OutboundBuffered after each write, and close the connection when too much has piled up (panjf2000/gnet issue 337; pausing was declined in 712 and 713). Too much is 64 MiB: with 16 MiB it also closed receivers that kept up but for some milliseconds.", "--most-unread", "67108864"),
	}
}

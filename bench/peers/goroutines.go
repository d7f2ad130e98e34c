package peers

import (
	"runtime"
	"strings"
)

// iocopies are the relay that Go programmers write, a process of tpbench.
func iocopies() []Peer {
	goVersion := "Go " + strings.TrimPrefix(runtime.Version(), "go")
	of := func(name, title, advice string, flags ...string) Peer {
		return Peer{
			Name: name, Title: title + ", " + goVersion, Advice: advice, Way: Transparent, shares: true,
			recipe: func(s site) ([]process, error) {
				args := []string{s.Self, "peer", "iocopy", "--listen", s.listen.String()}
				return []process{{args: append(args, flags...), ports: []uint16{s.listen.Port()}}}, nil
			},
		}
	}
	return []Peer{
		of("iocopy", "io.Copy, 2 goroutines per pair",
			"bench/peers/iocopy: io.Copy between two *net.TCPConn, which splices (net.TCPConn.ReadFrom); GOMAXPROCS is the default. Each direction keeps a pipe, idle or not: six descriptors per pair."),
		of("iocopy-nosplice", "io.CopyBuffer, 2 goroutines per pair",
			"The same with the connections wrapped, as TLS or counting wraps them: io.CopyBuffer with pooled buffers of 32 KiB, the size that io.Copy takes.", "--no-splice"),
	}
}

// tokenBucket is the relay that is paced by a timer, a process of tpbench.
func tokenBucket() Peer {
	return Peer{
		Name: "tokenbucket", Title: "token bucket, 6 Mbit/s", Way: Transparent, shares: true,
		Advice: "bench/peers/tokenbucket: a timer of 10 ms that lets 7,500 bytes pass, as in SoonyangZhang/tpproxy, whose rate follows TCP_INFO; " +
			"here it is fixed at tpbench slow's bottleneck. For another rate: --relay-command 'tpbench peer tokenbucket --listen $LISTEN --rate 3mbit'.",
		recipe: func(s site) ([]process, error) {
			args := []string{s.Self, "peer", "tokenbucket", "--listen", s.listen.String(), "--rate", "6mbit"}
			return []process{{args: args, ports: []uint16{s.listen.Port()}}}, nil
		},
	}
}

// gnets are a relay on gnet, a process of tpbench. gnet can neither set
// IP_TRANSPARENT on its listeners nor tell the original destination (a
// connection's LocalAddr is its listener's), so clients connect to the relay.
func gnets() []Peer {
	title := "gnet" + moduleVersion("github.com/panjf2000/gnet/v2")
	of := func(name, kind, advice string, flags ...string) Peer {
		return Peer{
			Name: name, Title: title + ", " + kind, Advice: advice, Way: Forward,
			recipe: func(s site) ([]process, error) {
				p := process{args: append([]string{s.Self, "peer", "gnet"}, flags...)}
				for _, f := range s.forwarded() {
					p.args = append(p.args, "--forward", f.listen.String()+"="+f.server.String())
					p.ports = append(p.ports, f.listen.Port())
				}
				return []process{p}, nil
			},
		}
	}
	return []Peer{
		of("gnet", "no flow control, 1 loop",
			"bench/peers/gnetrelay: both connections of a pair on one event loop. gnet cannot stop reading (panjf2000/gnet issues 712 and 722), so what a receiver does not take piles up; beyond 4 GiB the relay ends, as it would for want of memory."),
		of("gnet-close", "closes slow receivers, 1 loop",
			"The same with the answer of gnet's author to slow receivers: look at OutboundBuffered after each write, and close the connection when too much has piled up (panjf2000/gnet issue 337; pausing was declined in 712 and 713). Too much is 64 MiB: with 16 MiB it also closed receivers that kept up but for some milliseconds.", "--most-unread", "67108864"),
	}
}

package relays

import "fmt"

// socatBacklog is what the kernel allows at most by default (net.core.somaxconn).
const socatBacklog = 4096

// socat is one process for each connection, and one that accepts, for each port.
func socat() Relay {
	return Relay{
		Name:  "socat",
		Title: "socat" + version("socat", "-V", `version ([0-9.]+)`) + ", a process per connection",
		Advice: "socat(1): fork for more than one client, reuseaddr; its backlog of 5 raised to 4,096, its block of 8 KiB to 64 KiB (-b)," +
			" its patience of 0.5 s after a FIN to 60 s (-t), nodelay on both sides.",
		Way:     Forward,
		program: "socat", debian: "socat",
		recipe: func(s site) ([]process, error) {
			path, err := lookup("socat")
			if err != nil {
				return nil, err
			}
			var both []process
			for _, f := range s.forwarded() {
				both = append(both, process{
					args: []string{path, "-b", "65536", "-t", "60",
						fmt.Sprintf("TCP4-LISTEN:%d,bind=%v,fork,reuseaddr,backlog=%d,nodelay", f.listen.Port(), f.listen.Addr(), socatBacklog),
						fmt.Sprintf("TCP4:%v,nodelay", f.server)},
					ports: []uint16{f.listen.Port()},
					forks: true,
				})
			}
			return both, nil
		},
	}
}

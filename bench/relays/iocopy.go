package relays

import (
	"runtime"
	"strings"
)

// iocopies are the relay that Go programmers write, a process of tpbench.
func iocopies() []Relay {
	goVersion := "Go " + strings.TrimPrefix(runtime.Version(), "go")
	of := func(name, title, advice string, flags ...string) Relay {
		return Relay{
			Name: name, Title: title + ", " + goVersion, Advice: advice, Way: Transparent, shares: true,
			Default: true, Variant: name != "iocopy",
			recipe: func(s site) ([]process, error) {
				args := []string{s.Self, "relay", "iocopy", "--listen", s.listen.String()}
				return []process{{args: append(args, flags...), ports: []uint16{s.listen.Port()}}}, nil
			},
		}
	}
	return []Relay{
		of("iocopy", "io.Copy, 2 goroutines per pair",
			"bench/relays/iocopy: io.Copy between two *net.TCPConn, which splices (net.TCPConn.ReadFrom); GOMAXPROCS is the default. Each direction keeps a pipe, idle or not: six descriptors per pair."),
		of("iocopy-nosplice", "io.CopyBuffer, 2 goroutines per pair",
			"The same with the connections wrapped, as TLS or counting wraps them: io.CopyBuffer with pooled buffers of 32 KiB, the size that io.Copy takes.", "--no-splice"),
	}
}

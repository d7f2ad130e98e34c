package gnet

import (
	"fmt"
	"os"
	"runtime/metrics"
)

// memory is how many bytes the process has from the kernel and has not given back.
func memory() uint64 {
	samples := []metrics.Sample{{Name: "/memory/classes/total:bytes"}, {Name: "/memory/classes/heap/released:bytes"}}
	metrics.Read(samples)
	return samples[0].Value.Uint64() - samples[1].Value.Uint64()
}

// silent is a logger that says only what ends the relay: gnet's own writes to
// standard output.
type silent struct{}

// Debugf says nothing.
func (silent) Debugf(string, ...any) {}

// Infof says nothing.
func (silent) Infof(string, ...any) {}

// Warnf says nothing.
func (silent) Warnf(string, ...any) {}

// Errorf writes to standard error.
func (silent) Errorf(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "gnet: "+format+"\n", args...)
}

// Fatalf writes to standard error; gnet ends by itself.
func (s silent) Fatalf(format string, args ...any) { s.Errorf(format, args...) }

package netlab

import (
	"bytes"
	"fmt"
	"os"
	"strings"
)

// TCPCounter reads one of the TcpExt counters of the network that the calling thread is in;
// see Host.Do.
func TCPCounter(name string) (n int64, err error) {
	text, err := os.ReadFile("/proc/thread-self/net/netstat")
	if err != nil {
		return 0, err
	}
	var names []string // a line of names comes before the line of their values
	for line := range bytes.Lines(text) {
		fields := strings.Fields(string(line))
		for i, f := range names {
			if f == name && i < len(fields) {
				_, err := fmt.Sscan(fields[i], &n)
				return n, err
			}
		}
		names = fields
	}
	return 0, fmt.Errorf("no counter %s", name)
}

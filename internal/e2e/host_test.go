package e2e

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/tprelay/tprelay/internal/netlab"
)

// nft loads rules of the test's own on a host.
func (g *gateway) nft(h *netlab.Host, text string) {
	g.t.Helper()
	started(g.t, h.NFT(within(g.t), text))
}

// shell runs a command on a host and gives its output.
func (g *gateway) shell(h *netlab.Host, command string) string {
	g.t.Helper()
	out, err := h.Command(within(g.t), "sh", "-ec", command).Output()
	if err != nil {
		g.t.Fatalf("%s: %v", command, err)
	}
	return string(out)
}

// tcpCounter reads one of the TcpExt counters of a host.
func (g *gateway) tcpCounter(h *netlab.Host, name string) (n int64) {
	g.t.Helper()
	err := h.Do(func() error {
		text, err := os.ReadFile("/proc/thread-self/net/netstat")
		if err != nil {
			return err
		}
		var names []string // a line of names comes before the line of their values
		for line := range bytes.Lines(text) {
			fields := strings.Fields(string(line))
			for i, f := range names {
				if f == name && i < len(fields) {
					_, err := fmt.Sscan(fields[i], &n)
					return err
				}
			}
			names = fields
		}
		return fmt.Errorf("no counter %s", name)
	})
	if err != nil {
		g.t.Fatal(err)
	}
	return n
}

// within gives a context that bounds what a test waits for.
func within(t *testing.T) context.Context {
	ctx, cancel := contextWithPatience()
	t.Cleanup(cancel)
	return ctx
}

func contextWithPatience() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), patience)
}

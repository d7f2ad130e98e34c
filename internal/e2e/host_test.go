package e2e

import (
	"context"
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

// setSysctl sets a kernel parameter of a host.
func (g *gateway) setSysctl(h *netlab.Host, name, value string) {
	g.t.Helper()
	if err := h.SetSysctl(name, value); err != nil {
		g.t.Fatal(err)
	}
}

// tcpCounter reads one of the TcpExt counters of a host.
func (g *gateway) tcpCounter(h *netlab.Host, name string) (n int64) {
	g.t.Helper()
	err := h.Do(func() (err error) {
		n, err = netlab.TCPCounter(name)
		return err
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

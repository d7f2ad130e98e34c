package main

import (
	"context"
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/tprelay/tprelay/intercept"
	"github.com/tprelay/tprelay/internal/cli"
)

// names is a resolver that knows a few.
type names map[string][]netip.Addr

func (n names) LookupNetIP(_ context.Context, _, host string) ([]netip.Addr, error) {
	found, ok := n[host]
	if !ok {
		return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
	}
	return found, nil
}

func (names) LookupPort(ctx context.Context, network, service string) (int, error) {
	return new(net.Resolver).LookupPort(ctx, network, service)
}

func TestUpstreamIsResolvedOnce(t *testing.T) {
	known := names{
		"two.test":  {netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")},
		"v6.test":   {netip.MustParseAddr("2001:db8::1")},
		"4in6.test": {netip.MustParseAddr("::ffff:192.0.2.9")},
		"none.test": {},
	}
	for _, c := range []struct{ upstream, want, err string }{
		{"192.0.2.7:80", "192.0.2.7:80", ""},
		{"[2001:db8::7]:443", "[2001:db8::7]:443", ""},
		{"[::ffff:192.0.2.7]:443", "192.0.2.7:443", ""},
		{"two.test:8080", "192.0.2.1:8080", ""},
		{"v6.test:80", "[2001:db8::1]:80", ""},
		{"4in6.test:80", "192.0.2.9:80", ""},
		{"none.test:80", "", "upstream none.test:80: no address"},
		{"unknown.test:80", "", "no such host; check the name, or give an IP address"},
		{"two.test", "", "want HOST:PORT"},
		{"two.test:", "", "want HOST:PORT"},
		{"2001:db8::7:443", "", "want HOST:PORT"},
		{"two.test:70000", "", "want a port"},
	} {
		got, err := resolveUpstream(known, c.upstream)
		switch {
		case c.err != "":
			if err == nil || !strings.Contains(err.Error(), c.err) {
				t.Errorf("%s: %v, %v; want %q", c.upstream, got, err, c.err)
			}
		case err != nil || got.String() != c.want:
			t.Errorf("%s: %v, %v; want %s", c.upstream, got, err, c.want)
		}
	}
	if _, err := resolveUpstream(known, "unknown.test:80"); cli.IsUsage(err) {
		t.Error("a failed lookup counts as wrong usage")
	}
}

func TestInterceptorsAreChainedInOrder(t *testing.T) {
	c := runCmd{Intercept: []string{"replace=a:b", "replace=b:c", "record=" + t.TempDir()}}
	chain, recorders, err := c.interceptors()
	if err != nil || len(recorders) != 1 {
		t.Fatal(len(recorders), err)
	}
	d := chain.Open(intercept.Pair{})
	chunk := intercept.Chunk{Data: []byte("aaa"), End: true}
	if d.Upstream.Handle(&chunk) != intercept.Forward || string(chunk.Written())+string(chunk.Data) != "ccc" {
		t.Errorf("got %q and %q", chunk.Written(), chunk.Data)
	}
	if err := d.CloseHandlers(); err != nil {
		t.Error(err)
	}
	if chain, _, err := new(runCmd).interceptors(); chain != nil || err != nil {
		t.Errorf("no interceptors make %v, %v", chain, err)
	}
}

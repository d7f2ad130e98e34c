package rules

import (
	"context"
	"strings"
	"testing"

	"github.com/tprelay/tprelay/tproxy"
)

func TestParsePorts(t *testing.T) {
	for text, want := range map[string]string{
		"": "all", "any": "all", "80": "80", " 80 , 443 ": "80,443", "8000-8080,1": "8000-8080,1", "1-65535": "1-65535",
	} {
		if p, err := ParsePorts(text); err != nil || p.String() != want {
			t.Errorf("%q is %v, %v; want %s", text, p, err, want)
		}
	}
	for _, text := range []string{",", "0", "65536", "http", "9-8", "1-", "-1", "+1", "80,80", "1-9,5", "80;drop", "80 443"} {
		if p, err := ParsePorts(text); err == nil {
			t.Errorf("%q is %v, want an error", text, p)
		}
	}
}

func TestMultiportListsFitTheMatch(t *testing.T) {
	var p Ports
	for i := range uint16(40) {
		p = append(p, PortRange{100 * (i + 1), 100*(i+1) + i%2})
	}
	total := 0
	for _, list := range p.multiport() {
		slots := strings.Count(list, ",") + 1 + strings.Count(list, ":")
		if slots > 15 {
			t.Errorf("%d slots in %s", slots, list)
		}
		total += strings.Count(list, ",") + 1
	}
	if total != len(p) {
		t.Errorf("%d of %d ports", total, len(p))
	}
}

func TestParseListen(t *testing.T) {
	for text, want := range map[string]string{
		":9091": ":9091", "127.0.0.1:1": "127.0.0.1:1", "[::1]:1": "[::1]:1", "[::ffff:10.0.0.1]:1": "10.0.0.1:1",
	} {
		l, err := ParseListen(text)
		if have := (target{addr: l.Addr(), port: l.Port()}).String(); err != nil || have != want {
			t.Errorf("%q is %s, %v; want %s", text, have, err, want)
		}
	}
	for _, text := range []string{"", "9091", ":0", ":x", "localhost:1", "10.0.0.1", "10.0.0.1:0", "[fe80::1%eth0]:1"} {
		if l, err := ParseListen(text); err == nil {
			t.Errorf("%q is %v, want an error", text, l)
		}
	}
}

func TestProbesPassWhereTheKernelHasAll(t *testing.T) {
	for _, b := range []Backend{NFT, IPTables} {
		for _, mode := range []tproxy.Mode{tproxy.TPROXY, tproxy.Redirect} {
			c := Config{Mode: mode, Backend: b, Transparent: true}.WithDefaults()
			for _, f := range c.features() {
				if err := c.probe(context.Background(), f); err != nil {
					t.Errorf("%s: %s: %v", b, f.name, err)
				}
			}
		}
	}
}

func TestSummaryIsOneLine(t *testing.T) {
	for stderr, want := range map[string]string{
		"/dev/stdin:5:3-20: Error: Could not process rule: No such file\n\t\ttproxy to :1\n\t\t^^^^^^^\n": "Could not process rule: No such file: tproxy to :1",
		"# Warning: iptables-legacy tables present\niptables v1: bad\nTry `iptables -h' for more\n":       "iptables v1: bad",
		"": "",
	} {
		if have := summary(stderr); have != want {
			t.Errorf("%q becomes %q, want %q", stderr, have, want)
		}
	}
}

func FuzzParsePorts(f *testing.F) {
	for _, seed := range []string{"", "80", "80,443", "1-65535", "8000-8080,22", "all", "0", ",-"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		p, err := ParsePorts(text)
		if err != nil {
			if strings.ContainsAny(err.Error(), "\n") && !strings.Contains(text, "\n") {
				t.Errorf("error of several lines: %v", err)
			}
			return
		}
		if err := p.check(); err != nil {
			t.Errorf("%q was taken but: %v", text, err)
		}
		if strings.Trim(p.String(), "0123456789,-") != "" && len(p) > 0 {
			t.Errorf("%q becomes %q", text, p)
		}
		again, err := ParsePorts(p.String())
		if err != nil || again.String() != p.String() {
			t.Errorf("%q becomes %v, which becomes %v, %v", text, p, again, err)
		}
	})
}

func FuzzParseListen(f *testing.F) {
	for _, seed := range []string{":9091", "127.0.0.1:1", "[::]:65535", "[fe80::1%x]:1", ":"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		l, err := ParseListen(text)
		if err != nil {
			return
		}
		if l.Port() == 0 || l.Addr().Zone() != "" {
			t.Errorf("%q becomes %v", text, l)
		}
		again, err := ParseListen(target{addr: l.Addr(), port: l.Port()}.String())
		if err != nil || again != l {
			t.Errorf("%q becomes %v, which becomes %v, %v", text, l, again, err)
		}
	})
}

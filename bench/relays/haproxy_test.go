package relays

import (
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestDocumentedHAProxyConfigurationIsTheMeasuredOne holds the one in docs/flow-control.md to
// what HAProxy is started with. What depends on the limit of descriptors may differ.
func TestDocumentedHAProxyConfigurationIsTheMeasuredOne(t *testing.T) {
	h := haproxySettings{Listen: netip.MustParseAddrPort("127.0.0.1:9091"), Threads: 1, Splice: true, Transparent: true}
	h.size(20_000)
	path := filepath.Join(t.TempDir(), "haproxy.cfg")
	if err := h.write(path); err != nil {
		t.Fatal(err)
	}
	config, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	number := regexp.MustCompile(`(max\w+) \d+`)
	var want strings.Builder
	for line := range strings.Lines(string(config)) {
		if text := strings.TrimSpace(line); text != "" && !strings.HasPrefix(text, "#") {
			want.WriteString("      " + number.ReplaceAllString(line, "$1 N"))
		}
	}
	page, err := os.ReadFile("../../docs/flow-control.md")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(number.ReplaceAllString(string(page), "$1 N"), want.String()) {
		t.Errorf("docs/flow-control.md does not have\n%s", want.String())
	}
}

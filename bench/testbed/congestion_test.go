package testbed

import (
	"strings"
	"testing"

	"github.com/tprelay/tprelay/internal/netlab"
)

func TestChooseCongestion(t *testing.T) {
	text, err := netlab.Sysctl(allowedCongestion)
	if err != nil {
		t.Fatal(err)
	}
	allowed := strings.Fields(text)
	for _, name := range allowed {
		if got, err := ChooseCongestion(name); got != name || err != nil {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
	if got, err := ChooseCongestion(""); got == "" || err != nil {
		t.Errorf("by default: %q, %v", got, err)
	}
	if got, err := ChooseCongestion("none"); err == nil || !strings.Contains(err.Error(), strings.Join(allowed, ", ")) {
		t.Errorf("none: %q, %v", got, err)
	}
}

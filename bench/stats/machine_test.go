package stats

import "testing"

func TestKernelReleaseWithoutItsBuilder(t *testing.T) {
	for text, want := range map[string]string{"6.1.0-18-amd64": "6.1.0", "6.18.44": "6.18.44"} {
		if got := release(text); got != want {
			t.Errorf("%s: %s", text, got)
		}
	}
}

package stats

import (
	"runtime"
	"testing"
)

func TestThisMachineIsDescribed(t *testing.T) {
	m := ThisMachine()
	if m.CPU == "" || m.Cores != runtime.NumCPU() || m.Memory < 64<<20 || m.Kernel == "" || m.Go == "" || m.LoadAvg < 0 {
		t.Errorf("%+v", m)
	}
}

func TestKernelReleaseWithoutItsBuilder(t *testing.T) {
	for text, want := range map[string]string{"6.1.0-18-amd64": "6.1.0", "6.18.44": "6.18.44"} {
		if got := release(text); got != want {
			t.Errorf("%s: %s", text, got)
		}
	}
}

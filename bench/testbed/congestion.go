package testbed

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"github.com/tprelay/tprelay/internal/netlab"
)

// The congestion control of the hosts is part of what is measured: over veth, which loses no
// packets, BBR still paces each connection by timers, and that costs more than a relay does. So it
// is the same on every machine, whatever the machine's sysctl says.
const (
	congestionSetting = "net.ipv4.tcp_congestion_control"
	// defaultCongestion is the kernel's own default.
	defaultCongestion = "cubic"
	// allowedCongestion are those that a network namespace may have as its default.
	allowedCongestion = "net.ipv4.tcp_allowed_congestion_control"
)

// ChooseCongestion returns the congestion control of that name. For "" it is cubic, or the
// machine's own where programs may not choose cubic. The error lists those that may be chosen.
func ChooseCongestion(name string) (string, error) {
	text, err := netlab.Sysctl(allowedCongestion)
	listed := err == nil // otherwise setting it fails
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	switch allowed := strings.Fields(text); {
	case name == "" && slices.Contains(allowed, defaultCongestion):
		return defaultCongestion, nil
	case name == "":
		return netlab.Sysctl(congestionSetting)
	case listed && !slices.Contains(allowed, name):
		return "", fmt.Errorf("%q is none of those that may be used here: %s (%s; a module may have to be loaded, and allowed there)", name, strings.Join(allowed, ", "), allowedCongestion)
	}
	return name, nil
}

func (tb *Testbed) setCongestion() error {
	if tb.Congestion == "" {
		return nil
	}
	for _, h := range []*netlab.Host{tb.Lab.H1, tb.Lab.H2, tb.Lab.H3} {
		if err := h.SetSysctl(congestionSetting, tb.Congestion); err != nil {
			return err
		}
	}
	return nil
}

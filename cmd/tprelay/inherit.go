package main

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"
)

// inheritVariable is set by a tprelay that starts its replacement. It holds an inheritance.
const inheritVariable = "TPRELAY_UPGRADE"

// inheritance is the value of inheritVariable, in JSON. The two programs may be of different
// versions: fields may be added, and must not change their meaning.
type inheritance struct {
	Relay  int              `json:"relay"`           // descriptor of the new process's end, for engine.TakeOver
	Admin  int              `json:"admin,omitempty"` // descriptor of the listening socket of --admin
	Listen []netip.AddrPort `json:"listen"`          // addresses on which the old process listens
}

// inherit returns the inheritance of an upgrade, or nil if this is none, and removes the
// variable from the environment. It sets close-on-exec on the descriptors.
func inherit() (*inheritance, error) {
	text, ok := os.LookupEnv(inheritVariable)
	if !ok {
		return nil, nil
	}
	os.Unsetenv(inheritVariable)
	in, err := parseInheritance(text)
	if err != nil {
		return nil, err
	}
	for _, fd := range []int{in.Relay, in.Admin} {
		if fd == 0 {
			continue
		}
		if _, err := unix.FcntlInt(uintptr(fd), unix.F_SETFD, unix.FD_CLOEXEC); err != nil {
			return nil, fmt.Errorf("%s names descriptor %d: %w; unset it, only tprelay sets it during an upgrade", inheritVariable, fd, err)
		}
	}
	return in, nil
}

func parseInheritance(text string) (*inheritance, error) {
	in := new(inheritance)
	if err := json.Unmarshal([]byte(text), in); err != nil {
		return nil, fmt.Errorf("%s=%q: %w; unset it, only tprelay sets it during an upgrade", inheritVariable, text, err)
	}
	if in.Relay < 3 || in.Admin != 0 && (in.Admin < 3 || in.Admin == in.Relay) {
		return nil, fmt.Errorf("%s=%q: wrong descriptors; unset it, only tprelay sets it during an upgrade", inheritVariable, text)
	}
	return in, nil
}

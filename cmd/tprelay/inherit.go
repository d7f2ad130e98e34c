package main

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"
)

// inheritVariable tells a program that another one started it to replace itself, and
// what that one hands over. Only tprelay sets it.
const inheritVariable = "TPRELAY_UPGRADE"

// inheritance is what inheritVariable says, in JSON. Programs of different versions
// meet here: fields may be added, and must not change their meaning.
type inheritance struct {
	Relay  int              `json:"relay"`           // descriptor: our end, for engine.TakeOver
	Admin  int              `json:"admin,omitempty"` // descriptor of the admin end's listening socket
	Listen []netip.AddrPort `json:"listen"`          // where the old one listens
}

// inherit reads what the old program left, nil if there is none, and takes it out of
// the environment. The descriptors are closed on exec from here on.
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
			return nil, fmt.Errorf("%s names descriptor %d: %w; unset it, it is for upgrades", inheritVariable, fd, err)
		}
	}
	return in, nil
}

func parseInheritance(text string) (*inheritance, error) {
	in := new(inheritance)
	if err := json.Unmarshal([]byte(text), in); err != nil {
		return nil, fmt.Errorf("%s=%q: %w; unset it, it is for upgrades", inheritVariable, text, err)
	}
	if in.Relay < 3 || in.Admin != 0 && (in.Admin < 3 || in.Admin == in.Relay) {
		return nil, fmt.Errorf("%s=%q: wrong descriptors; unset it, it is for upgrades", inheritVariable, text)
	}
	return in, nil
}

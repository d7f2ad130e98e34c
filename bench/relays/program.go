package relays

import (
	"fmt"
	"os/exec"
	"regexp"
	"runtime/debug"
)

// lookup finds a program, also where only root's PATH has it.
func lookup(name string) (string, error) {
	for _, candidate := range []string{name, "/usr/sbin/" + name, "/sbin/" + name, "/usr/local/sbin/" + name} {
		if path, err := exec.LookPath(candidate); err == nil {
			return path, nil
		}
	}
	return "", fmt.Errorf("%s: %w", name, exec.ErrNotFound)
}

// version is a program's version with a blank before it: the group of pattern in what it prints
// when called with flag. It is "" without the program.
func version(name, flag, pattern string) string {
	path, err := lookup(name)
	if err != nil {
		return ""
	}
	out, err := exec.Command(path, flag).Output()
	if err != nil {
		return ""
	}
	if m := regexp.MustCompile(pattern).FindSubmatch(out); m != nil {
		return " " + string(m[1])
	}
	return ""
}

// moduleVersion is the version of a module of this program, with a blank before it.
func moduleVersion(path string) string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return ""
	}
	for _, m := range info.Deps {
		if m.Path == path {
			return " " + m.Version
		}
	}
	return ""
}

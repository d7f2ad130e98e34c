package netlab

import (
	"fmt"
	"os/exec"
)

// program returns the path of a program that may lie where only root looks for
// it by default. The error wraps exec.ErrNotFound, for tests that skip then.
func program(name string) (string, error) {
	for _, candidate := range []string{name, "/usr/sbin/" + name, "/sbin/" + name, "/usr/local/sbin/" + name} {
		if path, err := exec.LookPath(candidate); err == nil {
			return path, nil
		}
	}
	return "", fmt.Errorf("netlab: %s: %w; install it", name, exec.ErrNotFound)
}

package rules

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"

	"golang.org/x/sys/unix"
)

// run runs a program in the network namespace of the calling thread with stdin as its input,
// and returns its output. The error has one line.
func run(ctx context.Context, stdin, name string, args ...string) (string, error) {
	path, err := find(name)
	if err != nil {
		return "", err
	}
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	cmd.Stdin = strings.NewReader(stdin)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err = cmd.Run()
	switch {
	case err == nil:
		return stdout.String(), nil
	case ctx.Err() != nil:
		return "", fmt.Errorf("%s: %w", name, ctx.Err())
	}
	if said := summary(stderr.String()); said != "" {
		return "", fmt.Errorf("%s: %s", name, strings.TrimPrefix(said, name+": "))
	}
	return "", fmt.Errorf("%s %s: %w", name, strings.Join(args, " "), err)
}

// find returns the path of a program, or an error that says what to install. It also looks in
// the sbin directories, which are often missing from PATH.
func find(name string) (string, error) {
	for _, candidate := range []string{name, "/usr/sbin/" + name, "/sbin/" + name, "/usr/local/sbin/" + name} {
		if path, err := exec.LookPath(candidate); err == nil {
			return path, nil
		}
	}
	if name == "nft" {
		return "", errors.New("nft: not found; install nftables, or use --backend iptables")
	}
	return "", fmt.Errorf("%s: not found; install iptables, or use --backend nft", name)
}

// installed reports whether find finds the program.
func installed(name string) bool {
	_, err := find(name)
	return err == nil
}

// Installed reports whether the back end's program is installed.
func (b Backend) Installed() bool { return installed(string(b)) }

// summary shortens a program's error output to one line. nft prints the position, the error,
// the wrong line and a row of carets; iptables adds hints.
func summary(stderr string) string {
	var first, quoted string
	for text := range strings.Lines(stderr) {
		text = strings.TrimSpace(text)
		switch {
		case text == "" || strings.Trim(text, "^~ ") == "" || strings.HasPrefix(text, "#"):
		case first == "":
			if _, after, ok := strings.Cut(text, "Error: "); ok {
				text = after
			}
			first = text
		case quoted == "":
			quoted = text
		}
	}
	if quoted == "" || strings.HasPrefix(quoted, "Try `") {
		return first
	}
	return first + ": " + quoted
}

// privileged returns an error if the calling thread lacks CAP_NET_ADMIN.
func privileged() error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return fmt.Errorf("read capabilities: %w", err)
	}
	if data[0].Effective&(1<<unix.CAP_NET_ADMIN) == 0 {
		return errors.New("operation not permitted; run as root or grant CAP_NET_ADMIN")
	}
	return nil
}

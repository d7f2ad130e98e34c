package rules

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

func TestMissingProgramIsNamedInOneLine(t *testing.T) {
	_, err := run(context.Background(), "", "iptables-of-nobody")
	const want = "iptables-of-nobody: not found; install iptables, or use --backend nft"
	if err == nil || err.Error() != want {
		t.Errorf("%v, want %s", err, want)
	}
}

// The PATH of an ordinary user of Debian has no sbin directory.
func TestProgramsOutsideThePathAreFound(t *testing.T) {
	var elsewhere string
	for _, candidate := range []string{"/usr/sbin/nft", "/sbin/nft", "/usr/local/sbin/nft"} {
		if path, err := exec.LookPath(candidate); err == nil {
			elsewhere = path
			break
		}
	}
	if elsewhere == "" {
		t.Skip("nft is not in an sbin directory")
	}
	dir := t.TempDir()
	t.Setenv("PATH", dir)
	if path, err := find("nft"); path != elsewhere {
		t.Errorf("%s, %v; want %s", path, err, elsewhere)
	}
	own := filepath.Join(dir, "nft")
	if err := os.WriteFile(own, []byte("#!/bin/sh\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	if path, err := find("nft"); path != own {
		t.Errorf("%s, %v; want %s, which is in the PATH", path, err, own)
	}
}

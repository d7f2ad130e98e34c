package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestPipeLimitWarnings(t *testing.T) {
	for _, c := range []struct {
		name, size, soft string
		want             string
	}{
		{"defaults", "1048576\n", "16384\n", ""},
		{"no soft limit", "1048576\n", "0\n", ""},
		{"tiny pipes", "4096\n", "16384\n", "raise fs.pipe-max-size"},
		{"few pages", "1048576\n", "100\n", "raise fs.pipe-user-pages-soft"},
		{"unreadable", "", "", "cannot read the limit for pipes"},
		{"nonsense", "many", "16384", "cannot read the limit for pipes"},
		{"soft unreadable", "1048576", "", "cannot read the limit for this user's pipes"},
	} {
		dir := t.TempDir()
		for name, content := range map[string]string{"pipe-max-size": c.size, "pipe-user-pages-soft": c.soft} {
			if content == "" {
				continue
			}
			if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		pages := os.Getpagesize()
		got := pipeLimits{dir}.warning(1024, 16*pages)
		if (got == "") != (c.want == "") || !strings.Contains(got, c.want) || strings.Contains(got, "\n") {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}

package main

import (
	"bytes"
	"strings"
	"testing"

	"github.com/tprelay/tprelay/internal/cli"
)

func TestPeersAreCalledWithAddresses(t *testing.T) {
	for args, want := range map[string]string{
		"peer iocopy":      "--listen",
		"peer tokenbucket": "--listen",
		"peer tokenbucket --listen 127.0.0.1:1 --rate fast": "rate \"fast\"",
		"peer gnet":                                            "--forward",
		"peer gnet --forward 127.0.0.1:1":                      "want ADDR:PORT=ADDR:PORT",
		"peer gnet --forward localhost:1=127.0.0.1:2":          "want ADDR:PORT=ADDR:PORT",
		"peer gnet --forward 127.0.0.1:1=127.0.0.1:2 --most x": "--most",
	} {
		var stderr bytes.Buffer
		if status := program(strings.Fields(args), &bytes.Buffer{}, &stderr); status != cli.Usage || !strings.Contains(stderr.String(), want) {
			t.Errorf("%s: status %d, %s", args, status, &stderr)
		}
	}
}

package main

import (
	"bytes"
	"strings"
	"testing"

	"github.com/tprelay/tprelay/internal/cli"
)

func TestRelaysAreCalledWithAddresses(t *testing.T) {
	for args, want := range map[string]string{
		"relay iocopy":      "--listen",
		"relay tokenbucket": "--listen",
		"relay tokenbucket --listen 127.0.0.1:1 --rate fast": "rate \"fast\"",
		"relay gnet":                                            "--forward",
		"relay gnet --forward 127.0.0.1:1":                      "want ADDR:PORT=ADDR:PORT",
		"relay gnet --forward localhost:1=127.0.0.1:2":          "want ADDR:PORT=ADDR:PORT",
		"relay gnet --forward 127.0.0.1:1=127.0.0.1:2 --most x": "--most",
	} {
		var stderr bytes.Buffer
		if status := program(strings.Fields(args), &bytes.Buffer{}, &stderr); status != cli.Usage || !strings.Contains(stderr.String(), want) {
			t.Errorf("%s: status %d, %s", args, status, &stderr)
		}
	}
}

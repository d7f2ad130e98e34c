package main

import (
	"strings"
	"testing"
)

// FuzzReports: what other processes and the kernel report is read, or refused.
func FuzzReports(f *testing.F) {
	f.Add([]byte(`{"start":{"connected":[{"local_host":"::ffff:192.0.2.1","local_port":1,"remote_host":"192.0.2.2","remote_port":2}]},"intervals":[{"sum":{"end":1,"bytes":5}}]}`))
	f.Add([]byte(`{"error":"unable to connect"}`))
	f.Add([]byte("VmHWM:\t   10240 kB\nVmRSS:\t 99 kB\nRssAnon:\t 5 kB\n"))
	f.Add([]byte(`{"event":"open","peer":"192.0.2.1:1","local":"192.0.2.2:2"}` + "\n" + `{"event":"interval","bytes":7}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		if end, err := parseIperf3(text); err == nil && (!end.local.IsValid() || !end.remote.IsValid()) {
			t.Errorf("%q: between %v and %v", text, end.local, end.remote)
		}
		_, _ = parseMemory(string(text))
		if _, local, peer, err := readEvents(strings.NewReader(string(text))); err != nil && (local.IsValid() || peer.IsValid()) {
			t.Errorf("%q: an error, and %v and %v", text, local, peer)
		}
	})
}

package soak

import (
	"encoding/json"
	"fmt"
	"iter"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/tprelay/tprelay/tproxy"
)

// access is the access log.
func (l *life) access() string { return filepath.Join(l.dir, fmt.Sprintf("access-%d.log", l.number)) }

// saidOf gives the last line of the access log for a stream. It is written a moment after the
// stream's end, and possibly never: this is for the message of a test that fails.
func (l *life) saidOf(s *stream) string {
	found := "nothing"
	for deadline := time.Now().Add(time.Second); found == "nothing" && time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		for line := range l.accessLines() {
			if s.client.IsValid() && strings.Contains(line, `"`+s.client.String()+`"`) {
				found = strings.TrimSpace(line)
			}
		}
	}
	return found
}

// recursion is the first pair for which the relay has connected to its own listener.
func (l *life) recursion() string {
	if l.mode == tproxy.Forward {
		return ""
	}
	for line := range l.accessLines() {
		var pair struct {
			Connected   netip.AddrPort
			Established bool
		}
		if json.Unmarshal([]byte(line), &pair) == nil && pair.Connected.Port() == relayPort && pair.Established {
			return line
		}
	}
	return ""
}

func (l *life) accessLines() iter.Seq[string] {
	text, err := os.ReadFile(l.access())
	if err != nil {
		l.fail("%v", err)
	}
	return strings.Lines(string(text))
}

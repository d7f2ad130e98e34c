package main

import (
	"log/slog"
	"net/netip"

	"github.com/tprelay/tprelay/engine"
	"github.com/tprelay/tprelay/intercept"
	"github.com/tprelay/tprelay/rules"
	"github.com/tprelay/tprelay/tproxy"
)

// announce logs the listeners, and warnings that an operator should see at the start.
func (c *runCmd) announce(log *slog.Logger, listening []netip.AddrPort, upstream netip.AddrPort) {
	for _, address := range listening {
		attrs := []any{"address", address, "mode", c.Mode, "loops", c.Loops}
		if c.Mode.Mode == tproxy.Forward {
			attrs = append(attrs, "upstream", c.Upstream, "upstream_address", upstream)
		}
		log.Info("listening", attrs...)
	}
	for _, command := range c.rulesHints(listening) {
		log.Info("rules must divert connections to this relay; to print them, replace IFACE with the clients' interface", "run", command)
	}
	if c.Mark != 0 && uint32(c.Mark) == rules.DefaultMark && c.Mode.Mode != tproxy.Forward {
		log.Warn("--mark equals the mark of tprelay rules: the relay's own connections may be diverted back to it; choose another", "mark", uint32(c.Mark))
	}
	if c.NoFlowControl {
		log.Warn("flow control is off: senders are not slowed down, and memory grows up to the limit", "limit", c.MemoryLimit)
	}
	if !c.NoSplice {
		limits := pipeLimits{dir: "/proc/sys/fs"}
		if w := limits.warning(engine.DefaultPipes, engine.DefaultPipeSize); w != "" {
			log.Warn(w)
		}
	}
}

// rulesHints returns the commands that print rules for these listeners: one command if a set
// of rules can serve all of them, otherwise one for each listener.
func (c *runCmd) rulesHints(listening []netip.AddrPort) []string {
	if c.Mode.Mode == tproxy.Forward {
		return nil
	}
	config := rules.Config{
		Mode:        c.Mode.Mode,
		Listen:      listening,
		In:          []string{"IFACE"},
		Transparent: c.Spoof.First(c.Mode.Mode) != tproxy.LevelNone,
	}
	if config.Validate() == nil {
		return []string{"tprelay rules print " + config.Flags()}
	}
	var hints []string
	for _, address := range listening {
		config.Listen = []netip.AddrPort{address}
		if config.Validate() == nil {
			hints = append(hints, "tprelay rules print "+config.Flags())
		}
	}
	return hints
}

// summarize logs the totals at the end.
func summarize(log *slog.Logger, s engine.Stats, recorders []*intercept.Recorder) {
	for _, r := range recorders {
		if files, err := r.Failed(); files > 0 {
			log.Warn("recordings are incomplete", "files", files, "last", err)
		}
	}
	if n := s.Ended[engine.ReasonDrained]; n > 0 {
		log.Warn("connections were reset at the end of draining", "pairs", n)
	}
	var ended, failed uint64
	for _, n := range s.Ended {
		ended += n
	}
	for _, n := range s.DialErrors {
		failed += n
	}
	log.Info("ended",
		"pairs", ended,
		"opened", s.Opened,
		"dial_errors", failed,
		"upstream_bytes", s.UpstreamSplice+s.UpstreamBuffer,
		"downstream_bytes", s.DownstreamSplice+s.DownstreamBuffer,
	)
}

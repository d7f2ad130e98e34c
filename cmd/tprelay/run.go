package main

import (
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/signal"

	"github.com/alecthomas/kong"
	"golang.org/x/sys/unix"

	"github.com/tprelay/tprelay/engine"
)

// Run is tprelay run: from the command line to the end of the last pair.
func (c *runCmd) Run(command *kong.Context) error {
	if err := c.check(); err != nil {
		return err
	}
	// From here on no signal kills the process while it holds connections. A log
	// whose reader has gone must not either, so SIGPIPE becomes a write error.
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, unix.SIGTERM, unix.SIGINT, unix.SIGHUP)
	defer signal.Stop(signals)
	signal.Ignore(unix.SIGPIPE)

	log := c.logger(command.Stderr)
	interceptor, recorders, err := c.interceptors()
	if err != nil {
		return err
	}
	var upstream netip.AddrPort
	if c.Upstream != "" {
		if upstream, err = resolveUpstream(net.DefaultResolver, c.Upstream); err != nil {
			return err
		}
	}
	options := c.options(upstream, interceptor)
	options.Logger = log
	reopen := func() {}
	if c.AccessLog != "" {
		access, err := openAccessLog(c.AccessLog, command.Stdout, log)
		if err != nil {
			return err
		}
		defer func() {
			access.close(accessPatience)
			if n := access.dropped(); n > 0 {
				log.Warn("access log is incomplete", "dropped", n)
			}
		}()
		options.Observer, reopen = access, access.reopen
	}
	relay, err := engine.New(options)
	if err != nil {
		return err
	}
	defer relay.Close()

	stopAdmin, err := c.Admin.serve(relay, log)
	if err != nil {
		return err
	}
	defer stopAdmin()

	c.announce(log, relay.Addrs(), upstream)
	err = serve(relay, signals, reopen, log)
	summarize(log, relay.Stats(), recorders)
	return err
}

func (c *runCmd) logger(w io.Writer) *slog.Logger {
	options := &slog.HandlerOptions{Level: c.level()}
	if c.LogFormat == "json" {
		return slog.New(slog.NewJSONHandler(w, options))
	}
	return slog.New(slog.NewTextHandler(w, options))
}

// level is the level that --log-level names; kong has checked the name.
func (c *runCmd) level() (level slog.Level) {
	if err := level.UnmarshalText([]byte(c.LogLevel)); err != nil {
		return slog.LevelInfo
	}
	return level
}

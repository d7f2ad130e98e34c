package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/signal"
	"strings"
	"time"

	"github.com/alecthomas/kong"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sys/unix"

	"github.com/tprelay/tprelay/admin"
	"github.com/tprelay/tprelay/engine"
)

// Run is tprelay run, from the command line to the end of the last pair.
func (c *runCmd) Run(command *kong.Context, queue *logQueue) error {
	if err := c.check(); err != nil {
		return err
	}
	// From here on no signal kills the process while it holds connections. SIGPIPE and
	// SIGXFSZ are ignored, so that a log without a reader, or one at the file size limit
	// (ulimit -f), causes a write error instead.
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, unix.SIGTERM, unix.SIGINT, unix.SIGHUP, unix.SIGUSR2)
	defer signal.Stop(signals)
	signal.Ignore(unix.SIGPIPE, unix.SIGXFSZ)

	log := c.logger(queue)
	before, passed, err := inherited()
	if err != nil {
		return err
	}
	upgrader, err := newUpgrader(c.UpgradeTimeout)
	if err != nil {
		return err
	}
	if c.User != "" {
		if err := become(c.User); err != nil {
			return err
		}
	}
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
	adminSocket := before.Admin
	if s, ok := takePassed(&passed, c.Admin.AddrPort); ok {
		adminSocket = s.fd
	}
	listen, err := c.listeners(passed, before.Listen)
	if err != nil {
		return err
	}
	c.Loops = spareProcessor(c.Loops)
	options := c.options(listen, upstream, interceptor)
	options.Logger = log
	boundHeap(options.MemoryLimit)
	if err := (scheduling{batch: !c.NoBatch, slice: c.TimeSlice}).apply(); err != nil {
		log.Debug("scheduling is not changed", "err", err)
	}
	reopen := func() {}
	metrics := []prometheus.Collector{queue.metric()}
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
		options.Observer.PairEnded, reopen = access.pairEnded, access.reopen
		metrics = append(metrics, access.metric())
	}
	relay, err := before.open(options)
	for _, l := range options.Listeners {
		for _, socket := range l.Sockets {
			_ = socket.(*os.File).Close() // the relay has its own duplicates
		}
	}
	if err != nil {
		return err
	}
	defer relay.Close()

	admin, err := c.Admin.serve(relay, adminSocket, c.adminOptions(log, metrics))
	if err != nil {
		return err
	}
	defer admin.stop()
	if upgrader.ambient, err = keepOnly(c.capabilities()); err != nil {
		return err
	}

	c.announce(log, relay.Addrs(), upstream)
	supervisor := newSupervisor(log)
	defer supervisor.close(supervisorPatience)
	watching, unwatch := context.WithCancel(context.Background())
	defer unwatch()
	go supervisor.watch(watching, relay.Ping)
	s := server{relay: relay, log: log, reopen: reopen, handedOver: admin.stop, supervisor: supervisor, status: statusOf(relay.Addrs())}
	s.upgrade = func(ctx context.Context) (successor, int, error) {
		socket, err := admin.file()
		if err != nil {
			return nil, 0, fmt.Errorf("admin: %w", err)
		}
		defer socket.Close()
		return upgrader.upgrade(ctx, relay, socket, relay.Addrs())
	}
	supervisor.ready(s.status)
	err = s.serve(signals)
	summarize(log, relay.Stats(), recorders)
	return err
}

// inherited returns the inheritance of an upgrade, empty if this is none, and the sockets that
// systemd passed.
func inherited() (before *inheritance, passed []passedSocket, err error) {
	if before, err = inherit(); err != nil {
		return nil, nil, err
	}
	if before == nil {
		before = new(inheritance)
	}
	passed, err = passedSockets()
	return before, passed, err
}

// open returns a new engine, or one that takes over from the old process.
func (i *inheritance) open(o engine.Options) (*engine.Engine, error) {
	if i.Relay == 0 {
		return engine.New(o)
	}
	conn, err := unixConn(i.Relay)
	if err != nil {
		return nil, fmt.Errorf("%s: %w; unset it, it is for upgrades", inheritVariable, err)
	}
	e, err := engine.TakeOver(context.Background(), o, conn)
	if err != nil {
		conn.Close()
	}
	return e, err
}

// statusOf returns the status that the service manager shows during normal operation.
func statusOf(listening []netip.AddrPort) string {
	texts := make([]string, len(listening))
	for i, address := range listening {
		texts[i] = address.String()
	}
	return "relaying connections to " + strings.Join(texts, ", ")
}

func (c *runCmd) adminOptions(log *slog.Logger, metrics []prometheus.Collector) admin.Options {
	o := admin.Options{Logger: log, Metrics: metrics}
	for _, name := range c.AdminHost {
		o.Hosts = append(o.Hosts, string(name))
	}
	return o
}

// logger returns a logger that writes to queue. The queue's notices about dropped lines have
// the same format, and are written at every log level.
func (c *runCmd) logger(queue *logQueue) *slog.Logger {
	queue.say(func(w io.Writer, lines uint64) {
		record := slog.NewRecord(time.Now(), slog.LevelWarn, "log lines were dropped", 0)
		record.Add("lines", lines)
		_ = c.handler(w).Handle(context.Background(), record) // w is a buffer and cannot fail
	})
	return slog.New(c.handler(queue))
}

func (c *runCmd) handler(w io.Writer) slog.Handler {
	options := &slog.HandlerOptions{Level: c.level()}
	if c.LogFormat == "json" {
		return slog.NewJSONHandler(w, options)
	}
	return slog.NewTextHandler(w, options)
}

// level returns the level of --log-level. kong has checked the name.
func (c *runCmd) level() (level slog.Level) {
	if err := level.UnmarshalText([]byte(c.LogLevel)); err != nil {
		return slog.LevelInfo
	}
	return level
}

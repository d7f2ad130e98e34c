package main

import (
	"time"

	"github.com/tprelay/tprelay/internal/cli"
)

// runCmd is the command line of tprelay run.
type runCmd struct {
	Mode     modeFlag     `required:"" placeholder:"MODE" group:"connections" help:"How connections reach the relay: tproxy or redirect (packet filter rules divert them; see tprelay rules), or forward (clients connect to the relay itself). tproxy needs root or CAP_NET_ADMIN."`
	Listen   []cli.Listen `sep:"none" placeholder:"ADDR:PORT" group:"connections" help:"Address to listen on: 127.0.0.1:9091, [::1]:9091, or :9091 for all addresses of both IP versions. May be repeated. Port 0 picks a free port. Default: the sockets that systemd passes."`
	Upstream string       `placeholder:"HOST:PORT" group:"connections" help:"Destination of all connections in forward mode. A host name is looked up once, at the start."`
	Spoof    spoofFlag    `placeholder:"POLICY" group:"connections" help:"Source address of outgoing connections: full (the client's address and port; if the port is taken, its address only), ip (the client's address), none (this host's address). full,none and ip,none fall back to this host's address. Default: full in tproxy mode, otherwise none. full and ip need root or CAP_NET_ADMIN."`
	Mark     markFlag     `placeholder:"N" group:"connections" help:"Mark of outgoing packets (SO_MARK), decimal or 0x, so that rules can recognise them. Needs CAP_NET_ADMIN. Default: no mark."`

	Deny       []networkFlag `placeholder:"CIDR" group:"access" help:"Reset connections to this network or address, such as 10.0.0.0/8 or 192.0.2.1. May be repeated."`
	AllowLocal bool          `group:"access" help:"Allow diverted connections to loopback and to this host's own addresses. Default: they are reset."`
	User       string        `placeholder:"NAME" group:"access" help:"Run as this user (name or number). The user is changed before any file is opened. Needs root. Default: the user that starts the program."`

	Intercept     []string `sep:"none" placeholder:"SPEC" group:"bytes" help:"Inspect or change the bytes of both directions: label=TEXT (insert TEXT before each read), replace=OLD:NEW, record=DIR (copy to files). Escapes: \\: \\n \\\\ \\x00. May be repeated; each one gets the output of the one before."`
	HighWatermark size     `default:"1MiB" placeholder:"SIZE" group:"bytes" help:"Stop reading when this many bytes of one direction wait for the receiver. Default: ${default}."`
	LowWatermark  *size    `placeholder:"SIZE" group:"bytes" help:"Resume reading when no more than this many bytes wait. Default: a quarter of --high-watermark."`
	NoFlowControl bool     `group:"bytes" help:"Never stop reading: memory grows up to --memory-limit. For demonstrations only."`
	NoSplice      bool     `group:"bytes" help:"Copy all bytes through user space instead of using splice(2)."`

	Loops             int           `default:"0" placeholder:"N" group:"cpu" help:"Number of event loops. Default: 0, one per CPU."`
	TimeSlice         time.Duration `default:"8ms" placeholder:"TIME" group:"cpu" help:"Time slice of the relay's threads on CPUs that other programs use too. A longer slice means fewer preemptions; the relay's share of the CPU stays the same. 0: the kernel's default. Needs Linux 6.12. Default: ${default}."`
	NoBatch           bool          `group:"cpu" help:"Keep the scheduling policy that the program is started with, usually SCHED_OTHER. Default: SCHED_BATCH. On a shared CPU the relay then does not preempt the running program when it wakes up, and does more work per wake-up."`
	MaxPairs          int           `default:"0" placeholder:"N" group:"limits" help:"Relay at most N connections at once. Excess clients wait in the kernel's backlog. Default: 0, no limit."`
	MaxPairsPerSource int           `default:"0" placeholder:"N" group:"limits" help:"Relay at most N connections of one client address (IPv6: of one /64 network) at once. Excess connections are reset. Default: 0, no limit."`
	MemoryLimit       size          `default:"256MiB" placeholder:"SIZE" group:"limits" help:"Limit for the bytes that wait in all connections together. Default: ${default}."`
	ConnectTimeout    time.Duration `default:"5s" placeholder:"TIME" group:"limits" help:"Reset the client if the outgoing connection is not established after TIME. 0: wait as long as the kernel tries. Default: ${default}."`
	IdleTimeout       time.Duration `default:"0" placeholder:"TIME" group:"limits" help:"Reset both sides if nothing was read, written or acknowledged for TIME. Default: 0, never."`
	HalfCloseTimeout  time.Duration `default:"60s" placeholder:"TIME" group:"limits" help:"Like --idle-timeout, once one side has finished sending and both have acknowledged everything. 0: never. Default: ${default}."`
	DrainTimeout      time.Duration `default:"30s" placeholder:"TIME" group:"limits" help:"After SIGTERM or SIGINT, wait up to TIME for connections to end, then reset the rest. 0: do not wait. Default: ${default}."`

	UserTimeout       time.Duration  `default:"0" placeholder:"TIME" group:"limits" help:"End a connection if sent data stays unacknowledged for TIME, even if the receiver is alive and only does not read (TCP_USER_TIMEOUT). Default: 0, the kernel's rule."`
	KeepAlive         *time.Duration `placeholder:"TIME" group:"limits" help:"Probe a connection that was silent for TIME, in whole seconds (TCP_KEEPIDLE). 0: never. Default: the kernel's, usually two hours."`
	KeepAliveInterval time.Duration  `default:"0" placeholder:"TIME" group:"limits" help:"Time between two probes (TCP_KEEPINTVL). Default: 0, the kernel's, usually 75s, but no more than --keep-alive if that is given."`
	KeepAliveCount    int            `default:"0" placeholder:"N" group:"limits" help:"End the connection after N unanswered probes (TCP_KEEPCNT). Default: 0, the kernel's, usually 9."`
	UpgradeTimeout    time.Duration  `default:"30s" placeholder:"TIME" group:"limits" help:"After SIGUSR2, time within which the new process must have taken over. Default: ${default}."`

	AccessLog string     `placeholder:"FILE" group:"logs" help:"Write one JSON line for each connection that ends. - is standard output. SIGHUP reopens the file. Default: none."`
	Admin     adminFlag  `placeholder:"ADDR:PORT" group:"logs" help:"Serve metrics (/metrics, for Prometheus), connections (/pairs) and a live page (/) over HTTP. There is no password: use 127.0.0.1:PORT, or an address that only operators can reach. Default: none."`
	AdminHost []hostFlag `placeholder:"NAME" group:"logs" help:"Host name that clients of --admin may use, besides IP addresses, localhost and this host's own name. May be repeated. Other names are refused, so that a web page cannot read it through a browser (DNS rebinding)."`
	LogLevel  string     `default:"info" enum:"debug,info,warn,error" placeholder:"LEVEL" group:"logs" help:"Lowest level to log to standard error: debug, info, warn or error. Default: ${default}."`
	LogFormat string     `default:"text" enum:"text,json" placeholder:"FORMAT" group:"logs" help:"Format of the log: text or json. Default: ${default}."`
}

// Help returns the part of --help above the flags.
func (*runCmd) Help() string {
	return `
To try it without privileges: connections to port 9091 go to port 80 of example.com.

    tprelay run --mode forward --listen 127.0.0.1:9091 --upstream example.com:80

On a gateway, transparent for both sides: TPROXY rules divert connections that arrive on eth1, and servers see the
clients' addresses.

    tprelay run --mode tproxy --listen :9091
    tprelay rules print --mode tproxy --listen :9091 --in eth1

The same with REDIRECT rules: servers see the address of this host.

    tprelay run --mode redirect --listen :9091
    tprelay rules print --mode redirect --listen :9091 --in eth1

Signals: SIGTERM or SIGINT stops listening and waits for connections to end (see --drain-timeout); a second one resets them
at once. SIGHUP reopens the access log. SIGUSR2 upgrades: it starts the program file with the same flags, and the new process
takes over listeners and connections. If the new process fails, this one continues.

After the start the program drops all privileges except those that its flags need: at most CAP_NET_ADMIN (or CAP_NET_RAW, if
that is the only one it has) and CAP_NET_BIND_SERVICE.

Exit status: 0 after draining, 1 after a failure or a second signal, 2 for a wrong command line.
`
}

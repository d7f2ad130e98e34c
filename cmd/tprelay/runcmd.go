package main

import (
	"time"

	"github.com/tprelay/tprelay/internal/cli"
)

// runCmd is the command line of tprelay run.
type runCmd struct {
	Mode     modeFlag     `required:"" placeholder:"MODE" group:"connections" help:"How connections come: tproxy or redirect (diverted by packet filter rules; see tprelay rules), or forward (clients connect to the relay on purpose). tproxy needs root or CAP_NET_ADMIN."`
	Listen   []cli.Listen `sep:"none" placeholder:"ADDR:PORT" group:"connections" help:"Where to take connections: 127.0.0.1:9091, [::1]:9091, or :9091 for all addresses of both IP versions. May be given several times. Port 0 picks a free one. Default: the sockets that systemd passes, if it does."`
	Upstream string       `placeholder:"HOST:PORT" group:"connections" help:"Where all connections go in forward mode, and only there. A host name is looked up once, at the start."`
	Spoof    spoofFlag    `placeholder:"POLICY" group:"connections" help:"Source address of outgoing connections: full (the client's address and port; if that is taken, its address alone), ip (the client's address), none (this host's). full,none and ip,none fall back to this host's address. Default: full in tproxy mode, otherwise none. full and ip need root or CAP_NET_ADMIN."`
	Mark     markFlag     `placeholder:"N" group:"connections" help:"Mark outgoing packets (SO_MARK), so that rules can tell them; 0x works. Needs CAP_NET_ADMIN. Default: no mark."`

	Deny       []networkFlag `placeholder:"CIDR" group:"connections" help:"Reset connections to this network or address, such as 10.0.0.0/8 or 192.0.2.1. May be given several times."`
	AllowLocal bool          `group:"connections" help:"Let diverted connections go to loopback and to this host's own addresses. Default: they are reset."`
	User       string        `placeholder:"NAME" group:"connections" help:"Become this user, by name or number, before anything is opened; needs root. Default: stay who it is."`

	Intercept     []string `sep:"none" placeholder:"SPEC" group:"bytes" help:"Look at or change the bytes, in both directions: label=TEXT (put TEXT before each read), replace=OLD:NEW, record=DIR (write to files). Escapes: \\: \\n \\\\ \\x00. May be given several times; each sees what the one before it made."`
	HighWatermark size     `default:"1MiB" placeholder:"SIZE" group:"bytes" help:"Stop reading when so many bytes of one direction wait for the receiver. Default: ${default}."`
	LowWatermark  *size    `placeholder:"SIZE" group:"bytes" help:"Read again when no more than this waits. Default: a quarter of --high-watermark."`
	NoFlowControl bool     `group:"bytes" help:"Never stop reading: memory grows up to --memory-limit. To show what flow control is for; not for use."`
	NoSplice      bool     `group:"bytes" help:"Move all bytes through user space instead of by splice(2)."`

	Loops             int           `default:"0" placeholder:"N" group:"limits" help:"Event loops. Default: 0, one per CPU."`
	TimeSlice         time.Duration `default:"8ms" placeholder:"TIME" group:"limits" help:"Ask the kernel to let the relay's threads run for TIME at once where CPUs are shared, for fewer interruptions; its part of the CPU stays the same. 0: the kernel's own. Linux 6.12 and later. Default: ${default}."`
	NoBatch           bool          `group:"limits" help:"Let the relay interrupt who runs when it is woken (the policy that it is started with, usually SCHED_OTHER). Default: SCHED_BATCH: where CPUs are shared it waits for its turn, and then does more at once."`
	MaxPairs          int           `default:"0" placeholder:"N" group:"limits" help:"Relay at most N connections at once; more wait in the kernel's backlog. Default: 0, no limit."`
	MaxPairsPerSource int           `default:"0" placeholder:"N" group:"limits" help:"Relay at most N connections of one client address (IPv6: of one /64 network) at once; more are reset. Default: 0, no limit."`
	MemoryLimit       size          `default:"256MiB" placeholder:"SIZE" group:"limits" help:"Bytes that may wait in all directions together. Default: ${default}."`
	ConnectTimeout    time.Duration `default:"5s" placeholder:"TIME" group:"limits" help:"Reset the client when the outgoing connection does not stand after TIME; 0: as long as the kernel tries. Default: ${default}."`
	IdleTimeout       time.Duration `default:"0" placeholder:"TIME" group:"limits" help:"Reset both sides when nothing was read, written or acknowledged for TIME. Default: 0, never."`
	HalfCloseTimeout  time.Duration `default:"60s" placeholder:"TIME" group:"limits" help:"The same when one side has finished sending and both have acknowledged everything; 0: never. Default: ${default}."`
	DrainTimeout      time.Duration `default:"30s" placeholder:"TIME" group:"limits" help:"After SIGTERM or SIGINT, wait for connections to end by themselves, then reset the rest; 0: do not wait. Default: ${default}."`

	UserTimeout       time.Duration  `default:"0" placeholder:"TIME" group:"limits" help:"End a connection when what was sent on it stays unacknowledged for TIME, also where the receiver is alive and just does not read (TCP_USER_TIMEOUT). Default: 0, the kernel's own rule."`
	KeepAlive         *time.Duration `placeholder:"TIME" group:"limits" help:"Probe a connection that was silent for TIME, in whole seconds (TCP_KEEPIDLE); 0: never. Default: the kernel's own, usually two hours."`
	KeepAliveInterval time.Duration  `default:"0" placeholder:"TIME" group:"limits" help:"Time between two probes (TCP_KEEPINTVL). Default: 0, the kernel's own, usually 75s, but no more than --keep-alive where that is given."`
	KeepAliveCount    int            `default:"0" placeholder:"N" group:"limits" help:"So many probes without an answer end the connection (TCP_KEEPCNT). Default: 0, the kernel's own, usually 9."`
	UpgradeTimeout    time.Duration  `default:"30s" placeholder:"TIME" group:"limits" help:"After SIGUSR2, how long the new program may take until it serves and has taken everything over. Default: ${default}."`

	AccessLog string     `placeholder:"FILE" group:"logs" help:"Write one JSON line for each connection that ends; - is standard output. Reopened on SIGHUP. Default: none."`
	Admin     adminFlag  `placeholder:"ADDR:PORT" group:"logs" help:"Show metrics (/metrics, for Prometheus), connections (/pairs) and a live page (/) over HTTP. There is no password: use 127.0.0.1:PORT, or an address that only operators reach. Default: none."`
	AdminHost []hostFlag `placeholder:"NAME" group:"logs" help:"Answer on --admin also to clients that ask for this host by NAME. May be given several times. Default: IP addresses, localhost and the host's own name only, so that no web page can make a browser read it by a name of its own (DNS rebinding)."`
	LogLevel  string     `default:"info" enum:"debug,info,warn,error" placeholder:"LEVEL" group:"logs" help:"What to log to standard error: debug, info, warn or error. Default: ${default}."`
	LogFormat string     `default:"text" enum:"text,json" placeholder:"FORMAT" group:"logs" help:"How: text or json. Default: ${default}."`
}

// Help is the part of --help that is above the flags.
func (*runCmd) Help() string {
	return `
Without privileges, to see it work: everything that comes to port 9091 goes to port 80 of example.com.

    tprelay run --mode forward --listen 127.0.0.1:9091 --upstream example.com:80

On a gateway, transparent for both sides: TPROXY rules hand over connections that come in on eth1, and servers see the
clients' addresses.

    tprelay run --mode tproxy --listen :9091
    tprelay rules print --mode tproxy --listen :9091 --in eth1

The same with REDIRECT rules: servers see the address of this host.

    tprelay run --mode redirect --listen :9091
    tprelay rules print --mode redirect --listen :9091 --in eth1

Signals: SIGTERM or SIGINT stops listening and waits for connections to end (see --drain-timeout); a second one resets them
at once. SIGHUP reopens the access log. SIGUSR2 starts the program anew, from the file that is there now and with the same flags,
and hands it listeners and connections; if the new one does not come up, this one goes on.

Once everything is open, it gives up all privileges but CAP_NET_ADMIN (or CAP_NET_RAW, where that is all there is) and CAP_NET_BIND_SERVICE, and those too where they are not needed.

Exit status: 0 after draining, 1 after a failure or a second signal, 2 for a wrong command line.
`
}

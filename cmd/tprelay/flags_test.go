package main

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/tprelay/tprelay/engine"
	"github.com/tprelay/tprelay/internal/cli"
	"github.com/tprelay/tprelay/tproxy"
)

// parseRun reads the flags of tprelay run.
func parseRun(t *testing.T, args ...string) (*runCmd, error) {
	t.Helper()
	c := new(commands)
	parser, err := application(nil).Parser(c, io.Discard, io.Discard, func(int) {})
	if err != nil {
		t.Fatal(err)
	}
	if _, err = parser.Parse(append([]string{"run"}, args...)); err != nil {
		return nil, err
	}
	return &c.Run, nil
}

// forwarding are the flags that forward mode needs, and args.
func forwarding(args ...string) []string {
	return append([]string{"--mode", "forward", "--listen", "127.0.0.1:0", "--upstream", "192.0.2.1:80"}, args...)
}

func TestFlags(t *testing.T) {
	c, err := parseRun(t, "--mode=TPROXY", "--listen", ":9091", "--listen=127.0.0.1:9092", "--listen", "[::ffff:127.0.0.1]:0",
		"--spoof", "full,none", "--mark", "0x74", "--high-watermark=1MiB", "--low-watermark", "64KB", "--memory-limit", "1GiB",
		"--no-flow-control", "--no-splice", "--intercept", "label=a,b", "--intercept=replace=x:y", "--loops", "3", "--max-pairs=7",
		"--deny", "10.0.0.0/8,2001:db8::/32", "--deny=192.0.2.1", "--allow-local", "--max-pairs-per-source", "9", "--user-timeout", "20s",
		"--keep-alive", "30s", "--keep-alive-interval", "5s", "--keep-alive-count=3", "--user", "nobody", "--upgrade-timeout", "7s",
		"--connect-timeout", "1s", "--idle-timeout=2m", "--half-close-timeout", "0", "--drain-timeout", "1h",
		"--access-log", "-", "--log-level", "debug", "--log-format", "json")
	if err != nil {
		t.Fatal(err)
	}
	var listen []string
	for _, l := range c.Listen {
		listen = append(listen, l.String())
	}
	got := fmt.Sprintln(c.Mode, listen, c.Spoof, c.Mark, c.HighWatermark, *c.LowWatermark, c.MemoryLimit, c.NoFlowControl, c.NoSplice,
		c.Deny, c.AllowLocal, c.MaxPairsPerSource, c.UserTimeout, *c.KeepAlive, c.KeepAliveInterval, c.KeepAliveCount, c.User, c.UpgradeTimeout,
		c.Intercept, len(c.Intercept), c.Loops, c.MaxPairs, c.ConnectTimeout, c.IdleTimeout, c.HalfCloseTimeout, c.DrainTimeout, c.AccessLog, c.LogLevel, c.LogFormat)
	want := "tproxy [[::]:9091 127.0.0.1:9092 127.0.0.1:0] full,none 116 1MiB 64000 1GiB true true " +
		"[10.0.0.0/8 2001:db8::/32 192.0.2.1/32] true 9 20s 30s 5s 3 nobody 7s " +
		"[label=a,b replace=x:y] 2 3 7 1s 2m0s 0s 1h0m0s - debug json\n"
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if err := c.check(); err != nil {
		t.Error(err)
	}
	if got := c.keepAlive(); got != (net.KeepAliveConfig{Enable: true, Idle: 30 * time.Second, Interval: 5 * time.Second, Count: 3}) {
		t.Errorf("%+v", got)
	}
}

func TestFlagDefaultsAreTheEngines(t *testing.T) {
	c, err := parseRun(t, forwarding()...)
	if err != nil {
		t.Fatal(err)
	}
	o := c.options([]listenAt{{address: netip.MustParseAddrPort("127.0.0.1:1")}}, netip.MustParseAddrPort("192.0.2.1:80"), nil)
	if o.HighWatermark != engine.DefaultHighWatermark || o.LowWatermark != 0 || o.MemoryLimit != engine.DefaultMemoryLimit || o.ConnectTimeout != engine.DefaultConnectTimeout ||
		o.IdleTimeout != 0 || o.HalfCloseTimeout != engine.DefaultHalfCloseTimeout || o.DrainTimeout != 30*time.Second || o.Loops != 0 ||
		o.Spoof != tproxy.SpoofDefault || o.Mark != 0 || o.MaxPairs != 0 || o.MaxPairsPerSource != 0 || o.Deny != nil || o.AllowLocal ||
		o.UserTimeout != 0 || o.KeepAlive != (net.KeepAliveConfig{}) || o.NoFlowControl || o.NoSplice {
		t.Errorf("%+v", o)
	}
	if len(o.Listeners) != 1 || o.Listeners[0].Mode != tproxy.Forward || o.Listeners[0].Upstream.String() != "192.0.2.1:80" {
		t.Errorf("%+v", o.Listeners)
	}
}

func TestZeroTurnsTimeoutsOff(t *testing.T) {
	c, err := parseRun(t, forwarding("--keep-alive", "0", "--connect-timeout", "0", "--half-close-timeout", "0s", "--drain-timeout", "0")...)
	if err != nil {
		t.Fatal(err)
	}
	o := c.options(nil, netip.AddrPort{}, nil)
	if o.KeepAlive != (net.KeepAliveConfig{Idle: -1}) || o.ConnectTimeout >= 0 || o.HalfCloseTimeout >= 0 || o.DrainTimeout >= 0 {
		t.Errorf("%+v", o)
	}
}

func TestWrongFlagsExitWith2(t *testing.T) {
	for _, c := range []struct {
		args []string
		want string
	}{
		{nil, "expected one of"},
		{[]string{"walk"}, "unexpected argument walk"},
		{[]string{"run"}, "missing flags: --mode=MODE; see tprelay run --help"},
		{[]string{"run", "--mode", "tproxy"}, "--listen ADDR:PORT is missing, and systemd has passed no socket"},
		{[]string{"run", "--mode", "bridge", "--listen", ":1"}, `mode "bridge": want tproxy, redirect or forward`},
		{[]string{"run", "--mode", "tproxy", "--listen", "localhost:1"}, `--listen: "localhost:1": want ADDR:PORT with an IP address`},
		{[]string{"run", "--mode", "tproxy", "--listen", ":"}, `":": want ADDR:PORT`},
		{[]string{"run", "--mode", "tproxy", "--listen", ":99999"}, `":99999": want ADDR:PORT`},
		{[]string{"run", "--mode", "tproxy", "--listen", ":1", "--listen", "[::]:1"}, "--listen [::]:1: given twice"},
		{[]string{"run", "--mode", "forward", "--listen", ":1"}, "--mode forward needs --upstream HOST:PORT"},
		{[]string{"run", "--mode", "redirect", "--listen", ":1", "--upstream", "a:1"}, "--upstream is for --mode forward; in redirect mode"},
		{append([]string{"run"}, forwarding("--upstream", "192.0.2.1")...), `--upstream "192.0.2.1": want HOST:PORT`},
		{append([]string{"run"}, forwarding("--upstream", ":80")...), `--upstream ":80": want HOST:PORT`},
		{append([]string{"run"}, forwarding("--upstream", "192.0.2.1:0")...), "want a port from 1 to 65535"},
		{append([]string{"run"}, forwarding("--spoof", "half")...), `spoof "half": want full, ip, none`},
		{append([]string{"run"}, forwarding("--mark", "-")...), `--mark: "-": want a number`},
		{append([]string{"run"}, forwarding("--mark", "0x100000000")...), "want a number up to 0xffffffff"},
		{append([]string{"run"}, forwarding("--high-watermark", "1KiB")...), "--high-watermark 1KiB: want 4KiB to 1GiB"},
		{append([]string{"run"}, forwarding("--high-watermark", "lots")...), `size "lots": want bytes`},
		{append([]string{"run"}, forwarding("--low-watermark", "1MiB")...), "--low-watermark 1MiB: want less than"},
		{append([]string{"run"}, forwarding("--memory-limit", "1KB")...), "--memory-limit 1000: want at least 1MiB"},
		{append([]string{"run"}, forwarding("--loops", "257")...), "--loops 257: want 1 to 256"},
		{append([]string{"run"}, forwarding("--time-slice", "1us")...), "--time-slice 1µs: want 100µs to 100ms, or 0 for the kernel's default"},
		{append([]string{"run"}, forwarding("--time-slice=1s")...), "--time-slice 1s: want 100µs to 100ms, or 0 for the kernel's default"},
		{append([]string{"run"}, forwarding("--max-pairs=-1")...), "--max-pairs -1: want a positive number"},
		{append([]string{"run"}, forwarding("--max-pairs-per-source=-1")...), "--max-pairs-per-source -1: want a positive number"},
		{append([]string{"run"}, forwarding("--deny", "10.0.0.0/33")...), `--deny: "10.0.0.0/33": want a network such as 10.0.0.0/8, or an address`},
		{append([]string{"run"}, forwarding("--deny", "example.com")...), `"example.com": want a network`},
		{append([]string{"run"}, forwarding("--allow-local")...), "--allow-local is for --mode tproxy and redirect"},
		{append([]string{"run"}, forwarding("--user-timeout=-1s")...), "--user-timeout -1s: want 0 or more"},
		{append([]string{"run"}, forwarding("--user-timeout=1us")...), "--user-timeout 1µs: want 1ms to 596h31m23.647s, or 0"},
		{append([]string{"run"}, forwarding("--keep-alive=-1s")...), "--keep-alive -1s: want up to 9h6m7s, or 0 for never"},
		{append([]string{"run"}, forwarding("--keep-alive=10h")...), "--keep-alive 10h0m0s: want up to 9h6m7s"},
		{append([]string{"run"}, forwarding("--keep-alive-interval=-1s")...), "--keep-alive-interval -1s: want up to 9h6m7s"},
		{append([]string{"run"}, forwarding("--keep-alive-count=128")...), "--keep-alive-count 128: want up to 127"},
		{append([]string{"run"}, forwarding("--keep-alive=0", "--keep-alive-count=3")...), "--keep-alive 0 turns probes off"},
		{append([]string{"run"}, forwarding("--upgrade-timeout=0")...), "--upgrade-timeout 0s: want more than 0"},
		{append([]string{"run"}, forwarding("--idle-timeout=-1s")...), "--idle-timeout -1s: want 0 or more"},
		{append([]string{"run"}, forwarding("--drain-timeout", "30")...), "--drain-timeout: expected duration"},
		{append([]string{"run"}, forwarding("--admin-host", "gateway:80", "--admin", "127.0.0.1:1")...), `--admin-host: "gateway:80": want a host name without a port`},
		{append([]string{"run"}, forwarding("--admin-host", "gateway")...), "--admin-host needs --admin ADDR:PORT"},
		{append([]string{"run"}, forwarding("--log-level", "loud")...), "--log-level must be one of"},
		{append([]string{"run"}, forwarding("--intercept", "label")...), "--intercept: interceptor \"label\": label needs an argument"},
		{append([]string{"run"}, forwarding("--intercept", "a\nb")...), `interceptor "a\nb": want label=TEXT`},
		{append([]string{"run"}, forwarding("--intercept", "record=/nowhere/at/all")...), "create it first"},
	} {
		var stdout, stderr bytes.Buffer
		status := program(c.args, &stdout, &stderr)
		text := stderr.String()
		if status != cli.Usage || !strings.HasPrefix(text, "tprelay: ") || strings.Count(text, "\n") != 1 || !strings.Contains(text, c.want) || stdout.Len() > 0 {
			t.Errorf("%q: status %d, %q; want %q", c.args, status, text, c.want)
		}
	}
}

func TestHelpAndVersion(t *testing.T) {
	for _, c := range []struct {
		args []string
		want []string
	}{
		{[]string{"--help"}, []string{"run", "rules", "version"}},
		{[]string{"run", "--help"}, []string{
			"tprelay run --mode forward --listen 127.0.0.1:9091 --upstream example.com:80",
			"tprelay run --mode tproxy", "tprelay run --mode redirect", "--high-watermark", "1MiB", "Default: 5s", "Exit status", "Limits and timeouts"}},
		{[]string{"version"}, []string{"tprelay ", "linux/"}},
		{[]string{"--version"}, []string{"tprelay ", "linux/"}},
	} {
		var stdout, stderr bytes.Buffer
		if status := program(c.args, &stdout, &stderr); status != cli.OK || stderr.Len() > 0 {
			t.Errorf("%q: status %d, %q", c.args, status, &stderr)
		}
		for _, want := range c.want {
			if !strings.Contains(stdout.String(), want) {
				t.Errorf("%q: no %q in\n%s", c.args, want, &stdout)
			}
		}
	}
}

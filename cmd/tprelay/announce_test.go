package main

import (
	"bytes"
	"log/slog"
	"net/netip"
	"reflect"
	"strings"
	"testing"

	"github.com/tprelay/tprelay/engine"
	"github.com/tprelay/tprelay/intercept"
	"github.com/tprelay/tprelay/tproxy"
)

func TestRulesHints(t *testing.T) {
	for _, c := range []struct {
		mode   tproxy.Mode
		spoof  tproxy.Spoof
		listen string
		want   []string
	}{
		{tproxy.Forward, 0, "127.0.0.1:9091", nil},
		{tproxy.TPROXY, 0, "[::]:9091", []string{"tprelay rules print --mode tproxy --listen [::]:9091 --in IFACE"}},
		{tproxy.TPROXY, 0, "127.0.0.1:9091 [::1]:9091", []string{"tprelay rules print --mode tproxy --listen 127.0.0.1:9091 --listen [::1]:9091 --in IFACE"}},
		{tproxy.TPROXY, 0, "127.0.0.1:1 127.0.0.1:2", []string{
			"tprelay rules print --mode tproxy --listen 127.0.0.1:1 --in IFACE",
			"tprelay rules print --mode tproxy --listen 127.0.0.1:2 --in IFACE"}},
		{tproxy.Redirect, 0, "0.0.0.0:9091", []string{"tprelay rules print --mode redirect --listen 0.0.0.0:9091 --in IFACE"}},
		{tproxy.Redirect, tproxy.SpoofIP, "0.0.0.0:9091", []string{"tprelay rules print --mode redirect --listen 0.0.0.0:9091 --in IFACE --transparent"}},
	} {
		cmd := &runCmd{Mode: modeFlag{c.mode}, Spoof: spoofFlag{c.spoof}}
		var listening []netip.AddrPort
		for _, l := range strings.Fields(c.listen) {
			listening = append(listening, netip.MustParseAddrPort(l))
		}
		if got := cmd.rulesHints(listening); !reflect.DeepEqual(got, c.want) {
			t.Errorf("%v on %s: %q, want %q", c.mode, c.listen, got, c.want)
		}
	}
}

// TestRulesHintsAreCommands: what is recommended must parse.
func TestRulesHintsAreCommands(t *testing.T) {
	cmd := &runCmd{Mode: modeFlag{tproxy.Redirect}, Spoof: spoofFlag{tproxy.SpoofFull}}
	for _, hint := range cmd.rulesHints([]netip.AddrPort{netip.MustParseAddrPort("[::]:9091")}) {
		parser, err := application(nil).Parser(new(commands), new(bytes.Buffer), new(bytes.Buffer), func(int) {})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := parser.Parse(strings.Fields(hint)[1:]); err != nil {
			t.Errorf("%s: %v", hint, err)
		}
	}
}

func TestAnnounce(t *testing.T) {
	var out bytes.Buffer
	cmd := &runCmd{Mode: modeFlag{tproxy.TPROXY}, Mark: 0x7470, NoFlowControl: true, LogLevel: "warn", LogFormat: "text"}
	cmd.announce(slog.New(slog.NewTextHandler(&out, nil)), []netip.AddrPort{netip.MustParseAddrPort("[::]:9091")}, netip.AddrPort{})
	for _, want := range []string{`msg=listening address=[::]:9091 mode=tproxy loops=`, "tprelay rules print", "--mark equals the mark", "flow control is off"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in\n%s", want, &out)
		}
	}
}

func TestSummary(t *testing.T) {
	r, err := intercept.Record(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	cmd := &runCmd{LogLevel: "debug", LogFormat: "json"}
	queue := newLogQueue(&out)
	summarize(cmd.logger(queue), engine.Stats{
		Ended:          map[engine.Reason]uint64{engine.ReasonEOF: 3, engine.ReasonDrained: 2},
		DialErrors:     map[string]uint64{"ECONNREFUSED": 1},
		Opened:         4,
		UpstreamSplice: 10, UpstreamBuffer: 5, DownstreamSplice: 1, DownstreamBuffer: 1,
	}, []*intercept.Recorder{r})
	queue.close(forever)
	for _, want := range []string{
		`"connections were reset at the end of draining","pairs":2`,
		`"msg":"ended","pairs":5,"opened":4,"dial_errors":1,"upstream_bytes":15,"downstream_bytes":2`,
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in\n%s", want, &out)
		}
	}
	if strings.Contains(out.String(), "recordings") {
		t.Error("complete recordings are called incomplete")
	}
}

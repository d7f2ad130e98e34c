package relays

import (
	_ "embed"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"text/template"

	"golang.org/x/sys/unix"
)

//go:embed haproxy.cfg.tmpl
var haproxyConfig string

// haproxyPipe is the size of HAProxy's pipes in bytes.
const haproxyPipe = 1 << 20

// haproxySettings are what the configuration is made with.
type haproxySettings struct {
	Listen                         netip.AddrPort
	Threads                        int
	Splice, Transparent, Batch     bool
	Descriptors, Maxconn, Maxpipes uint64
	PipeSize                       int
}

// haproxies are HAProxy in several settings.
func haproxies() []Relay {
	title := "HAProxy" + version("haproxy", "-v", `(?i)version ([0-9]+(?:\.[0-9]+)*)`)
	const advice = "haproxy.cfg.tmpl quotes HAProxy's manual for each line: TPROXY with usesrc client, long timeouts, no logs and checks"
	of := func(name, kind, more string, settings haproxySettings) Relay {
		return Relay{
			Name: name, Title: title + ", " + kind, Advice: advice + "; " + more, Way: Transparent,
			program: "haproxy", debian: "haproxy", shares: true, both: true,
			Default: true, Variant: name != "haproxy",
			recipe: settings.processes,
		}
	}
	const splice = "option splice-request and splice-response (splice-auto never spliced here), pipes of 1 MiB"
	return []Relay{
		of("haproxy", "splice, 1 thread", splice+".", haproxySettings{Threads: 1, Splice: true}),
		// tprelay asks for SCHED_BATCH by itself, so this shows what is the engine's doing and what
		// the scheduler's.
		of("haproxy-batch", "splice, 1 thread, SCHED_BATCH", splice+"; under SCHED_BATCH (chrt -b), as tprelay runs by default.", haproxySettings{Threads: 1, Splice: true, Batch: true}),
		of("haproxy-2threads", "splice, 2 threads", splice+"; nbthread 2.", haproxySettings{Threads: 2, Splice: true}),
		of("haproxy-copy", "no splice, 1 thread", "nosplice, and the larger buffers that its author proposes for bulk (haproxy/haproxy issue 674).", haproxySettings{Threads: 1}),
	}
}

// processes writes the configuration. HAProxy runs in the foreground, without a master process, as
// our own user.
func (h haproxySettings) processes(s site) ([]process, error) {
	path, err := lookup("haproxy")
	if err != nil {
		return nil, err
	}
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return nil, fmt.Errorf("limit of descriptors: %w", err)
	}
	h.Listen, h.Transparent = s.listen, s.way == Transparent
	h.size(limit.Max)
	config := filepath.Join(s.dir, "haproxy.cfg")
	if err := h.write(config); err != nil {
		return nil, fmt.Errorf("configuration of haproxy: %w", err)
	}
	args := []string{path, "-db", "-f", config}
	if h.Batch {
		args = append([]string{"chrt", "-b", "0"}, args...) // which becomes HAProxy
	}
	return []process{{args: args, ports: []uint16{s.listen.Port()}}}, nil
}

// size divides the descriptors between connections and pipes: a tenth for pipes, and at most 20,000
// connections, for which HAProxy reserves memory.
func (h *haproxySettings) size(descriptors uint64) {
	const own = 100 // listeners, pollers, standard streams and HAProxy's own reserve
	const most = 20_000
	h.Descriptors, h.PipeSize = descriptors, haproxyPipe
	if h.Splice {
		h.Maxpipes = min(descriptors/20, most/4)
	}
	h.Maxconn = min((descriptors-2*h.Maxpipes-own)/2, most)
}

func (h haproxySettings) write(path string) error {
	t, err := template.New("haproxy.cfg").Parse(haproxyConfig)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	if err := t.Execute(f, h); err != nil {
		f.Close()
		return err
	}
	return f.Close()
}

package relays

import (
	"context"
	"errors"
	"net/netip"
	"path/filepath"
	"time"

	"github.com/tprelay/tprelay/internal/netlab"
	"github.com/tprelay/tprelay/rules"
)

// undoTimeout bounds what is undone, also after an interrupt.
const undoTimeout = 10 * time.Second

// divert diverts h1's connections to the server to the relay, until undo. The rules are the same
// for every relay. They exempt SYNs from the socket match, so that no relay suffers when clients
// reuse their ports.
func (s site) divert(ctx context.Context) (undo func() error, err error) {
	mode, diverted := s.way.mode()
	if !diverted {
		return func() error { return nil }, nil
	}
	cfg := rules.Config{
		Mode:   mode,
		Listen: []netip.AddrPort{s.listen},
		In:     []string{s.Lab.H2.Ifaces[0].Name},
		Ports:  rules.Ports{{First: s.Server.Port(), Last: next(s.Server).Port()}},
		// The hosts of a lab need nothing; others may check source addresses.
		SetSysctls: true,
		StateDir:   filepath.Join(s.dir, "rules"), // the default is root's
	}
	h2 := s.Lab.H2
	if err := h2.Do(func() error { return rules.Apply(ctx, cfg) }); err != nil {
		return nil, err
	}
	return func() error {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTimeout)
		defer cancel()
		return h2.Do(func() error { return rules.Remove(ctx, cfg) })
	}, nil
}

// settings are the kernel settings that are advised for a busy relay: it opens all its connections
// to few servers, and runs out of ports. See "HAProxy, high mysql request rate and TCP source port
// exhaustion", http://blog.haproxy.com/2012/12/12/. tcp_tw_reuse also helps a transparent relay
// when the client reuses a port.
func settings() [][2]string {
	return [][2]string{
		{"net.ipv4.tcp_tw_reuse", "1"},
		{"net.ipv4.ip_local_port_range", "1025 65000"},
	}
}

// tune changes the kernel settings of the relay's host, until undo.
func tune(h *netlab.Host) (undo func() error, err error) {
	var before [][2]string
	undo = func() error {
		var errs []error
		for _, s := range before {
			errs = append(errs, h.SetSysctl(s[0], s[1]))
		}
		return errors.Join(errs...)
	}
	for _, s := range settings() {
		old, err := h.Sysctl(s[0])
		if err == nil {
			err = h.SetSysctl(s[0], s[1])
		}
		if err != nil {
			return nil, errors.Join(err, undo())
		}
		before = append(before, [2]string{s[0], old})
	}
	return undo, nil
}

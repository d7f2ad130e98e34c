package rules

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Apply sets up the rules, the routing and, with SetSysctls, the kernel settings of c in the
// network namespace of the calling thread. They replace those of an earlier Apply. Apply is
// idempotent. It records what it changes, for Remove. If the first Apply in a namespace
// fails, it undoes what it did.
func Apply(ctx context.Context, c Config) error {
	c = c.WithDefaults()
	if err := c.Validate(); err != nil {
		return err
	}
	if err := privileged(); err != nil {
		return err
	}
	// Check first: most failures then happen before anything is changed.
	if err := c.loadable(ctx); err != nil {
		return err
	}
	unlock, err := lockState(c.StateDir)
	if err != nil {
		return err
	}
	defer unlock()
	old, err := loadState(c.StateDir)
	if err != nil {
		return err
	}
	next, err := c.plan(ctx, old)
	if err != nil {
		return err
	}
	if old != nil {
		if err := old.leave(ctx, c); err != nil {
			return err
		}
	}
	// The record is written first: Remove then works even if this process is killed half-way.
	err = next.save(c.StateDir)
	if err == nil {
		err = next.enforce(ctx)
	}
	if err != nil && old == nil {
		if undo := next.undo(context.WithoutCancel(ctx), c.StateDir); undo != nil {
			return fmt.Errorf("%w; and undoing it failed: %w", err, undo)
		}
	}
	return err
}

// loadable returns an error if the installed programs or the kernel cannot apply c.
func (c Config) loadable(ctx context.Context) error {
	if c.Backend == NFT {
		return c.checkNFT(ctx)
	}
	for _, f := range c.families() {
		if _, err := listIPTables(ctx, f); err != nil {
			return err
		}
		if _, err := find(f.iptables); err != nil {
			return err
		}
	}
	return nil
}

// plan returns the record of what applying c will change. For settings that old changed, it
// keeps the value from before the first change.
func (c Config) plan(ctx context.Context, old *state) (*state, error) {
	next := &state{Config: c}
	known := map[string]bool{}
	if old != nil {
		next.Sysctls = slices.Clone(old.Sysctls)
		next.NewTables = slices.Clone(old.NewTables)
		for _, e := range old.entries() {
			known[e.name] = !slices.Contains(old.Foreign, e.name)
		}
	}
	for _, e := range next.entries() {
		there, err := e.present()
		if err != nil {
			return nil, fmt.Errorf("%s: %w", e.name, err)
		}
		if there && !known[e.name] {
			next.Foreign = append(next.Foreign, e.name)
		}
	}
	if c.Backend == IPTables {
		for _, t := range c.targets() {
			have, err := listIPTables(ctx, t.family)
			if err != nil {
				return nil, err
			}
			for _, table := range c.iptablesTables(t) {
				name := t.iptables + " " + table.name
				if _, exists := have[table.name]; !exists && !slices.Contains(next.NewTables, name) {
					next.NewTables = append(next.NewTables, name)
				}
			}
		}
	}
	if !c.SetSysctls {
		return next, nil
	}
	changes, err := c.planSysctls()
	for _, ch := range changes {
		if i := slices.IndexFunc(next.Sysctls, func(o change) bool { return o.Path == ch.Path }); i >= 0 {
			next.Sysctls[i].New = ch.New
		} else {
			next.Sysctls = append(next.Sysctls, ch)
		}
	}
	return next, err
}

// entries returns the routing entries of the recorded Config.
func (s *state) entries() []entry {
	if !s.Config.routed() {
		return nil
	}
	return s.Config.routing(s.Config.families())
}

// enforce applies the record. Rules come last, so that nothing is diverted before routing
// and settings are in place.
func (s *state) enforce(ctx context.Context) error {
	c := s.Config
	if c.SetSysctls {
		if err := setSysctls(s.Sysctls); err != nil {
			return err
		}
	}
	if err := addRouting(s.entries()); err != nil {
		return err
	}
	if c.Backend == NFT {
		return c.loadNFT(ctx)
	}
	for _, t := range c.targets() {
		if err := c.loadIPTables(ctx, t); err != nil {
			return c.explain(ctx, err)
		}
	}
	return nil
}

// leave removes what s set up and next will not replace.
func (s *state) leave(ctx context.Context, next Config) error {
	var errs []error
	if s.Config.Backend == NFT && next.Backend == IPTables {
		errs = append(errs, unloadNFT(ctx))
	}
	if s.Config.Backend == IPTables {
		for _, t := range s.Config.targets() {
			var keep []string
			for _, n := range next.targets() {
				if next.Backend == IPTables && n.v6 == t.v6 {
					for _, table := range next.iptablesTables(n) {
						keep = append(keep, table.name)
					}
				}
			}
			errs = append(errs, unloadIPTables(ctx, t.family, keep, s.NewTables))
		}
	}
	replaced := (&state{Config: next}).entries()
	var gone []entry
	for _, e := range s.entries() {
		same := func(o entry) bool { return o.name == e.name }
		if !slices.ContainsFunc(replaced, same) && !slices.Contains(s.Foreign, e.name) {
			gone = append(gone, e)
		}
	}
	return oneLine(append(errs, removeRouting(gone)))
}

// undo removes everything in the record, in reverse order, then the record itself. It
// continues after errors, but then keeps the record.
func (s *state) undo(ctx context.Context, dir string) error {
	var errs []error
	if s.Config.Backend == NFT {
		errs = append(errs, unloadNFT(ctx))
	} else {
		for _, f := range s.Config.families() {
			errs = append(errs, unloadIPTables(ctx, f, nil, s.NewTables))
		}
	}
	var ours []entry
	for _, e := range s.entries() {
		if !slices.Contains(s.Foreign, e.name) {
			ours = append(ours, e)
		}
	}
	errs = append(errs, removeRouting(ours), restoreSysctls(s.Sysctls))
	if err := oneLine(errs); err != nil {
		return err // the record stays, to try again
	}
	return dropState(dir)
}

// Remove removes what Apply set up in the network namespace of the calling thread and restores
// what it changed, according to the record. Without a record it removes every table and chain
// with tprelay's names, and the routing for c.Mark and c.Table. It is no error if there is
// nothing to remove.
func Remove(ctx context.Context, c Config) error {
	c = c.WithDefaults()
	if err := privileged(); err != nil {
		return err
	}
	unlock, err := lockState(c.StateDir)
	if err != nil {
		return err
	}
	defer unlock()
	s, err := loadState(c.StateDir)
	if err != nil {
		return err
	}
	if s != nil {
		return s.undo(ctx, c.StateDir)
	}
	var errs []error
	if installed("nft") {
		errs = append(errs, unloadNFT(ctx))
	}
	families := []family{ipv4(), ipv6()}
	for _, f := range families {
		if installed(f.iptables + "-save") {
			errs = append(errs, unloadIPTables(ctx, f, nil, nil))
		}
	}
	errs = append(errs, removeRouting(c.routing(families)), dropState(c.StateDir))
	return oneLine(errs)
}

// oneLine joins errors on one line.
func oneLine(errs []error) error {
	var texts []string
	for _, err := range errs {
		if err != nil {
			texts = append(texts, strings.ReplaceAll(err.Error(), "\n", "; "))
		}
	}
	if len(texts) == 0 {
		return nil
	}
	return errors.New(strings.Join(texts, "; "))
}

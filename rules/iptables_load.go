package rules

import (
	"context"
	"fmt"
	"slices"
	"strings"
)

// saved is the output of iptables-save: the rules and chain declarations (":") of each table,
// without counters.
type saved map[string][]string

// listIPTables returns all tables. It does not ask for a table by name, because that creates
// the table.
func listIPTables(ctx context.Context, f family) (saved, error) {
	text, err := run(ctx, "", f.iptables+"-save")
	if err != nil {
		return nil, err
	}
	tables, name := saved{}, ""
	for l := range strings.Lines(text) {
		switch l = strings.TrimSpace(l); {
		case strings.HasPrefix(l, "*"):
			name = l[1:]
			tables[name] = []string{}
		case strings.HasPrefix(l, ":"):
			chain, _, _ := strings.Cut(l, " [")
			tables[name] = append(tables[name], chain)
		case strings.HasPrefix(l, "-"):
			tables[name] = append(tables[name], l)
		}
	}
	return tables, nil
}

// ours returns the lines of a table that declare tprelay's chains, fill them or jump to them.
func (s saved) ours(table string) []string {
	var out []string
	for _, l := range s[table] {
		fields := strings.Fields(strings.TrimPrefix(l, ":"))
		if len(fields) > 1 && fields[0] == "-A" {
			fields = fields[1:]
		}
		if fields[0] == chainMain || fields[0] == chainMark || isJump(l) {
			out = append(out, l)
		}
	}
	return out
}

// chains returns the names of tprelay's chains in a table.
func (s saved) chains(table string) []string {
	var out []string
	for _, l := range s.ours(table) {
		if name, ok := strings.CutPrefix(l, ":"); ok {
			name, _, _ = strings.Cut(name, " ")
			out = append(out, name)
		}
	}
	return out
}

// isJump reports whether a rule jumps to chainMain, with any match: another version of this
// program may have left a jump with a narrower match.
func isJump(l string) bool {
	return strings.HasPrefix(l, "-A PREROUTING ") && strings.HasSuffix(l, " -j "+chainMain)
}

// untouched reports whether a table holds only built-in chains whose policy is to accept.
func (s saved) untouched(table string) bool {
	return !slices.ContainsFunc(s[table], func(l string) bool {
		return !strings.HasPrefix(l, ":") || !strings.HasSuffix(l, " ACCEPT")
	})
}

// loadIPTables fills the chains of one family, then makes sure that exactly one jump leads there.
func (c Config) loadIPTables(ctx context.Context, t target) error {
	have, err := listIPTables(ctx, t.family)
	if err != nil {
		return err
	}
	tables := c.iptablesTables(t)
	for i := range tables {
		tables[i].stale = slices.DeleteFunc(have.chains(tables[i].name), func(name string) bool {
			return slices.Contains(tables[i].chains, name)
		})
	}
	if _, err := run(ctx, iptablesText(tables), t.iptables+"-restore", "--noflush", "-w", "5"); err != nil {
		return err
	}
	for _, table := range tables {
		jumps := slices.DeleteFunc(slices.Clone(have[table.name]), func(l string) bool { return !isJump(l) })
		if i := slices.Index(jumps, "-A "+iptablesJump); i >= 0 {
			jumps = slices.Delete(jumps, i, i+1)
		} else if err := jump(ctx, t.family, table.name, "-I "+iptablesJump); err != nil {
			return err
		}
		for _, l := range jumps {
			if err := jump(ctx, t.family, table.name, "-D "+strings.TrimPrefix(l, "-A ")); err != nil {
				return err
			}
		}
	}
	return nil
}

func jump(ctx context.Context, f family, table, command string) error {
	args := append([]string{"-w", "5", "-t", table}, strings.Fields(command)...)
	_, err := run(ctx, "", f.iptables, args...)
	return err
}

// unloadIPTables deletes the rules of one family from all tables except those in keep. It also
// deletes tables in created ("iptables mangle") that are now empty, if the tool can (nf_tables).
func unloadIPTables(ctx context.Context, f family, keep, created []string) error {
	have, err := listIPTables(ctx, f)
	if err != nil {
		return err
	}
	for _, name := range []string{"mangle", "nat"} {
		if slices.Contains(keep, name) {
			continue
		}
		if len(have.ours(name)) > 0 {
			if _, err := run(ctx, have.removal(name), f.iptables+"-restore", "--noflush", "-w", "5"); err != nil {
				return err
			}
		}
		if slices.Contains(created, f.iptables+" "+name) {
			if err := dropTable(ctx, f, name); err != nil {
				return err
			}
		}
	}
	return nil
}

// removal returns the text that removes our lines from a table in one transaction.
func (s saved) removal(table string) string {
	var empty, jumps, deletes strings.Builder
	for _, name := range s.chains(table) {
		fmt.Fprintf(&empty, ":%s - [0:0]\n", name)
		fmt.Fprintf(&deletes, "-X %s\n", name)
	}
	for _, l := range s[table] {
		if isJump(l) {
			fmt.Fprintf(&jumps, "-D %s\n", strings.TrimPrefix(l, "-A "))
		}
	}
	return fmt.Sprintf("*%s\n%s%s%sCOMMIT\n", table, empty.String(), jumps.String(), deletes.String())
}

// dropTable deletes an empty table. iptables-legacy cannot do that.
func dropTable(ctx context.Context, f family, table string) error {
	have, err := listIPTables(ctx, f)
	if err != nil || !have.untouched(table) {
		return err
	}
	version, err := run(ctx, "", f.iptables, "-V")
	if err != nil || !strings.Contains(version, "nf_tables") || !installed("nft") {
		return err
	}
	tables, err := run(ctx, "", "nft", "list", "tables", f.nft)
	if err != nil || !slices.Contains(trimmed(tables), "table "+f.nft+" "+table) {
		return err
	}
	_, err = run(ctx, "", "nft", "delete", "table", f.nft, table)
	return err
}

// verifyIPTables compares the chains with those that the same rules give in a scratch
// namespace, because iptables-save prints rules in its own form.
func (c Config) verifyIPTables(ctx context.Context, t target) ([]Problem, error) {
	have, err := listIPTables(ctx, t.family)
	if err != nil {
		return nil, err
	}
	var want saved
	err = inScratch(func() error {
		if err := c.loadIPTables(ctx, t); err != nil {
			return c.explain(ctx, err)
		}
		var err error
		want, err = listIPTables(ctx, t.family)
		return err
	})
	if err != nil {
		return nil, err
	}
	var out []Problem
	for _, name := range []string{"mangle", "nat"} {
		out = append(out, difference(t.iptables+": table "+name, "tprelay rules apply "+c.Flags(), want.ours(name), have.ours(name))...)
	}
	return out, nil
}

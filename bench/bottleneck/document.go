package bottleneck

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"
	"unicode/utf8"

	"golang.org/x/sys/unix"

	"github.com/tprelay/tprelay/bench/relays"
	"github.com/tprelay/tprelay/bench/units"
)

// Document is what docs/flow-control.md shows: transfers through several relays, and what
// they do while a receiver stops.
type Document struct {
	Comparison
	Calls []*Counted
}

// documented are the relays whose transfers are shown, with their titles in the table.
// level is the path of mininet/level.py.
func (s *Setup) documented(level string) (transfers, counted []relays.Relay, err error) {
	all := relays.All("")
	find := func(to *[]relays.Relay, name, title string) {
		r, findErr := all.Find(name)
		if findErr == nil && r.Missing() != "" {
			findErr = errors.New(r.Missing())
		}
		r.Title = title
		err = errors.Join(err, findErr)
		*to = append(*to, r)
	}
	own := func(to *[]relays.Relay, name, title, command string) {
		r := relays.OfCommand(command)
		r.Name, r.Title = name, title
		*to = append(*to, r)
	}
	find(&transfers, Direct, "no relay")
	find(&transfers, "tprelay", "tprelay")
	find(&transfers, Control, "tprelay, `--no-flow-control`")
	find(&transfers, "haproxy", "HAProxy")
	for _, rate := range []string{"6", "3", "12"} {
		own(&transfers, "tokenbucket-"+rate, "token bucket at "+rate+" Mbit/s", fmt.Sprintf("exec '%s' relay tokenbucket --listen $LISTEN --rate %smbit", s.Self, rate))
	}
	find(&counted, "tprelay", "tprelay")
	find(&counted, "haproxy", "HAProxy")
	find(&counted, "gnet", "relay on gnet, which cannot pause")
	own(&counted, "level-remove", "level-triggered, tells epoll", fmt.Sprintf("forward: exec /usr/bin/python3 '%s' $LISTEN $SERVER remove", level))
	own(&counted, "level-keep", "level-triggered, does not", fmt.Sprintf("forward: exec /usr/bin/python3 '%s' $LISTEN $SERVER keep", level))
	return transfers, counted, err
}

// Document measures it all. level is the path of mininet/level.py; step is called with a
// description of each phase before it.
func (s *Setup) Document(ctx context.Context, level string, step func(what string)) (*Document, error) {
	transfers, counted, err := s.documented(level)
	if err != nil {
		return nil, err
	}
	d := &Document{Comparison: Comparison{Settings: s.Settings()}}
	for _, r := range transfers {
		d.Relays = append(d.Relays, Name{Name: r.Name, Title: r.Title})
	}
	if err := s.Compare(ctx, transfers, &d.Comparison, step); err != nil {
		return nil, err
	}
	for _, r := range counted {
		step(r.Title + ": a receiver that stops, and system calls")
		c, err := s.count(ctx, r)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", r.Title, err)
		}
		d.Calls = append(d.Calls, c)
	}
	return d, nil
}

// count does a transfer whose receiver stops, and counts the relay's system calls. The
// packets are kept for tprelay.
func (s *Setup) count(ctx context.Context, r relays.Relay) (c *Counted, err error) {
	own := *s
	own.Ordinary = false
	own.Length = starting + flowing + settled + stopped + resumed
	own.Reader = Reader{Stop: starting + flowing, Resume: starting + flowing + settled + stopped}
	ctx, cancel := context.WithTimeout(ctx, own.Length+2*time.Minute)
	defer cancel()
	st, err := own.stage(ctx, r)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, st.close()) }()
	c = &Counted{Relay: r.Name, Title: r.Title}
	t := st.transfer
	t.Beside = func(ctx context.Context) (err error) {
		began := time.Now()
		phase := func(to *Calls, from, length time.Duration) {
			if err == nil && sleep(ctx, from-time.Since(began)) {
				*to, err = countCalls(ctx, st.lab.H2, st.relay.PIDs(), length-spare)
			}
		}
		phase(&c.Starting, 0, starting)
		phase(&c.Flowing, starting, flowing)
		if err != nil || !sleep(ctx, starting+flowing+settled-time.Since(began)) {
			return err
		}
		before, err := st.resident()
		if err != nil {
			return err
		}
		phase(&c.Stopped, starting+flowing+settled, stopped)
		after, residentErr := st.resident()
		c.Growth = max(after-before, 0)
		return errors.Join(err, residentErr)
	}
	t.Admin = netip.AddrPort{} // the answers of the admin end would be counted
	if r.Name != "tprelay" {
		c.Record, err = st.run(ctx, t)
		return c, err
	}
	read, err := capture(ctx, st.lab, st.lab.H1, t.Target.Port())
	if err != nil {
		return nil, err
	}
	if c.Record, err = st.run(ctx, t); err != nil {
		return nil, err
	}
	text, err := read()
	c.packets = parseTrace(text, st.lab.H1.Addr4)
	return c, err
}

// table is the table of the transfers, in Markdown.
func (d *Document) table() string {
	var b strings.Builder
	b.WriteString("| relay | sender saw | arrived | settle time | most in flight | delay, median | relay grew by |\n")
	b.WriteString("| --- | --: | --: | --: | --: | --: | --: |\n")
	for i, m := range d.Runs {
		f := m.Figures
		settle, delay, growth := "never", "", ""
		if v, ok := f[Settle]; ok {
			settle = fmt.Sprintf("%.1f s", v)
		}
		if v, ok := f[DelayMedian]; ok {
			delay = fmt.Sprintf("%.0f ms", v)
		}
		if v, ok := f[Growth]; ok {
			growth = fmt.Sprintf("%.1f MiB", max(v, 0)/mib)
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s | %.2f MiB | %s | %s |\n", d.Relays[i].Title,
			units.FormatRate(f[SenderRate], 2), units.FormatRate(f[ArrivedRate], 2), settle, f[InFlight]/mib, delay, growth)
	}
	set := d.Settings
	b.WriteString("\n" + wrap(fmt.Sprintf("%s, Linux %s; %s; two transfers of %d s each. Rates are without the first %d s. tprelay held %s at most; its high watermark is %s.",
		set.Began.UTC().Format("2006-01-02"), kernel(), strings.Join(d.Notes, "; "), set.Seconds, set.Skipped,
		units.FormatBytes(int64(d.of(1, "tprelay").Figures[PendingMost])), units.FormatBytes(set.Watermark))))
	return b.String()
}

// wrap breaks a paragraph into lines of at most 100 columns.
func wrap(text string) string {
	var b strings.Builder
	column := 0
	for i, word := range strings.Fields(text) {
		n := utf8.RuneCountInString(word)
		switch {
		case i == 0:
		case column+1+n > 100:
			b.WriteByte('\n')
			column = 0
		default:
			b.WriteByte(' ')
			column++
		}
		b.WriteString(word)
		column += n
	}
	return b.String()
}

// kernel is the release of the running kernel.
func kernel() string {
	var name unix.Utsname
	if unix.Uname(&name) != nil {
		return "?"
	}
	return unix.ByteSliceToString(name.Release[:])
}

// Write writes the plots and figures.json into the directory, and the tables into the page,
// between its comments. It returns the files' names.
func (d *Document) Write(page, dir string) (written []string, err error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	text, err := os.ReadFile(page)
	if err != nil {
		return nil, err
	}
	trace := "```\n" + excerpt(d.Calls[0].packets, (starting+flowing).Seconds()-0.3) + "\n```"
	for _, part := range [][2]string{{"figures", d.table()}, {"calls", callTable(d.Calls)}, {"trace", trace}} {
		if text, err = replacePart(text, part[0], part[1]); err != nil {
			return nil, fmt.Errorf("%s: %w", page, err)
		}
	}
	files := map[string][]byte{page: text}
	for name, p := range d.plots() {
		if files[filepath.Join(dir, name)], err = p.svg(); err != nil {
			return nil, err
		}
	}
	if files[filepath.Join(dir, "figures.json")], err = d.summary(); err != nil {
		return nil, err
	}
	for name, content := range files {
		if err := os.WriteFile(name, content, 0o644); err != nil {
			return nil, err
		}
		written = append(written, name)
	}
	return written, nil
}

// summary is figures.json: all figures, without samples.
func (d *Document) summary() ([]byte, error) {
	type transfer struct {
		Relay   string  `json:"relay"`
		Title   string  `json:"title"`
		Figures Figures `json:"figures"`
	}
	s := struct {
		Settings  Settings   `json:"settings"`
		Kernel    string     `json:"kernel"`
		Notes     []string   `json:"notes"`
		Transfers []transfer `json:"transfers"`
		Calls     []*Counted `json:"calls"`
	}{Settings: d.Settings, Kernel: kernel(), Notes: d.Notes, Calls: d.Calls}
	s.Settings.Command = ""
	for i, m := range d.Runs {
		s.Transfers = append(s.Transfers, transfer{m.Relay, d.Relays[i].Title, m.Figures})
	}
	text, err := json.MarshalIndent(s, "", " ")
	return append(text, '\n'), err
}

// replacePart replaces what stands between the comments of that name in a page.
func replacePart(text []byte, name, with string) ([]byte, error) {
	part := regexp.MustCompile(`(?s)(<!-- ` + name + `: begin[^>]*-->\n).*?(<!-- ` + name + `: end -->)`)
	found := part.FindAllSubmatchIndex(text, -1)
	if len(found) != 1 {
		return nil, fmt.Errorf(`want "<!-- %s: begin -->" and "<!-- %s: end -->" once`, name, name)
	}
	at := found[0]
	return bytes.Join([][]byte{text[:at[3]], []byte("\n" + with + "\n\n"), text[at[4]:]}, nil), nil
}

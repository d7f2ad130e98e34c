package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/tprelay/tprelay/bench/bottleneck"
	"github.com/tprelay/tprelay/bench/units"
	"github.com/tprelay/tprelay/engine"
	"github.com/tprelay/tprelay/internal/cli"
)

// transferFlags are the flags of the transfers that slow and probe look at.
type transferFlags struct {
	pathFlags
	Seconds       int           `default:"10" help:"Length of each transfer."`
	Interval      time.Duration `default:"50ms" help:"Time between samples."`
	Reader        string        `enum:"link,slow,stopped" default:"link" help:"What slows the sender down: ${enum}. link: --bottleneck is the rate of the link; slow: of the receiver, which reads no faster, behind a link as fast as --access; stopped: the receiver reads nothing."`
	Unsent        units.Size    `default:"16KiB" help:"Limit for the bytes that the sender's kernel may hold unsent, so that they do not hide in its send buffer. 0: no limit, as for most programs."`
	HighWatermark units.Size    `placeholder:"SIZE" help:"High watermark of tprelay. Default: tprelay's."`
	LowWatermark  units.Size    `placeholder:"SIZE" help:"Low watermark of tprelay. Default: tprelay's."`
	TPRelayFlags  string        `name:"tprelay-flags" placeholder:"FLAGS" help:"More flags for tprelay run."`
	TPRelay       string        `name:"tprelay" placeholder:"PATH" help:"The tprelay program. Default: the one beside tpbench, otherwise the one in PATH."`
	Plot          string        `placeholder:"FILE" help:"Write an HTML page with time lines to this file. Default: none."`
}

func (c *transferFlags) check() error {
	if err := checkSeconds(c.Seconds); err != nil {
		return err
	}
	if err := c.pathFlags.check(); err != nil {
		return err
	}
	switch {
	case c.Interval < 5*time.Millisecond || c.Interval > time.Second:
		return cli.Usagef("--interval %v: must be between 5ms and 1s", c.Interval)
	case c.Unsent > 1<<30:
		return cli.Usagef("--unsent %s: must be at most 1GiB", units.FormatBytes(int64(c.Unsent)))
	}
	return checkFile("--plot", c.Plot)
}

// checkFile refuses a file that cannot be written because of where it is, before anything
// is measured.
func checkFile(flag, path string) error {
	if path == "" || path == "-" {
		return nil
	}
	if info, err := os.Stat(filepath.Dir(path)); err != nil || !info.IsDir() {
		return cli.Usagef("%s %s: there is no directory %s", flag, path, filepath.Dir(path))
	}
	if info, err := os.Stat(path); err == nil && info.IsDir() {
		return cli.Usagef("%s %s: is a directory", flag, path)
	}
	return nil
}

// setup is what the transfers have in common, without the path of tprelay.
func (c *transferFlags) setup() (s bottleneck.Setup, err error) {
	s = bottleneck.Setup{
		Path: c.path(), Length: time.Duration(c.Seconds) * time.Second, Every: c.Interval, Unsent: int(c.Unsent),
		Watermark: engine.DefaultHighWatermark,
	}
	if s.Self, err = ownPath(); err != nil {
		return s, err
	}
	switch c.Reader {
	case "slow":
		s.Reader.Pace = int64(c.Bottleneck) / 8
		s.Path.Bottleneck = s.Path.Access
	case "stopped":
		s.Reader.Stopped = true
	}
	if c.HighWatermark > 0 {
		s.Watermark = int64(c.HighWatermark)
		s.Flags = append(s.Flags, "--high-watermark", fmt.Sprint(s.Watermark))
	}
	if c.LowWatermark > 0 {
		s.Flags = append(s.Flags, "--low-watermark", fmt.Sprint(int64(c.LowWatermark)))
	}
	s.Flags = append(s.Flags, strings.Fields(c.TPRelayFlags)...)
	return s, nil
}

// writeTo writes a file, or standard output for "-".
func writeTo(path string, stdout io.Writer, write func(io.Writer) error) error {
	if path == "-" {
		return write(stdout)
	}
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	return errors.Join(write(f), f.Close())
}

// commandLine gives the command that was called, as a shell takes it.
func commandLine(args []string) string {
	words := []string{"tpbench"}
	for _, arg := range args {
		if strings.ContainsAny(arg, " \t\n'\"$&;|<>*?()\\") {
			arg = "'" + strings.ReplaceAll(arg, "'", `'\''`) + "'"
		}
		words = append(words, arg)
	}
	return strings.Join(words, " ")
}

package main

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/alecthomas/kong"

	"github.com/tprelay/tprelay/bench/bottleneck"
)

// demoCmd is tpbench demo: tpbench slow with the relays that show what flow control is for.
type demoCmd struct {
	pathFlags
	Seconds int    `default:"10" help:"Length of each of the three transfers."`
	TPRelay string `name:"tprelay" placeholder:"PATH" help:"The tprelay program. Default: the one beside tpbench, otherwise the one in PATH."`
	JSON    string `name:"json" placeholder:"FILE" help:"Write all figures and samples to this file as JSON; -: print them instead of the table. Default: none."`
}

// Run sends three times, and prints what that showed.
func (c *demoCmd) Run(command *kong.Context) error {
	slow := slowCmd{
		Relays: []string{bottleneck.Direct, "tprelay", bottleneck.Control}, Mode: "tproxy", Rounds: 1, Flows: 1, JSON: c.JSON,
		transferFlags: transferFlags{
			pathFlags: c.pathFlags, Seconds: c.Seconds, Interval: 50 * time.Millisecond, Reader: "link", Unsent: 16 << 10, TPRelay: c.TPRelay,
		},
	}
	if err := slow.check(); err != nil {
		return err
	}
	if _, err := findTPRelay(c.TPRelay); err != nil {
		return fmt.Errorf("demo: %w", err) // it is what is shown: no demo without it
	}
	result, err := slow.measure(command, "demo")
	if err != nil {
		return err
	}
	if c.JSON != "" {
		if err := writeTo(c.JSON, command.Stdout, result.WriteJSON); err != nil || c.JSON == "-" {
			return err
		}
	}
	var b strings.Builder
	describe(&b, result)
	align(&b, result.Brief())
	b.WriteByte('\n')
	for _, sentence := range result.Reading() {
		fmt.Fprintln(&b, sentence)
	}
	_, err = io.WriteString(command.Stdout, b.String())
	return err
}

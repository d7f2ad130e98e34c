package main

import (
	"cmp"
	"fmt"
	"io"
	"strings"

	"github.com/tprelay/tprelay/bench/relays"
	"github.com/tprelay/tprelay/bench/scenario"
)

// list prints the relays and the workloads that there are.
func list(w io.Writer, relayCommand string) error {
	mark := func(is bool) string {
		if is {
			return "yes"
		}
		return "no"
	}
	rows := [][]string{{"RELAY", "WAY", "DEFAULT", "VARIANT", ""}}
	for _, r := range relays.All(relayCommand) {
		title := r.Title
		if missing := r.Missing(); missing != "" {
			title += " (" + missing + ")"
		}
		rows = append(rows, []string{r.Name, r.Way.String(), mark(r.Default), mark(r.Variant), title})
	}
	var b strings.Builder
	align(&b, rows)
	b.WriteByte('\n')
	rows = [][]string{{"WORKLOAD", "NETPERF", "LOOP", "VARIANTS", ""}}
	for _, w := range scenario.Workloads() {
		var metrics []string
		for _, m := range w.Metrics {
			metrics = append(metrics, m.Title)
		}
		rows = append(rows, []string{w.Name, cmp.Or(w.Alias, "-"), w.Scenario.About().Loop, mark(w.Principal), fmt.Sprintf("%s: %s", w.Title, strings.Join(metrics, ", "))})
	}
	align(&b, rows)
	fmt.Fprintln(&b, "\nUnless relays are named, the default ones are measured: variants with those workloads only that say so.")
	_, err := io.WriteString(w, b.String())
	return err
}

package main

import (
	"bytes"
	"net/netip"
	"testing"
)

func TestEventsInPlainWords(t *testing.T) {
	local, peer := netip.MustParseAddrPort("10.0.0.1:1"), netip.MustParseAddrPort("10.0.0.2:2")
	yes, no := true, false
	for want, e := range map[string]event{
		"listening on 10.0.0.1:1":                                   {Event: eventListening, Local: &local},
		"   0.50 s  open   10.0.0.1:1, peer 10.0.0.2:2":             {Event: eventOpen, Local: &local, Peer: &peer, Start: 0.5},
		"   2.00 s      8.0 Mbit/s     977 KiB  3 connections":      {Event: eventInterval, Start: 1, End: 2, Bytes: 1_000_000, Connections: 3},
		"   2.00 s  close  10.0.0.1:1, peer 10.0.0.2:2: 5 B, reset": {Event: eventClose, Local: &local, Peer: &peer, End: 2, Bytes: 5, Error: "reset"},
		"total: 5 bytes in 2.00 s, 20.0 bit/s, 1 connections":       {Event: eventTotal, End: 2, Bytes: 5, Connections: 1},
		"total: 5 bytes in 2.00 s, 20.0 bit/s, 1 connections; 5 bytes came back; the other end had everything 0.25 s later": {Event: eventTotal, End: 2, Bytes: 5, Connections: 1, Returned: 5, Delivered: &yes, Waited: 0.25},
		"total: 5 bytes in 2.00 s, 20.0 bit/s, 1 connections; the other end did not have everything 1.00 s later":           {Event: eventTotal, End: 2, Bytes: 5, Connections: 1, Delivered: &no, Waited: 1},
	} {
		var out bytes.Buffer
		p := &printer{to: &out}
		p.print(e)
		if got := out.String(); got != want+"\n" {
			t.Errorf("got  %qwanted %q", got, want)
		}
	}
}

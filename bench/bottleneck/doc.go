// Package bottleneck looks closely at one transfer: a sender on h1 of a lab (package
// internal/netlab), perhaps a relay on h2, and on h3 a receiver behind a slow link, or
// one that is slow itself.
//
//	sender ---- fast ---- relay ---- slow ---- receiver
//	  h1                    h2                    h3
//
// A [Transfer] is the two ends, goroutines of this process with one clock, and a sampler
// that looks at everything at even intervals: what was sent and has arrived, what the
// relay says of itself, its memory, and what the kernel knows of the sockets ([Diag]). A
// [Setup] makes the hosts and starts the relay for it; a [Comparison] has several relays
// in several rounds, as JSON, as a table and as a page with time lines.
//
// The sender's kernel holds little that is unsent (Transfer.Unsent), so that bytes in flight
// are on the path or in the relay. A [Document] is what docs/flow-control.md shows.
package bottleneck

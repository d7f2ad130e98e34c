// Package twin has one test: TestTwin plays random scripts for a client and a server twice at the
// same time, in two labs with the same three hosts. In one lab the host in the middle is a plain
// router. In the other one it runs the tprelay program. What the two ends see must be the same,
// but for the differences in the table of allowed.go's test, which is printed in docs/closing.md.
//
//	make twin                                # ten minutes
//	make twin TWIN=30m RACE=-race            # longer, with a relay that finds races
//	go test ./internal/twin                  # some hundred scripts, as in CI
//	TPRELAY_TWIN_SEED=7 make twin            # draw the same scripts again
//	TPRELAY_TWIN_PROFILE=narrow make twin    # batches of one profile only, without faults
//	TPRELAY_TWIN_SCRIPT='{...}' make twin    # one script, as a failure prints it
//	TPRELAY_TWIN_REPORT=FILE make twin       # write the table of results there
//
// # How it works
//
// Hundreds of scripts make a batch. A batch has one combination of path (splice, buffers, with a
// handler) and mode (TPROXY, REDIRECT), a profile (which scripts, and the relay's flags) and maybe a
// fault. Its scripts use IPv4 and IPv6 alike. Each script has a listener of its own.
//
// Three things are checked:
//
//   - Rules that hold for every single connection, with and without a relay: right bytes in the right
//     order, all of them before a FIN, no RST that nobody sent, no FIN in place of an RST, everything
//     that was acknowledged before an RST, no hang. A breach is a failure at once.
//   - What the ends saw through the relay must be what they saw through the router. Where it is not, the
//     script is played through the router some times more: a router's outcomes differ
//     by timing, too. What a router never did is a failure, unless the table allows it.
//   - No call of an end waits more than a second longer than through the router.
//
// A failure is shrunk by playing simpler variants of its script, and printed.
package twin

// Package twin has one test. TestTwin plays random scripts for a client and a server twice at the
// same time, in two labs with the same three hosts. In one lab the host in the middle is a plain
// router; in the other it runs the tprelay program. Both ends must see the same in both labs,
// except for the differences in the table of allowed_test.go, which docs/closing.md shows.
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
// A batch has hundreds of scripts, one combination of path (splice, buffers, with a handler) and
// mode (TPROXY, REDIRECT), a profile (the kind of scripts, and the relay's flags), and in some
// cases a fault. Its scripts use both IPv4 and IPv6. Each script has its own listener.
//
// Three things are checked:
//
//   - Rules for every connection, with and without a relay: the right bytes in the right order, all
//     of them before a FIN, no RST that neither end sent, no FIN instead of an RST, all
//     acknowledged bytes before an RST, no hang. A violation is a failure at once.
//   - The ends must see the same through the relay as through the router. If they do not, the
//     script is played through the router some more times, because a router's results depend on
//     timing too. A result that the router never gave is a failure, unless the table allows it.
//   - No call of an end takes more than a second longer than through the router.
//
// The test shrinks a failure by playing simpler variants of its script, and prints it.
package twin

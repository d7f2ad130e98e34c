// Package soak has one test. TestSoak runs the tprelay program between a client host and a
// server host, as internal/e2e does, with a random mix of streams and faults of all kinds, for a
// given time.
//
//	make soak                                   # ten minutes
//	make soak SOAK=30m RACE=-race               # longer, with a relay that finds races
//	TPRELAY_SOAK=2m TPRELAY_SOAK_SEED=7 go test ./internal/soak
//	TPRELAY_SOAK_FAULTS=kill,loss go test ./internal/soak
//	TPRELAY_SOAK_REPORT=FILE                    # write the table of results there
//
// Without TPRELAY_SOAK it takes ten seconds. The seed decides what is drawn, not when things
// happen, so a run cannot be repeated exactly.
//
// # What is checked
//
// Each byte of a stream depends on its position, so both ends know the bytes that must arrive.
// Each end of each stream is checked when it is over:
//
//   - The received bytes are a prefix of the sent ones; none is lost, duplicated or changed.
//   - A FIN comes after the last byte, never before it. Not even kill -9 may make an incomplete
//     stream look complete.
//   - A stream is cut (by an RST, or because connecting failed) only by one of its own ends, or
//     by a fault that may cut streams.
//   - Until it is over, it makes progress at least once a minute.
//
// Now and then, and at the end, the test waits until all streams have ended. The relay must then
// hold no pair, byte, pipe or buffer, and no more descriptors than before.
package soak

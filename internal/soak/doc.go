// Package soak has one test: TestSoak runs the tprelay program between a client and a
// server host, as internal/e2e does, with a random mix of every kind of stream and of
// every kind of fault, for as long as it is told to.
//
//	make soak                                   # ten minutes
//	make soak SOAK=30m RACE=-race               # longer, with a relay that finds races
//	TPRELAY_SOAK=2m TPRELAY_SOAK_SEED=7 go test ./internal/soak
//	TPRELAY_SOAK_FAULTS=kill,loss go test ./internal/soak
//	TPRELAY_SOAK_REPORT=FILE                    # write the table of results there
//
// Without TPRELAY_SOAK it takes ten seconds. The seed decides what is drawn, not when
// things happen: a run cannot be repeated exactly.
//
// # What is held
//
// Both ends of a stream know every byte that must come, by its position. Each end of
// each stream is judged when it is over:
//
//   - What came is the beginning of what was sent; nothing is lost, doubled or changed.
//   - A FIN comes after the last byte, and never before it. Not even kill -9 may make a
//     stream look complete that is not.
//   - A stream is cut (by an RST, or because connecting failed) only if one of its own
//     ends did it, or a fault that may.
//   - As long as it is not over, something moves at least once a minute.
//
// Now and then, and at the end, all streams are let end, and then the relay must hold
// nothing: no pair, byte, pipe or buffer, and no descriptor that it did not have before.
package soak

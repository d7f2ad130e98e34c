// Package e2e has only tests. They test the whole relay on three hosts, with the kernel's TPROXY
// and REDIRECT and with real programs: a client on h1, the relay on h2 and a server on h3 (see
// package netlab). Package rules applies the rules. The engine runs in the test's process, so that
// the race detector and coverage see it.
//
// The tests check what both ends of a connection see: addresses, bytes, FIN and RST. No test
// asserts a duration, but each has a time limit.
//
//	go test -race ./internal/e2e
//	TPRELAY_E2E_FULL=1 go test ./internal/e2e     # with big files of 2 GiB, and all loads of TestEveryDirectionProgresses
//	TPRELAY_WRITE_DOCS=1 go test ./internal/e2e -run TestClosingMatrix  # writes the table of docs/closing.md
//
// Root is not needed: an ordinary user gets a user namespace. Tests that need root (to become
// another user), or a program that is not installed, are skipped.
package e2e

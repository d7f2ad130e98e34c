// Package e2e has tests only: of the relay as a whole, on three hosts, with the
// kernel's own diversion and with the programs that people use. A client on h1, the
// relay on h2 and a server on h3 (see package netlab), rules applied by package
// rules, and the engine within the test's process, so that the race detector
// and coverage see it.
//
// What a test asks for is what the ends of the connections see: addresses, bytes,
// FIN and RST. No test asserts how long something took, but each is bounded.
//
//	go test -race ./internal/e2e
//	TPRELAY_E2E_FULL=1 go test ./internal/e2e     # with big files of 2 GiB, and all loads of TestEveryDirectionProgresses
//	TPRELAY_WRITE_DOCS=1 go test ./internal/e2e -run TestClosingMatrix  # writes the table of docs/closing.md
//
// Root or not: an ordinary user gets a user namespace. Tests that need more (to become another
// user) or a program that is not installed are skipped then.
package e2e

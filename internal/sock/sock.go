// Package sock has the system calls and socket options that packages engine and tproxy share and
// that golang.org/x/sys/unix lacks or makes allocate. Nothing in it blocks, allocates per call or
// keeps state, so every function may be called from any goroutine. Errors are bare unix.Errnos
// where nothing else is said.
package sock

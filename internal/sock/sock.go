// Package sock has the system calls and socket options that packages engine and tproxy share and
// that golang.org/x/sys/unix lacks or makes allocate. Nothing in it blocks or keeps state, so every
// function may be called from any goroutine. What is called for every connection or message does
// not allocate. Errors are bare unix.Errnos where nothing else is said.
package sock

//go:build race

package epoll_test

// raceEnabled: the race detector allocates on its own.
const raceEnabled = true

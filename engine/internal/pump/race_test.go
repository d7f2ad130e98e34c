//go:build race

package pump

// raceEnabled: the race detector allocates on its own.
const raceEnabled = true

//go:build race

package chunks

// raceEnabled: the race detector allocates on its own.
const raceEnabled = true

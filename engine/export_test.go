package engine

// RaceEnabled: these tests run with the race detector, whose shadow memory counts as
// theirs.
const RaceEnabled = raceEnabled

// Package runner measures relays against each other: it decides what is measured in which order,
// and does it.
//
// A [Plan] says which relays are measured with which workloads. In each round, workload after
// workload is measured with all its relays, in an order that is drawn anew; together these runs are
// a round group, and what is compared. Relays take turns where they can, see interleave.go. Round
// groups that the host of a virtual machine disturbed are repeated at the end, see rerun.go.
// [Runner.Run] does it and fills in [stats.Results], which are raw.
package runner

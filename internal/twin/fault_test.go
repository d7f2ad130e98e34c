package twin

import (
	"time"

	"golang.org/x/sys/unix"

	"github.com/tprelay/tprelay/internal/netlab"
)

// fault is what happens in the middle of a batch: its name.
type fault string

const (
	none    fault = ""
	upgrade fault = "upgrade" // SIGUSR2: a new process takes over
	pause   fault = "pause"   // SIGSTOP, and SIGCONT after a while
	outage  fault = "outage"  // a link of h2 is down for a while, in both labs
)

// How long a pause and an outage last.
const (
	pauseTime  = 1500 * time.Millisecond
	outageTime = 1200 * time.Millisecond
)

// faults are all there are, and what they allow.
var faults = []struct {
	fault
	what, why string
	extra     time.Duration // that calls may wait longer than directly
}{
	{fault: none},
	{fault: upgrade},
	{pause, "the relay's process is stopped for " + pauseTime.String(), "nothing moves meanwhile, and the router is not stopped", pauseTime + 500*time.Millisecond},
	{outage, "a link is down for " + outageTime.String(), "what is lost is sent again after a time-out that doubles: " +
		"on two connections, which need not have the same", 4 * time.Second},
}

// allowance is how much longer than directly calls may wait for a fault.
func (f fault) allowance() time.Duration {
	for _, all := range faults {
		if all.fault == f {
			return all.extra
		}
	}
	return 0
}

// injectInto lets a fault happen to a relay; its lab's links fail by cut.
func (f fault) injectInto(r *relay) error {
	switch f {
	case upgrade:
		return r.upgrade()
	case pause:
		if err := r.signal(unix.SIGSTOP); err != nil {
			return err
		}
		time.Sleep(pauseTime) // how long the relay stands still
		return r.signal(unix.SIGCONT)
	}
	return nil
}

// cut lets a link of h2 fail for a while.
func cut(lab *netlab.Lab, iface string) error {
	restore, err := lab.H2.CutLink(iface)
	if err != nil {
		return err
	}
	time.Sleep(outageTime) // how long the link is down
	return restore()
}

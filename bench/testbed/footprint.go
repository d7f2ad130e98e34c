package testbed

import "github.com/tprelay/tprelay/internal/procstat"

// Footprint is what the relay's processes occupy.
type Footprint struct {
	Resident    int64 // bytes
	Descriptors int
}

// Minus is the difference of two.
func (f Footprint) Minus(before Footprint) Footprint {
	return Footprint{f.Resident - before.Resident, f.Descriptors - before.Descriptors}
}

// Footprint reads it.
func (tb *Testbed) Footprint() (f Footprint, err error) {
	for _, pid := range tb.Running.PIDs() {
		memory, err := procstat.Resident(pid)
		if err != nil {
			return f, err
		}
		open, err := procstat.Descriptors(pid)
		if err != nil {
			return f, err
		}
		f.Resident, f.Descriptors = f.Resident+memory, f.Descriptors+open
	}
	return f, nil
}

package tproxy

// Next gives tests of this directory a policy's order.
func (s Spoof) Next(level SpoofLevel) (SpoofLevel, bool) { return s.next(level) }

package tproxy

// Next is next, for the tests of package tproxy_test.
func (s Spoof) Next(level SpoofLevel) (SpoofLevel, bool) { return s.next(level) }

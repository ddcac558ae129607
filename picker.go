package proxyless

// newPicker makes the picker that a cluster asks for; nil for weighted round
// robin, which needs none. before is the tier of the same priority in the set
// that this one replaces; nil when there is none.
func newPicker(s *endpointSet, t *tier, before *tier) picker {
	return nil
}

package proxyless

// newPicker makes the picker that a set asks for; nil for weighted round
// robin, which needs none. before is the tier of the same priority in the set
// that this one replaces; nil when there is none.
func newPicker(s *endpointSet, t *tier, before *tier) picker {
	switch s.balance.policy {
	case lbLeastRequest:
		return newLeastRequest(s, t)
	case lbRandom:
		return &random{lots: newLots(s.weights(t))}
	case lbRingHash, lbMaglev:
		return newHashed(s, t, before)
	case lbPickFirst:
		return newPickFirst(s, t, before)
	case lbShortestReply, lbP2C:
		return newQuickest(s, t)
	}
	return nil
}

package proxyless

// picker chooses an endpoint of a tier by another rule than weighted round
// robin. It is made for one tier of one set, and its pick is on the hot path.
type picker interface {
	// pick returns an endpoint that is usable and its index, or nil. It wakes
	// at most one endpoint that was never dialled, and none where one was
	// dialled for this pick already.
	pick(s *endpointSet, t *tier, c choice, dialled bool) (uint64, *cell)
}

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

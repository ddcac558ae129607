package proxyless

// weights returns the weights of a tier's endpoints: within their localities,
// and of the localities among one another (gRFC A27).
func (s *endpointSet) weights(t *tier) []float64 {
	weights := make([]float64, t.count)
	for i := range t.localities {
		l := &t.localities[i]
		scale := s.scale(l)
		for j := l.first; j < l.first+l.count; j++ {
			weights[uint64(j)-t.first] = float64(s.endpoints[j].weight) * scale
		}
	}
	return weights
}

// scale is what an endpoint's weight counts in the locality, relative to the
// other localities; 1 where the locality's weight is just the sum of its
// endpoints', as istiod sends it. Where localities are weighted by Envoy's
// locality_weighted_lb_config, a locality that lost endpoints counts less.
func (s *endpointSet) scale(l *locality) float64 {
	sum, healthy := uint64(0), uint64(0)
	for i := l.first; i < l.first+l.count; i++ {
		if s.hosts != nil && s.hosts[i].out.Load() {
			continue
		}
		sum += uint64(s.endpoints[i].weight)
		healthy++
	}
	if l.weight == 0 || sum == 0 {
		return 1
	}
	scale := float64(l.weight) / float64(sum)
	if s.cluster.weighted {
		scale *= min(1, float64(s.from.factor()*healthy)/float64(100*(l.count+l.others)))
	}
	return scale
}

// unequal says that the localities of a tier have weights of their own, which
// their endpoints' do not add up to.
func (s *endpointSet) unequal(t *tier) bool {
	if len(t.localities) < 2 {
		return false
	}
	scales := make([]float64, 0, len(t.localities))
	for i := range t.localities {
		if t.localities[i].count > 0 {
			scales = append(scales, s.scale(&t.localities[i]))
		}
	}
	return !even(scales)
}

// even says that all weights are the same.
func even(weights []float64) bool {
	least, most := weights[0], weights[0]
	for _, w := range weights {
		least, most = min(least, w), max(most, w)
	}
	return most-least <= most*1e-6
}

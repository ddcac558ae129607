package meshtest

// Any is one resource of a DiscoveryResponse.
type Any struct {
	TypeURL string
	Value   []byte
}

// DiscoveryResponse is an envoy.service.discovery.v3.DiscoveryResponse.
type DiscoveryResponse struct {
	Version   string
	TypeURL   string
	Nonce     string
	Resources []Any
}

// Marshal encodes the message.
func (r DiscoveryResponse) Marshal() []byte {
	b := appendString(nil, 1, r.Version)
	for _, a := range r.Resources {
		b = appendAny(b, 2, a.TypeURL, a.Value)
	}
	b = appendString(b, 4, r.TypeURL)
	return appendString(b, 5, r.Nonce)
}

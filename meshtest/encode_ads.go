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

// Resource is one resource of a DeltaDiscoveryResponse.
type Resource struct {
	Name    string
	Version string // istiod leaves it empty
	Any
}

// DeltaDiscoveryResponse is an
// envoy.service.discovery.v3.DeltaDiscoveryResponse.
type DeltaDiscoveryResponse struct {
	Version   string
	TypeURL   string
	Nonce     string
	Resources []Resource
	Removed   []string
}

// Marshal encodes the message.
func (r DeltaDiscoveryResponse) Marshal() []byte {
	b := appendString(nil, 1, r.Version)
	for _, x := range r.Resources {
		m := appendString(nil, 1, x.Version)
		m = appendAny(m, 2, x.TypeURL, x.Value)
		b = appendMessage(b, 2, appendString(m, 3, x.Name))
	}
	b = appendString(b, 4, r.TypeURL)
	b = appendString(b, 5, r.Nonce)
	return appendStrings(b, 6, r.Removed)
}

package proxyless

import (
	"cmp"
	"fmt"
	"math"
	"net/netip"
	"slices"

	"google.golang.org/protobuf/encoding/protowire"
)

// assignment reads an envoy.config.endpoint.v3.ClusterLoadAssignment. It is
// the decoder whose speed matters most, since a busy cluster sends all its
// endpoints with every change: it makes one slice for all of them, and nothing
// for each.
func (d *decoding) assignment(b []byte) (*assignment, error) {
	a := &assignment{}
	var localities []localityParts
	c := walk(b)
	for c.next() {
		switch c.num {
		case 1:
			a.cluster = c.text("cluster_name")
		case 2:
			d.keep(&c, "endpoints")
			p, err := d.localityParts(c.bytes("endpoints"))
			p.index = len(localities)
			c.fail(inElement("endpoints", p.index, err))
			localities = append(localities, p)
		case 4:
			c.fail(inField("policy", d.dropPolicy(c.bytes("policy"))))
		}
	}
	if c.err == nil && a.cluster == "" {
		return nil, missingField("cluster_name")
	}
	if c.err != nil {
		return nil, c.err
	}
	return a, d.fill(a, inOrder(localities))
}

// dropPolicy reads a ClusterLoadAssignment.Policy: it may ask clients to drop
// calls.
func (d *decoding) dropPolicy(b []byte) error {
	c := walk(b)
	for c.next() {
		if c.num != 2 {
			continue
		}
		share, err := submessage(c.bytes("drop_overloads"), 2, "drop_percentage")
		c.fail(inField("drop_overloads", err))
		fraction, err := decodeFraction(share)
		c.fail(inField("drop_overloads.drop_percentage", err))
		if fraction > 0 {
			d.ignore("policy.drop_overloads")
		}
	}
	return c.err
}

// localityParts is a locality before its endpoints are looked into.
type localityParts struct {
	locality
	index    int // in the message, for errors
	weighted bool
	message  []byte
}

// localityParts reads an envoy.config.endpoint.v3.LocalityLbEndpoints, of the
// endpoints only how many there are.
func (d *decoding) localityParts(b []byte) (p localityParts, err error) {
	var name, weight []byte
	p.message = b
	c := walk(b)
	for c.next() {
		switch c.num {
		case 1:
			c.message("locality", &name)
		case 2:
			c.is(protowire.BytesType, "lb_endpoints")
			p.count++
		case 3:
			c.message("load_balancing_weight", &weight)
		case 5:
			p.priority = uint32(c.scalar("priority"))
		case 7:
			d.ignore("endpoints[*].load_balancer_endpoints")
		case 8:
			d.ignore("endpoints[*].leds_cluster_locality_config")
		}
	}
	d.kept += p.count
	d.keep(&c, "lb_endpoints")
	value, err := decodeWrapped(weight)
	c.fail(inField("load_balancing_weight", err))
	p.weight, p.weighted = uint32(value), weight != nil
	c.fail(inField("locality", d.localityName(name, &p.locality)))
	return p, c.err
}

// localityName reads an envoy.config.core.v3.Locality.
func (d *decoding) localityName(b []byte, l *locality) error {
	c := walk(b)
	for c.next() {
		switch c.num {
		case 1:
			l.region = d.intern(c.raw("region"))
		case 2:
			l.zone = d.intern(c.raw("zone"))
		case 3:
			l.subZone = d.intern(c.raw("sub_zone"))
		}
	}
	return c.err
}

// inOrder sorts localities by priority. Where any has a weight, those without
// one get no calls (gRFC A27); where none has, all count, as in Envoy, by
// their endpoints.
func inOrder(localities []localityParts) []localityParts {
	if slices.ContainsFunc(localities, func(p localityParts) bool { return p.weighted }) {
		localities = slices.DeleteFunc(localities, func(p localityParts) bool { return p.weight == 0 })
	}
	slices.SortStableFunc(localities, func(a, b localityParts) int { return cmp.Compare(a.priority, b.priority) })
	return localities
}

// fill decodes the endpoints of all localities into one slice.
func (d *decoding) fill(a *assignment, localities []localityParts) error {
	n := 0
	for i := range localities {
		n += localities[i].count
	}
	f := filling{assignment: a, decoding: d}
	a.endpoints = make([]endpoint, 0, n)
	a.localities = make([]locality, 0, len(localities))
	f.seen.init(n)
	var sum uint64
	for i := range localities {
		p := &localities[i]
		if err := f.locality(p); err != nil {
			return inElement("endpoints", p.index, err)
		}
		if i == 0 || p.priority != localities[i-1].priority {
			sum = 0
		}
		if sum += uint64(p.weight); sum > math.MaxUint32 {
			return inField("endpoints", fmt.Errorf("the weights of priority %d add up to %d, more than %d", p.priority, sum, uint32(math.MaxUint32)))
		}
	}
	return nil
}

// filling is the second pass over an assignment.
type filling struct {
	*decoding
	*assignment
	seen addressSet
}

// locality appends the endpoints of one locality that may be called.
func (f *filling) locality(p *localityParts) error {
	p.first = len(f.endpoints)
	var sum uint64
	c := walk(p.message)
	for i := 0; c.next(); {
		if c.num != 2 {
			continue
		}
		n := len(f.endpoints)
		f.endpoints = f.endpoints[:n+1] // there is room: they were counted
		e := &f.endpoints[n]
		use, err := f.endpoint(c.bytes("lb_endpoints"), e)
		if err != nil {
			return inElement("lb_endpoints", i, err)
		}
		if i++; use && !e.health.usable() {
			f.others, use = append(f.others, otherEndpoint{*e, int32(len(f.localities))}), false
			p.others++
		}
		if !use || !f.seen.add(f.endpoints, e.addr) {
			f.endpoints = f.endpoints[:n]
			continue
		}
		sum += uint64(e.weight)
	}
	if sum > math.MaxUint32 {
		return inField("lb_endpoints", fmt.Errorf("the weights add up to %d, more than %d", sum, uint32(math.MaxUint32)))
	}
	p.count = len(f.endpoints) - p.first
	if !p.weighted {
		p.weight = uint32(sum)
	}
	f.localities = append(f.localities, p.locality)
	return nil
}

// endpoint reads an envoy.config.endpoint.v3.LbEndpoint; use is false for one
// that cannot be called.
func (f *filling) endpoint(b []byte, e *endpoint) (use bool, err error) {
	if !usualEndpoint(b, e) {
		if use, err = f.unusualEndpoint(b, e); !use || err != nil {
			return false, err
		}
	}
	return true, nil
}

// usualEndpoint reads an LbEndpoint of the form that istiod sends for a pod.
// It is there for speed only: of any other form, and of anything wrong, it
// returns false, and unusualEndpoint decides.
func usualEndpoint(b []byte, e *endpoint) bool {
	*e = endpoint{weight: 1}
	for len(b) >= 2 {
		tag, n := b[0], int(b[1])
		if b = b[2:]; tag == 2<<3 && n <= int(healthDegraded) {
			e.health = healthStatus(n)
			continue
		}
		if n >= 0x80 { // two bytes of length
			if len(b) == 0 || b[0] >= 0x80 {
				return false
			}
			n, b = n&0x7F|int(b[0])<<7, b[1:]
		}
		if n > len(b) || !usualField(tag, b[:n], e) {
			return false
		}
		b = b[n:]
	}
	return len(b) == 0 && e.addr.IsValid()
}

// usualField takes a length-delimited field of an LbEndpoint.
func usualField(tag byte, b []byte, e *endpoint) bool {
	switch tag {
	case 1<<3 | 2: // endpoint { address { socket_address {
		if len(b) < 4 || len(b) >= 0x80 || b[0] != 1<<3|2 || b[2] != 1<<3|2 || int(b[1]) != len(b)-2 || int(b[3]) != len(b)-4 || e.addr.IsValid() {
			return false
		}
		return usualSocket(b[4:], &e.addr)
	case 3<<3 | 2: // metadata
		return true
	case 4<<3 | 2: // load_balancing_weight { value
		if len(b) != 2 || b[0] != 1<<3 || b[1] >= 0x80 || b[1] == 0 {
			return false
		}
		e.weight = uint32(b[1])
		return true
	}
	return false
}

// usualSocket takes a SocketAddress of an IP address and a port.
func usualSocket(b []byte, addr *netip.AddrPort) bool {
	if len(b) < 2 || b[0] != 2<<3|2 || int(b[1]) > len(b)-2 {
		return false
	}
	ip, ok := parseUsualIP(b[2 : 2+b[1]])
	b = b[2+b[1]:]
	if !ok || len(b) < 2 || b[0] != 3<<3 {
		return false
	}
	port, n := protowire.ConsumeVarint(b[1:])
	if n != len(b)-1 || port == 0 || port > math.MaxUint16 {
		return false
	}
	*addr = netip.AddrPortFrom(ip, uint16(port))
	return true
}

// unusualEndpoint reads any LbEndpoint.
func (f *filling) unusualEndpoint(b []byte, e *endpoint) (use bool, err error) {
	var host oneof
	var weight []byte
	var health uint64
	c := walk(b)
	for c.next() {
		switch c.num {
		case 1:
			host.message(&c, "endpoint")
		case 2:
			health = c.scalar("health_status")
		case 4:
			c.message("load_balancing_weight", &weight)
		case 5:
			host.raw(&c, "endpoint_name")
		}
	}
	if c.err != nil {
		return false, c.err
	}
	*e = endpoint{weight: 1, health: healthUnhealthy}
	if health <= uint64(healthDegraded) {
		e.health = healthStatus(health)
	}
	if weight != nil {
		value, err := decodeWrapped(weight)
		if err != nil {
			return false, inField("load_balancing_weight", err)
		}
		e.weight = uint32(value)
	}
	if use, err = f.address(host, e); err != nil {
		return false, inField("endpoint", err)
	}
	if use && e.weight == 0 {
		f.ignore("endpoints[*].lb_endpoints[" + e.addr.String() + "].load_balancing_weight (0)")
		use = false
	}
	return use, nil
}

// address reads the address of an envoy.config.endpoint.v3.Endpoint. Only a
// socket address with an IP and a port can be called.
func (f *filling) address(host oneof, e *endpoint) (ok bool, err error) {
	var address []byte
	c := walk(host.val)
	for host.num == 1 && c.next() {
		switch c.num {
		case 1:
			c.message("address", &address)
		case 4:
			f.ignore("endpoints[*].lb_endpoints[*].endpoint.additional_addresses")
		}
	}
	if c.err != nil {
		return false, c.err
	}
	kind, err := decodeAddress(address)
	if err != nil {
		return false, inField("address", err)
	}
	if kind.num != 1 {
		f.ignore("endpoints[*].lb_endpoints[*].endpoint.address (not a socket address)")
		return false, nil
	}
	name, port, err := decodeSocketAddress(kind.val)
	if err != nil {
		return false, inField("address.socket_address", err)
	}
	ip, ok := parseIP(name)
	if ok && port != 0 {
		e.addr = netip.AddrPortFrom(ip, port)
		return true, nil
	}
	f.ignore(fmt.Sprintf("endpoints[*].lb_endpoints[%s:%d].endpoint.address (not an IP address with a port)", name, port))
	return false, nil
}

// decodeAddress reads an envoy.config.core.v3.Address.
func decodeAddress(b []byte) (kind oneof, err error) {
	c := walk(b)
	for c.next() {
		if c.num <= 3 {
			kind.message(&c, "address")
		}
	}
	return kind, c.err
}

// decodeSocketAddress reads an envoy.config.core.v3.SocketAddress; the port is
// 0 where it is a named one.
func decodeSocketAddress(b []byte) (host []byte, port uint16, err error) {
	var specifier oneof
	c := walk(b)
	for c.next() {
		switch c.num {
		case 2:
			host = c.raw("address")
		case 3:
			specifier.scalar(&c, "port_value")
		case 4:
			specifier.raw(&c, "named_port")
		}
	}
	if c.err == nil && specifier.u > math.MaxUint16 {
		return nil, 0, inField("port_value", fmt.Errorf("%d is not a port", uint32(specifier.u)))
	}
	return host, uint16(specifier.u), c.err
}

package proxyless

import (
	"bytes"
	"cmp"
	"fmt"
	"math"
	"net/netip"
	"slices"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"
)

// assignment reads an envoy.config.endpoint.v3.ClusterLoadAssignment. It is
// the decoder whose speed matters most, since a busy cluster sends all its
// endpoints with every change: it makes one slice for all of them, and nothing
// for each.
func (d *decoding) assignment(b []byte) (*assignment, error) {
	a, err := d.loadAssignment(b)
	if err == nil && a.cluster == "" {
		return nil, missingField("cluster_name")
	}
	return a, err
}

// loadAssignment is assignment for one inside a cluster, which may have no name.
func (d *decoding) loadAssignment(b []byte) (*assignment, error) {
	a, localities, err := d.assignmentParts(b)
	if err != nil {
		return nil, err
	}
	return a, d.fill(a, inOrder(localities))
}

// assignmentParts reads all but the endpoints.
func (d *decoding) assignmentParts(b []byte) (a *assignment, localities []localityParts, err error) {
	a = &assignment{}
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
			c.fail(inField("policy", d.assignmentPolicy(c.bytes("policy"), a)))
		}
	}
	return a, localities, c.err
}

// assignmentPolicy reads a ClusterLoadAssignment.Policy.
func (d *decoding) assignmentPolicy(b []byte, a *assignment) error {
	c := walk(b)
	for c.next() {
		switch c.num {
		case 2:
			d.keep(&c, "drop_overloads")
			drop, err := d.dropShare(c.bytes("drop_overloads"))
			c.fail(inElement("drop_overloads", len(a.drops), err))
			if drop.share > 0 {
				a.drops = append(a.drops, drop)
			}
		case 3:
			factor, err := decodeWrapped(c.bytes("overprovisioning_factor"))
			c.fail(inField("overprovisioning_factor", err))
			a.overprovided = uint32(factor)
		case 6:
			if c.scalar("weighted_priority_health") != 0 {
				d.ignore("policy.weighted_priority_health")
			}
		}
	}
	return c.err
}

// dropShare reads a ClusterLoadAssignment.Policy.DropOverload.
func (d *decoding) dropShare(b []byte) (drop dropShare, err error) {
	var share []byte
	c := walk(b)
	for c.next() {
		switch c.num {
		case 1:
			drop.category = d.intern(c.raw("category"))
		case 2:
			c.message("drop_percentage", &share)
		}
	}
	drop.share, err = decodeFraction(share)
	c.fail(inField("drop_percentage", err))
	return drop, c.err
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
	seen     addressSet
	metadata []byte // of the endpoint before, where nothing of it counts: endpoints of one workload have the same
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
	if !usualEndpoint(b, e, &f.metadata) {
		if use, err = f.unusualEndpoint(b, e); !use || err != nil {
			return false, err
		}
	}
	return true, nil
}

// usualEndpoint reads an LbEndpoint of the form that istiod sends for a pod.
// It is there for speed only: of any other form, and of anything wrong, it
// returns false, and unusualEndpoint decides. Metadata that is known to be of no
// interest is passed from one endpoint to the next.
func usualEndpoint(b []byte, e *endpoint, metadata *[]byte) bool {
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
		if n > len(b) || !usualField(tag, b[:n], e, metadata) {
			return false
		}
		b = b[n:]
	}
	return len(b) == 0 && e.addr.IsValid()
}

// usualField takes a length-delimited field of an LbEndpoint.
func usualField(tag byte, b []byte, e *endpoint, metadata *[]byte) bool {
	switch tag {
	case 1<<3 | 2: // endpoint { address { socket_address {
		if len(b) < 4 || len(b) >= 0x80 || b[0] != 1<<3|2 || b[2] != 1<<3|2 || int(b[1]) != len(b)-2 || int(b[3]) != len(b)-4 || e.addr.IsValid() {
			return false
		}
		return usualSocket(b[4:], &e.addr)
	case 3<<3 | 2: // metadata
		if bytes.Equal(b, *metadata) {
			return true
		}
		if !usualMetadata(b) {
			return false
		}
		*metadata = b
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

// usualMetadata says that a Metadata has nothing that counts, which only
// filter_metadata["envoy.lb"] has.
func usualMetadata(b []byte) bool {
	for len(b) > 0 {
		entry, rest, ok := usualPart(b, 1)
		if !ok {
			return false
		}
		key, value, ok := usualPart(entry, 1)
		if !ok || string(key) == metadataLB {
			return false
		}
		if _, after, ok := usualPart(value, 2); !ok || len(after) > 0 {
			return false
		}
		b = rest
	}
	return true
}

// usualPart takes a length-delimited field, with one or two bytes of length,
// from the start of a message.
func usualPart(b []byte, num byte) (part, rest []byte, ok bool) {
	if len(b) < 2 || b[0] != num<<3|2 {
		return nil, nil, false
	}
	n := int(b[1])
	if b = b[2:]; n >= 0x80 {
		if len(b) == 0 || b[0] >= 0x80 {
			return nil, nil, false
		}
		n, b = n&0x7F|int(b[0])<<7, b[1:]
	}
	if n > len(b) {
		return nil, nil, false
	}
	return b[:n], b[n:], true
}

const metadataLB = "envoy.lb"

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
	p, err := decodeLBEndpoint(b)
	if err != nil {
		return false, err
	}
	*e = endpoint{weight: p.weight, health: p.health}
	if use, err = f.address(p.host, e); err != nil {
		return false, inField("endpoint", err)
	}
	if key := hashKey(p.metadata); key != "" {
		e.more().hashKey = key
	}
	if use && e.weight == 0 {
		f.ignore("endpoints[*].lb_endpoints[" + e.addr.String() + "].load_balancing_weight (0)")
		use = false
	}
	return use, nil
}

// more makes room for what few endpoints have.
func (e *endpoint) more() *endpointExtra {
	if e.extra == nil {
		e.extra = &endpointExtra{}
	}
	return e.extra
}

// endpointParts is what is looked at of an LbEndpoint.
type endpointParts struct {
	host     oneof
	metadata []byte
	weight   uint32 // 1 where it is absent
	health   healthStatus
}

// decodeLBEndpoint reads an envoy.config.endpoint.v3.LbEndpoint.
func decodeLBEndpoint(b []byte) (p endpointParts, err error) {
	var weight []byte
	var health uint64
	c := walk(b)
	for c.next() {
		switch c.num {
		case 1:
			p.host.message(&c, "endpoint")
		case 2:
			health = c.scalar("health_status")
		case 3:
			c.message("metadata", &p.metadata)
		case 4:
			c.message("load_balancing_weight", &weight)
		case 5:
			p.host.raw(&c, "endpoint_name")
		}
	}
	if p.health = healthUnhealthy; health <= uint64(healthDegraded) {
		p.health = healthStatus(health)
	}
	if p.weight = 1; weight != nil {
		value, err := decodeWrapped(weight)
		c.fail(inField("load_balancing_weight", err))
		p.weight = uint32(value)
	}
	return p, c.err
}

// hashKey finds filter_metadata["envoy.lb"]["hash_key"] of a Metadata (gRFC
// A76). What is wrong with metadata is nobody's business here: then there is none.
func hashKey(metadata []byte) string {
	key := ""
	c := walk(mapValue(mapValue(metadata, metadataLB), "hash_key"))
	for c.next() {
		if c.num == 3 && utf8.Valid(c.val) {
			key = string(c.val)
		}
	}
	return key
}

// mapValue finds the value of a key in the map that is field 1 of a message;
// of several the last. What it returns aliases the message.
func mapValue(message []byte, key string) (value []byte) {
	c := walk(message)
	for c.next() {
		if c.num != 1 {
			continue
		}
		var found, its []byte
		entry := walk(c.val)
		for entry.next() {
			switch entry.num {
			case 1:
				found = entry.val
			case 2:
				its = entry.val
			}
		}
		if string(found) == key {
			value = its
		}
	}
	return value
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
		case 3:
			if name := c.text("hostname"); name != "" {
				e.more().hostname = name
			}
		case 4:
			f.keep(&c, "additional_addresses")
			c.fail(inField("additional_addresses", f.additional(c.bytes("additional_addresses"), e)))
		}
	}
	if c.err != nil {
		return false, c.err
	}
	addr, text, err := socketAddress(address)
	if err == nil && !addr.IsValid() {
		f.ignore("endpoints[*].lb_endpoints[" + text + "].endpoint.address (not an IP address with a port)")
	}
	e.addr = addr
	return addr.IsValid(), inField("address", err)
}

// additional reads an Endpoint.AdditionalAddress.
func (f *filling) additional(b []byte, e *endpoint) error {
	address, err := submessage(b, 1, "address")
	if err != nil {
		return err
	}
	addr, text, err := socketAddress(address)
	switch {
	case err != nil:
	case addr.IsValid():
		e.more().more = append(e.more().more, addr)
	default:
		f.ignore("endpoints[*].lb_endpoints[*].endpoint.additional_addresses (" + text + ")")
	}
	return inField("address", err)
}

// socketAddress reads an envoy.config.core.v3.Address. It is invalid, and text
// says what there is, where it is no socket address of an IP with a port.
func socketAddress(b []byte) (addr netip.AddrPort, text string, err error) {
	kind, err := decodeAddress(b)
	if err != nil || kind.num != 1 {
		return addr, "*", err
	}
	name, port, err := decodeSocketAddress(kind.val)
	if err != nil {
		return addr, "", inField("socket_address", err)
	}
	if ip, ok := parseIP(name); ok && port != 0 {
		return netip.AddrPortFrom(ip, port), "", nil
	}
	return addr, fmt.Sprintf("%s:%d", name, port), nil
}

// namedEndpoints reads the load_assignment of a cluster that is resolved by
// DNS: its localities, without endpoints, and the names. Of the names those
// count that would be usable.
func (d *decoding) namedEndpoints(b []byte) (a *assignment, names []dnsName, err error) {
	a, localities, err := d.assignmentParts(b)
	if err != nil {
		return nil, nil, err
	}
	parts := inOrder(localities)
	for i := range parts {
		p := &parts[i]
		if names, err = d.localityNames(p, i, names); err != nil {
			return nil, nil, inElement("endpoints", p.index, err)
		}
		p.count = 0
		a.localities = append(a.localities, p.locality)
	}
	return a, names, nil
}

func (d *decoding) localityNames(p *localityParts, at int, names []dnsName) ([]dnsName, error) {
	var sum uint64
	c := walk(p.message)
	for i := 0; c.next(); {
		if c.num != 2 {
			continue
		}
		e, err := decodeLBEndpoint(c.bytes("lb_endpoints"))
		n := dnsName{weight: e.weight, locality: at, priority: p.priority}
		if err == nil && e.host.num == 1 {
			err = inField("endpoint", n.read(e.host.val))
		}
		switch {
		case err != nil:
			c.fail(inElement("lb_endpoints", i, err))
		case n.host == "" || n.port == 0:
			d.ignore(fmt.Sprintf("endpoints[*].lb_endpoints[%s:%d].endpoint.address (not a name with a port)", n.host, n.port))
		case n.weight == 0:
			d.ignore(fmt.Sprintf("endpoints[*].lb_endpoints[%s:%d].load_balancing_weight (0)", n.host, n.port))
		case e.health.usable():
			names = append(names, n)
			sum += uint64(n.weight)
		}
		i++
	}
	if !p.weighted {
		p.weight = uint32(min(sum, math.MaxUint32))
	}
	return names, c.err
}

// read reads an envoy.config.endpoint.v3.Endpoint whose address is a name.
func (n *dnsName) read(b []byte) error {
	var address []byte
	c := walk(b)
	for c.next() {
		switch c.num {
		case 1:
			c.message("address", &address)
		case 3:
			n.hostname = c.text("hostname")
		}
	}
	kind, err := decodeAddress(address)
	if c.fail(inField("address", err)); c.err != nil || kind.num != 1 {
		return c.err
	}
	host, port, err := decodeSocketAddress(kind.val)
	n.host, n.port = string(host), port
	return inField("address.socket_address", err)
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

package proxyless

import (
	"cmp"
	"fmt"
	"math"
	"slices"

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
		case 9:
			if mapValue(c.bytes("metadata"), metadataSocket) != nil {
				d.ignore("endpoints[*].metadata." + metadataSocket)
			}
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
	a.labels = f.labels.sets
	return nil
}

// filling is the second pass over an assignment.
type filling struct {
	*decoding
	*assignment
	seen         addressSet
	labels       labelled
	metadata     []byte // of the endpoint before: endpoints of one workload have the same
	labelsBefore uint16 // what it gave that endpoint
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

// namedEndpoints reads the load_assignment of a cluster that is resolved by
// DNS: its localities, without endpoints, and the names. Of the names those
// count that would be usable.
func (d *decoding) namedEndpoints(b []byte) (a *assignment, names []dnsName, err error) {
	a, localities, err := d.assignmentParts(b)
	if err != nil {
		return nil, nil, err
	}
	parts := inOrder(localities)
	var labels labelled
	for i := range parts {
		p := &parts[i]
		if names, err = d.localityNames(p, i, &labels, names); err != nil {
			return nil, nil, inElement("endpoints", p.index, err)
		}
		p.count = 0
		a.localities = append(a.localities, p.locality)
	}
	a.labels = labels.sets
	return a, names, nil
}

func (d *decoding) localityNames(p *localityParts, at int, labels *labelled, names []dnsName) ([]dnsName, error) {
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
		if err == nil {
			n.labels, err = labels.labelsOf(e.metadata)
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

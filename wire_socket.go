package proxyless

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// metadataSocket is the filter_metadata of an endpoint that chooses among
// transport_socket_matches.
const metadataSocket = "envoy.transport_socket_match"

// transport settles how the cluster's endpoints are spoken to. A socket that is
// chosen by their metadata and needs this workload's certificate is the mesh's
// offer (auto mTLS), which is not taken where there is no certificate to come
// by; a cluster's own socket is a demand.
func (d *decoding) transport(p *clusterParts, x *cluster) (err error) {
	outer := d.enter()
	x.tls, err = d.transportSocket(p.socket, typeUpstreamTLS, "transport_socket")
	d.leave(outer, "transport_socket", "", -1)
	if err != nil {
		return inField("transport_socket", err)
	}
	for i, b := range p.sockets {
		m, err := d.socketMatch(b)
		if err != nil {
			return inElement("transport_socket_matches", i, err)
		}
		if d.anonymous && m.tls.needsWorkload() && len(m.labels) > 0 {
			d.ignore("transport_socket_matches")
			continue
		}
		x.sockets = append(x.sockets, m)
	}
	x.simplify()
	if p.matcher {
		x.tls, x.sockets = (&tlsContext{failure: "transport_socket_matcher cannot be obeyed: it is not supported"}).settle(), nil
	}
	return inField("upstream_http_protocol_options", d.names(p.http.names, x))
}

// simplify drops matches behind one that is for all endpoints, and makes that
// one the cluster's own.
func (x *cluster) simplify() {
	if at := slices.IndexFunc(x.sockets, func(m socketMatch) bool { return len(m.labels) == 0 }); at >= 0 {
		x.tls, x.sockets = x.sockets[at].tls, x.sockets[:at:at]
	}
	if !slices.ContainsFunc(x.sockets, func(m socketMatch) bool { return m.tls != x.tls }) {
		x.sockets = nil
	}
}

// socketMatch reads a Cluster.TransportSocketMatch.
func (d *decoding) socketMatch(b []byte) (m socketMatch, err error) {
	var match, socket []byte
	c := walk(b)
	for c.next() {
		switch c.num {
		case 1:
			m.name = d.intern(c.raw("name"))
		case 2:
			c.message("match", &match)
		case 3:
			c.message("transport_socket", &socket)
		}
	}
	if c.err != nil {
		return m, c.err
	}
	outer := d.enter()
	m.tls, err = d.transportSocket(socket, typeUpstreamTLS, "transport_socket_matches["+m.name+"].transport_socket")
	d.leave(outer, "transport_socket_matches["+m.name+"].transport_socket", "", -1)
	c.fail(inField("transport_socket", err))
	m.labels, err = decodeLabels(match)
	c.fail(inField("match", err))
	return m, c.err
}

// names reads an envoy.config.core.v3.UpstreamHttpProtocolOptions.
func (d *decoding) names(b []byte, x *cluster) error {
	header := ""
	c := walk(b)
	for c.next() {
		switch c.num {
		case 1:
			x.nameSNI = c.scalar("auto_sni") != 0
		case 2:
			x.nameSAN = c.scalar("auto_san_validation") != 0
		case 3:
			header = c.text("override_auto_sni_header")
		}
	}
	x.nameSNI, x.nameSAN = x.nameSNI && x.secured(), x.nameSAN && x.secured()
	if header != "" && (x.nameSNI || x.nameSAN) {
		x.tls, x.sockets = (&tlsContext{failure: "upstream_http_protocol_options.override_auto_sni_header cannot be obeyed: the name does not change with each call"}).settle(), nil
	}
	return c.err
}

// decodeLabels reads a google.protobuf.Struct by which sockets are chosen.
func decodeLabels(b []byte) (socketLabels, error) {
	if len(b) == 0 {
		return nil, nil
	}
	fields, err := structFields(b, 0)
	return fields, err
}

// maxStructDepth is how deep values of metadata may be nested.
const maxStructDepth = 16

// structFields reads a google.protobuf.Struct, each value as text that is
// equal for equal values.
func structFields(b []byte, depth int) (map[string]string, error) {
	if depth > maxStructDepth {
		return nil, fmt.Errorf("nested more than %d deep", maxStructDepth)
	}
	fields := map[string]string{}
	c := walk(b)
	for c.next() {
		if c.num != 1 {
			continue
		}
		var name string
		var value []byte
		entry := walk(c.bytes("fields"))
		for entry.next() {
			switch entry.num {
			case 1:
				name = entry.text("key")
			case 2:
				entry.message("value", &value)
			}
		}
		text, err := structValue(value, depth)
		entry.fail(inField("fields["+name+"]", err))
		c.fail(entry.err)
		fields[name] = text
	}
	return fields, c.err
}

// structValue reads a google.protobuf.Value.
func structValue(b []byte, depth int) (string, error) {
	text := "null"
	c := walk(b)
	for c.next() {
		switch c.num {
		case 1:
			text = "null"
		case 2:
			text = strconv.FormatFloat(c.double("number_value"), 'g', -1, 64)
		case 3:
			text = strconv.Quote(c.text("string_value"))
		case 4:
			text = strconv.FormatBool(c.scalar("bool_value") != 0)
		case 5:
			fields, err := structFields(c.bytes("struct_value"), depth+1)
			c.fail(inField("struct_value", err))
			text = structText(fields)
		case 6:
			list, err := structList(c.bytes("list_value"), depth+1)
			c.fail(inField("list_value", err))
			text = "[" + strings.Join(list, ",") + "]"
		default:
			c.fail(errors.New("a value of no known kind"))
		}
	}
	return text, c.err
}

// structList reads a google.protobuf.ListValue.
func structList(b []byte, depth int) (list []string, err error) {
	if depth > maxStructDepth {
		return nil, fmt.Errorf("nested more than %d deep", maxStructDepth)
	}
	c := walk(b)
	for c.next() {
		if c.num == 1 {
			text, err := structValue(c.bytes("values"), depth)
			c.fail(inElement("values", len(list), err))
			list = append(list, text)
		}
	}
	return list, c.err
}

func structText(fields map[string]string) string {
	var b strings.Builder
	b.WriteByte('{')
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		fmt.Fprintf(&b, "%q:%s,", name, fields[name])
	}
	b.WriteByte('}')
	return b.String()
}

// maxLabels is how many sets of labels the endpoints of one assignment may have.
const maxLabels = 1024

// labelled are the sets of labels of an assignment while it is read: endpoints
// have few different ones, so that each set is read once.
type labelled struct {
	raw  [][]byte // as they came; parallel to sets
	sets []socketLabels
}

// add returns the number of a set, from 1; 0 is none.
func (l *labelled) add(raw []byte) (uint16, error) {
	if len(raw) == 0 {
		return 0, nil
	}
	for i := range l.raw {
		if string(l.raw[i]) == string(raw) {
			return uint16(i + 1), nil
		}
	}
	if len(l.raw) == maxLabels {
		return 0, fmt.Errorf("more than %d different ones in one assignment", maxLabels)
	}
	set, err := decodeLabels(raw)
	if err != nil {
		return 0, err
	}
	l.raw, l.sets = append(l.raw, raw), append(l.sets, set)
	return uint16(len(l.raw)), nil
}

// labelsOf finds the labels in a Metadata.
func (l *labelled) labelsOf(metadata []byte) (uint16, error) {
	n, err := l.add(mapValue(metadata, metadataSocket))
	return n, inField("metadata", inField(metadataSocket, err))
}

package proxyless

import (
	"errors"
	"slices"
	"strconv"
	"strings"

	"google.golang.org/protobuf/encoding/protowire"
)

// coverage says of one resource which of the fields that are present were
// applied and which carry policy that was not. It is immutable, and resources
// of the same make share one.
type coverage struct {
	applied []string // field paths, sorted
	ignored []string // field paths: those that the decoder noted first, in its order
}

// surveyor makes coverages: it walks over the bytes of a resource beside its
// decoder, with coverageTable for a guide. It learns the paths that it meets,
// so that a path's text is made once in the life of a Mesh. Only the ADS loop
// uses it.
type surveyor struct {
	roots [kindCount]*pathNode
	nodes []*pathNode
	seen  []uint64 // the nodes met in this resource, a bit each
	made  map[string]*coverage
}

// pathNode is one field path of a kind of resource.
type pathNode struct {
	path   string
	field  coverageField
	role   map[protowire.Number]coverageField // of the message inside; nil for none
	number int                                // in surveyor.nodes
	near   []*pathNode                        // of fields with small numbers, by number; made when first met
	far    map[protowire.Number]*pathNode     // of the others
	types  map[string]*pathNode               // of an Any: by the type of what is inside
}

// nearFields is up to which number fields are found by index.
const nearFields = 64

// Limits of a survey.
const (
	maxPaths = 8192 // what the mesh may make the surveyor learn; beyond it a field counts for the message it is in
	maxDepth = 32   // of messages, inlined extensions included
	// Endpoints of one locality look alike, and there may be 10 000 of them.
	maxSurveyed = 8
	maxMade     = 4096
)

func newSurveyor() *surveyor {
	s := &surveyor{made: map[string]*coverage{}}
	for k, role := range [kindCount]string{"Listener", "RouteConfiguration", "Cluster", "ClusterLoadAssignment"} {
		s.roots[k] = s.learn("", coverageField{role: role})
	}
	return s
}

func (s *surveyor) learn(path string, field coverageField) *pathNode {
	n := &pathNode{path: path, field: field, role: coverageRoles()[field.role], number: len(s.nodes)}
	s.nodes = append(s.nodes, n)
	if len(s.nodes) > 64*len(s.seen) {
		s.seen = append(s.seen, 0)
	}
	return n
}

// complete fills in what was applied of a resource that was decoded, and adds
// to what was ignored. Where strict, a resource of which something is ignored is
// refused.
func (s *surveyor) complete(k kind, value []byte, got *decoded, strict bool) error {
	c := s.survey(k, value, got)
	got.applied, got.ignored = c.applied, c.ignored
	if demands := slices.DeleteFunc(slices.Clone(c.ignored), isOffer); strict && len(demands) > 0 {
		return &ignoredError{demands}
	}
	return nil
}

// isOffer says that a path is of what the mesh offers and does not demand: TLS
// to those endpoints that speak it, which Istio offers in every cluster of a
// sidecar. Strict mode lets it pass.
func isOffer(path string) bool { return path == "transport_socket_matches" }

// ignoredError refuses a resource in strict mode.
type ignoredError struct{ fields []string }

func (e *ignoredError) Error() string {
	return "strict mode refuses policy that is not applied: " + strings.Join(e.fields, ", ")
}

// rejectedFields are the paths of the fields for which a resource was refused.
func rejectedFields(err error) []string {
	var strict *ignoredError
	var field *fieldError
	switch {
	case errors.As(err, &strict):
		return strict.fields
	case errors.As(err, &field):
		return []string{field.path}
	}
	return nil
}

// survey makes the coverage of a resource that was accepted. Of a route
// configuration only the virtual hosts that were kept count.
func (s *surveyor) survey(k kind, value []byte, got *decoded) *coverage {
	clear(s.seen)
	w := surveying{surveyor: s}
	if l, ok := got.value.(*listener); ok {
		w.inbound = len(l.inbound) > 0
	}
	if r, ok := got.value.(*routeConfig); ok {
		w.hosts = make(map[string]struct{}, len(r.virtualHosts))
		for i := range r.virtualHosts {
			w.hosts[r.virtualHosts[i].name] = struct{}{}
		}
	}
	w.message(s.roots[k], value, 0)
	key := s.key(got.ignored)
	if c := s.made[key]; c != nil {
		return c
	}
	if len(s.made) >= maxMade {
		clear(s.made)
	}
	c := s.conclude(got.ignored)
	s.made[key] = c
	return c
}

// key tells coverages apart.
func (s *surveyor) key(notes []string) string {
	var b strings.Builder
	for _, word := range s.seen {
		b.WriteString(strconv.FormatUint(word, 36))
		b.WriteByte(' ')
	}
	for _, note := range notes {
		b.WriteString(note)
		b.WriteByte(0)
	}
	return b.String()
}

// conclude sorts the paths that were met. What the decoder noted counts: it
// knows the values, and the table only fields.
func (s *surveyor) conclude(notes []string) *coverage {
	bare := make([]string, len(notes))
	for i, note := range notes {
		bare[i] = barePath(note)
	}
	noted := func(path string) bool {
		path = barePath(path)
		return slices.ContainsFunc(bare, func(note string) bool { return beneath(path, note) || beneath(note, path) })
	}
	c := &coverage{ignored: slices.Clone(notes)}
	var ignored []string
	for _, n := range s.nodes {
		switch met := s.seen[n.number/64]>>(n.number%64)&1 == 1; {
		case !met || noted(n.path):
		case n.field.ignored:
			ignored = append(ignored, n.path)
		default:
			c.applied = append(c.applied, n.path)
		}
	}
	slices.Sort(c.applied)
	slices.Sort(ignored)
	c.ignored = append(c.ignored, ignored...)
	return c
}

// barePath is a path without what tells elements of a list apart, and without
// what the decoder says of the value.
func barePath(path string) string {
	path, _, _ = strings.Cut(path, " (")
	for {
		open := strings.IndexByte(path, '[')
		if open < 0 {
			return path
		}
		end := strings.IndexByte(path[open:], ']')
		for next := open + end + 1; end > 0 && next < len(path) && path[next] != '.' && path[next] != '['; next = open + end + 1 {
			more := strings.IndexByte(path[next:], ']') // the name has a bracket of its own
			if more < 0 {
				break
			}
			end += more + 1
		}
		if end < 0 {
			return path
		}
		path = path[:open] + path[open+end+1:]
	}
}

// beneath says that a path is another one, or a field inside.
func beneath(path, outer string) bool {
	return strings.HasPrefix(path, outer) && (len(path) == len(outer) || path[len(outer)] == '.')
}

// surveying is the walk over one resource.
type surveying struct {
	*surveyor
	hosts   map[string]struct{} // the virtual hosts that count; nil for all
	inbound bool                // a listener for servers, whose chains are judged as wholes
}

func (w *surveying) meet(n *pathNode) { w.seen[n.number/64] |= 1 << (n.number % 64) }

// message meets the fields that are present in a message. One without any is
// met itself, since it may be its presence that counts.
func (w *surveying) message(n *pathNode, b []byte, depth int) {
	role := n.role
	if len(b) == 0 || role == nil || depth == maxDepth {
		w.meet(n)
		return
	}
	surveyed := 0
	var f *pathNode
	last := protowire.Number(0)
	c := walk(b)
	for c.next() {
		if c.num != last {
			f, last = w.child(n, role, c.num), c.num
		}
		switch {
		case f.field.neutral, f.field.unlessZero && isZero(&c):
		case f.field.sampled:
			if surveyed++; surveyed <= maxSurveyed {
				w.message(f, c.val, depth+1)
			} else {
				c.rest = skipSame(c.rest, c.num)
			}
		case f.field.hosts && !w.counts(c.val):
		case f.field.role == "FilterChain" && w.inbound:
			w.meet(f)
		case f.field.packed:
			w.packed(f, c.val, depth+1)
		case f.field.role != "":
			w.message(f, c.val, depth+1)
		default:
			w.meet(f)
		}
	}
}

// skipSame skips fields of one number that are of the most frequent form, see
// cursor.short.
func skipSame(b []byte, num protowire.Number) []byte {
	tag := byte(num)<<3 | byte(protowire.BytesType)
	for len(b) >= 3 && b[0] == tag {
		end := 2 + int(b[1])
		if b[1] >= 0x80 {
			end = 3 + int(b[1]&0x7f) + int(b[2])<<7
			if b[2] >= 0x80 {
				break
			}
		}
		if end > len(b) {
			break
		}
		b = b[end:]
	}
	return b
}

// isZero says that a Duration or wrapper is an explicit zero, which asks for
// nothing.
func isZero(c *cursor) bool { return c.typ == protowire.BytesType && len(c.val) == 0 }

// counts says whether a virtual host was kept.
func (w *surveying) counts(host []byte) bool {
	if w.hosts == nil {
		return true
	}
	_, kept := w.hosts[resourceName(kindRoute, host)] // the name has the same number
	return kept
}

// packed meets what is inside an Any, or inside the one in a map's entry.
func (w *surveying) packed(n *pathNode, b []byte, depth int) {
	if n.field.entries {
		b, _ = submessage(b, 2, "value")
	}
	url, value, _ := decodeAny(b)
	name := string(typeName(url))
	inside := n.types[name]
	if inside == nil {
		role, known := coverageTypes()[name]
		field := coverageField{name: n.field.name, role: role, neutral: !known} // the decoder notes a type that it does not know
		if inside = w.grow(n, n.path, field); inside != n {
			if n.types == nil {
				n.types = map[string]*pathNode{}
			}
			n.types[name] = inside
		}
	}
	if inside != n && !inside.field.neutral {
		w.message(inside, value, depth)
	}
}

// child finds the node of a field; one that the table does not have is newer
// than the table.
func (w *surveying) child(n *pathNode, role map[protowire.Number]coverageField, num protowire.Number) *pathNode {
	if f := n.known(num); f != nil {
		return f
	}
	field, known := role[num]
	if !known {
		field = coverageField{name: "field " + strconv.Itoa(int(num)), ignored: true}
	}
	path := field.name
	if n.path != "" {
		path = n.path + "." + path
	}
	f := w.grow(n, path, field)
	if f != n {
		n.remember(num, f)
	}
	return f
}

// known is the node of a field that was met before; nil of one that was not.
func (n *pathNode) known(num protowire.Number) *pathNode {
	if int(num) < len(n.near) {
		return n.near[num]
	}
	return n.far[num]
}

func (n *pathNode) remember(num protowire.Number, f *pathNode) {
	if num < nearFields {
		for int(num) >= len(n.near) {
			n.near = append(n.near, nil)
		}
		n.near[num] = f
		return
	}
	if n.far == nil {
		n.far = map[protowire.Number]*pathNode{}
	}
	n.far[num] = f
}

// grow makes a node below another, unless there are too many.
func (w *surveying) grow(n *pathNode, path string, field coverageField) *pathNode {
	if len(w.nodes) >= maxPaths {
		return n
	}
	return w.learn(path, field)
}

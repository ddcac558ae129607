package meshtest

const rbacType = typePrefix + "envoy.extensions.filters.http.rbac.v3.RBAC"

// Policy is one rule of an AuthorizationPolicy as istiod compiles it. A call
// matches when its path is one of Paths and its peer one of Principals; an
// empty list stands for any.
type Policy struct {
	Name       string   // <namespace>-<name>-<index of the rule>
	Paths      []string // exact
	Principals []string // exact, with their spiffe:// prefix
}

// RBACFilter is an envoy.extensions.filters.http.rbac.v3.RBAC filter, under the
// name that istiod gives it.
func RBACFilter(deny bool, policies ...Policy) HTTPFilter {
	name, action := "envoy.filters.http.rbac", uint64(0)
	if deny {
		name, action = "envoy.filters.http.rbac.DENY", 1
	}
	rules := appendVarint(nil, 1, action)
	for _, p := range policies {
		entry := appendString(nil, 1, p.Name)
		rules = appendMessage(rules, 2, appendMessage(entry, 2, p.marshal()))
	}
	return HTTPFilter{Name: name, TypeURL: rbacType, Config: appendMessage(nil, 1, rules)}
}

func (p Policy) marshal() []byte {
	var b []byte
	for _, path := range p.Paths {
		matcher := appendMessage(nil, 1, appendMember(nil, 1, path))
		b = appendMessage(b, 1, appendMessage(nil, 10, matcher))
	}
	if len(p.Paths) == 0 {
		b = appendMessage(b, 1, appendPresentBool(nil, 3, true))
	}
	for _, principal := range p.Principals {
		name := appendMessage(nil, 2, appendMember(nil, 1, principal))
		b = appendMessage(b, 2, appendMessage(nil, 4, name))
	}
	if len(p.Principals) == 0 {
		b = appendMessage(b, 2, appendPresentBool(nil, 3, true))
	}
	return b
}

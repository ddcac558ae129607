package proxyless

import (
	"cmp"
	"slices"
	"strings"

	"google.golang.org/grpc/codes"
)

// accessFilter is what is kept of an RBAC filter: of HTTP, or of a connection,
// whose rules see nothing of the call.
type accessFilter struct {
	rules  *accessRules // what is enforced; nil is nothing
	shadow *accessRules // what is only tried: an AuthorizationPolicy under dry run; nil is nothing
	custom *accessRules // what an external authorizer is to be asked about, which is not done here: it is refused; nil is nothing
}

// accessAction is RBAC.action.
type accessAction uint8

const (
	accessAllow accessAction = iota
	accessDeny
	accessLog
)

// String is the action as AuthorizationPolicies call it.
func (a accessAction) String() string { return [...]string{"ALLOW", "DENY", "AUDIT"}[a] }

// accessRules is what is kept of an envoy.config.rbac.v3.RBAC.
type accessRules struct {
	action     accessAction
	auditAllow bool               // audit_logging_options: calls that are let through are recorded, too
	policies   []accessPolicy     // by name, as Envoy goes over them
	at         map[string]int     // where each was before they were sorted, while they are read
	byPath     map[string][]int32 // those that say no unless the path is one of a few; nil where there are few policies
	others     []int32            // the rest, where byPath is set
}

// accessPolicy is what is kept of an envoy.config.rbac.v3.Policy: both have to
// match.
type accessPolicy struct {
	name        string
	permissions accessRule
	principals  accessRule
	gaps        []string // what of it cannot be evaluated, by field
}

// judgment is what a rule says of a call. What cannot be evaluated stays apart
// from no, so that it is not turned into yes by a rule that says not: no is
// less than cannotTell, that is less than yes, and the rules take the least,
// the greatest, or the opposite.
type judgment uint8

const (
	no judgment = iota
	cannotTell
	yes
)

func judged(matched bool) judgment {
	if matched {
		return yes
	}
	return no
}

// check is the filter's ruling. Shadow rules come first, as in Envoy, and refuse
// nothing.
func (f *accessFilter) check(call *callFacts) ruling {
	if f.shadow != nil {
		if r := f.shadow.check(call); r.code != codes.OK {
			r.action = "shadow " + r.action
			call.audits = append(call.audits, r)
		}
	}
	if f.custom != nil {
		if at, v := f.custom.decide(call); v != no {
			r := f.custom.ruling(codes.PermissionDenied, at, v)
			r.action, r.reason = "CUSTOM", r.reason+", and external authorizers are not supported"
			return r
		}
	}
	if f.rules == nil {
		return ruling{}
	}
	return f.rules.check(call)
}

// check fails closed: a policy that allows has to match, and one that denies
// must not.
func (r *accessRules) check(call *callFacts) ruling {
	at, v := r.decide(call)
	switch {
	case r.action == accessAllow && v == yes:
		if r.auditAllow {
			call.audits = append(call.audits, r.ruling(codes.OK, at, v))
		}
	case r.action == accessAllow:
		return ruling{code: codes.PermissionDenied, action: r.action.String(), reason: r.unmatched(at)}
	case r.action == accessDeny && v != no:
		return r.ruling(codes.PermissionDenied, at, v)
	case r.action == accessLog && v != no:
		call.audits = append(call.audits, r.ruling(codes.OK, at, v))
	case r.action == accessDeny && r.auditAllow:
		call.audits = append(call.audits, ruling{action: r.action.String(), reason: "no policy matches"})
	}
	return ruling{}
}

// decide finds the policy that matters, the first that says yes or else the
// first that cannot tell. Policies about other paths are not looked at.
func (r *accessRules) decide(call *callFacts) (at int, best judgment) {
	path, plain := "", false
	if r.byPath != nil {
		path, plain = call.plainPath()
	}
	at = -1
	if !plain {
		for i := range r.policies {
			if r.weigh(call, i, &at, &best) {
				break
			}
		}
		return at, best
	}
	here, others := r.byPath[path], r.others
	for len(here)+len(others) > 0 {
		list := &here
		if len(here) == 0 || len(others) > 0 && others[0] < here[0] {
			list = &others
		}
		if r.weigh(call, int((*list)[0]), &at, &best) {
			break
		}
		*list = (*list)[1:]
	}
	return at, best
}

// weigh looks at one policy; done says that no other one matters.
func (r *accessRules) weigh(call *callFacts, i int, at *int, best *judgment) (done bool) {
	if v := r.policies[i].judge(call); v > *best {
		*at, *best = i, v
	}
	return *best == yes || *best == cannotTell && r.action == accessDeny
}

// fewPolicies is up to how many are looked at one by one.
const fewPolicies = 4

// index sorts the policies, and finds out which are about a few paths only.
func (r *accessRules) index() {
	r.at = nil
	slices.SortFunc(r.policies, func(a, b accessPolicy) int { return cmp.Compare(a.name, b.name) })
	if len(r.policies) <= fewPolicies {
		return
	}
	r.byPath = map[string][]int32{}
	for i := range r.policies {
		paths, few := r.policies[i].permissions.onlyPaths()
		if !few {
			r.others = append(r.others, int32(i))
		}
		for _, path := range paths {
			if here := r.byPath[path]; len(here) == 0 || here[len(here)-1] != int32(i) {
				r.byPath[path] = append(here, int32(i))
			}
		}
	}
	if len(r.byPath) == 0 {
		r.byPath, r.others = nil, nil
	}
}

func (p *accessPolicy) judge(call *callFacts) judgment {
	v := p.permissions.judge(call)
	if v == no {
		return no
	}
	return min(v, p.principals.judge(call))
}

// ruling is that of one policy.
func (r *accessRules) ruling(code codes.Code, at int, v judgment) ruling {
	p := &r.policies[at]
	reason := "the policy matches"
	if v == cannotTell {
		reason = p.doubt()
	}
	return ruling{code: code, policy: p.name, action: r.action.String(), reason: reason}
}

// unmatched is why policies that allow do not.
func (r *accessRules) unmatched(at int) string {
	switch {
	case len(r.policies) == 0:
		return "nothing is allowed"
	case at < 0:
		return "no policy matches"
	}
	return "no policy matches, and " + r.policies[at].name + " cannot: " + r.policies[at].doubt()
}

// doubt is why a policy cannot be evaluated for a call.
func (p *accessPolicy) doubt() string {
	if len(p.gaps) == 0 {
		return "what the call or its connection shows is not plain enough for the policy to be evaluated"
	}
	return "not evaluated: " + strings.Join(p.gaps, ", ")
}

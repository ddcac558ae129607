package proxyless

import (
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
	auditAllow bool           // audit_logging_options: calls that are let through are recorded, too
	policies   []accessPolicy // by name, as Envoy goes over them
	at         map[string]int // where each was before they were sorted, while they are read
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
// first that cannot tell.
func (r *accessRules) decide(call *callFacts) (at int, best judgment) {
	at, best = -1, no
	for i := range r.policies {
		v := r.policies[i].judge(call)
		if v > best {
			at, best = i, v
		}
		if best == yes || best == cannotTell && r.action == accessDeny {
			break
		}
	}
	return at, best
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

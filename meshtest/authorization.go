package meshtest

// AccessAction is what an AuthorizationPolicy does with the calls that it
// matches.
type AccessAction uint8

// The actions of an AuthorizationPolicy.
const (
	AccessAllow AccessAction = iota
	AccessDeny
	AccessAudit
	// AccessCustom is one whose provider istiod does not know: the full view then
	// denies what it matches.
	AccessCustom
)

// AuthorizationPolicy is one of Istio's. From those of an Inbound the control
// plane makes RBAC filters as istiod does, which differ by view and port:
//
//   - In the full view there is one filter for each action, those of CUSTOM,
//     AUDIT, DENY and ALLOW in this order, and for a dry run shadow rules. On a
//     TCP port an ALLOW rule that asks for anything of HTTP is left out, of a DENY
//     rule only what asks for it.
//   - In the lean view AUDIT, CUSTOM, and policies without rules are left out, and
//     a dry run is enforced.
type AuthorizationPolicy struct {
	Namespace, Name string
	Action          AccessAction
	DryRun          bool
	Rules           []AccessRule // none match no call; one that is empty matches all
}

// AccessRule matches a call that is From one of the sources, if there are any,
// To one of the operations, likewise, and meets every condition.
type AccessRule struct {
	From []AccessSource
	To   []AccessOperation
	When []AccessCondition
}

// AccessSource is source of an AuthorizationPolicy. All that it names has to
// match; a list is a choice. "x*", "*x" and "*" are patterns.
type AccessSource struct {
	Principals, NotPrincipals               []string // cluster.local/ns/demo/sa/caller
	RequestPrincipals, NotRequestPrincipals []string // issuer/subject
	ServiceAccounts, NotServiceAccounts     []string // namespace/account, or an account of the policy's namespace
	Namespaces, NotNamespaces               []string
	RemoteIPBlocks, NotRemoteIPBlocks       []string
	IPBlocks, NotIPBlocks                   []string
}

// AccessOperation is operation of an AuthorizationPolicy.
type AccessOperation struct {
	Hosts, NotHosts     []string
	Methods, NotMethods []string
	Paths, NotPaths     []string // {*} and {**} make a template of one
	Ports, NotPorts     []string
}

// AccessCondition is a condition of an AuthorizationPolicy. Key is one of
// request.headers[name], request.auth.claims[name] with any number of further
// [name], request.auth.principal, request.auth.audiences,
// request.auth.presenter, source.ip, remote.ip, source.namespace,
// source.serviceAccount, source.principal, destination.ip, destination.port and
// connection.sni.
type AccessCondition struct {
	Key               string
	Values, NotValues []string
}

// accessTest is one thing that a rule asks for: a key of AccessCondition, or one
// of those of operations.
type accessTest struct {
	key         string
	values, not []string
}

const (
	keyHost             = "host"
	keyMethod           = "method"
	keyPath             = "path"
	keyDestinationIP    = "destination.ip"
	keyDestinationPort  = "destination.port"
	keySNI              = "connection.sni"
	keySourceIP         = "source.ip"
	keyRemoteIP         = "remote.ip"
	keySourceNamespace  = "source.namespace"
	keySourceAccount    = "source.serviceAccount"
	keySourcePrincipal  = "source.principal"
	keyRequestPrincipal = "request.auth.principal"
	keyAudiences        = "request.auth.audiences"
	keyPresenter        = "request.auth.presenter"
	prefixHeader        = "request.headers["
	prefixClaim         = "request.auth.claims["
)

func (o AccessOperation) tests() []accessTest {
	return []accessTest{
		{keyHost, o.Hosts, o.NotHosts}, {keyMethod, o.Methods, o.NotMethods},
		{keyPath, o.Paths, o.NotPaths}, {keyDestinationPort, o.Ports, o.NotPorts},
	}
}

func (s AccessSource) tests() []accessTest {
	return []accessTest{
		{keySourcePrincipal, s.Principals, s.NotPrincipals},
		{keyRequestPrincipal, s.RequestPrincipals, s.NotRequestPrincipals},
		{keySourceAccount, s.ServiceAccounts, s.NotServiceAccounts},
		{keySourceNamespace, s.Namespaces, s.NotNamespaces},
		{keyRemoteIP, s.RemoteIPBlocks, s.NotRemoteIPBlocks},
		{keySourceIP, s.IPBlocks, s.NotIPBlocks},
	}
}

// ofCall says that a condition is a permission in RBAC's words: about what is
// called. All others are principals: about who calls.
func (c AccessCondition) ofCall() bool {
	return c.Key == keyDestinationIP || c.Key == keyDestinationPort || c.Key == keySNI
}

// conditions are those of the one kind.
func (r AccessRule) conditions(ofCall bool) (tests []accessTest) {
	for _, c := range r.When {
		if c.ofCall() == ofCall {
			tests = append(tests, accessTest{c.Key, c.Values, c.NotValues})
		}
	}
	return tests
}

// permissions lists what a call has to be, each a choice.
func (r AccessRule) permissions() (choices [][]accessTest) {
	for _, to := range r.To {
		choices = append(choices, append(to.tests(), r.conditions(true)...))
	}
	if len(r.To) == 0 {
		choices = append(choices, r.conditions(true))
	}
	return choices
}

// principals lists who a caller has to be, each a choice.
func (r AccessRule) principals() (choices [][]accessTest) {
	for _, from := range r.From {
		choices = append(choices, append(from.tests(), r.conditions(false)...))
	}
	if len(r.From) == 0 {
		choices = append(choices, r.conditions(false))
	}
	return choices
}

package meshtest

import (
	"cmp"

	"google.golang.org/protobuf/encoding/protowire"
)

// Marshal encodes the message.
func (c RouteConfiguration) Marshal() []byte {
	b := appendString(nil, 1, c.Name)
	for _, h := range c.VirtualHosts {
		b = appendMessage(b, 2, h.marshal(c.Sidecar))
	}
	if c.Sidecar {
		b = appendSidecarRoutes(b)
	}
	return append(b, c.Raw...)
}

// appendSidecarRoutes writes what istiod says in every RouteConfiguration of a
// sidecar.
func appendSidecarRoutes(b []byte) []byte {
	b = appendWrapped(b, 7, 0) // validate_clusters
	b = appendWrapped(b, 11, 1<<20)
	return appendBool(b, 14, true) // ignore_port_in_host_matching
}

func (h VirtualHost) marshal(sidecar bool) []byte {
	b := appendString(nil, 1, h.Name)
	b = appendStrings(b, 2, h.Domains)
	for _, r := range h.Routes {
		b = appendMessage(b, 3, r.marshal(sidecar))
	}
	b = h.RequestHeaders.append(b, 7, 13)
	b = h.ResponseHeaders.append(b, 10, 11)
	b = appendBool(b, 14, h.AttemptCount)
	b = appendPerFilter(b, 15, h.Fault, h.Filters)
	if h.Retry != nil {
		b = appendMessage(b, 16, h.Retry.marshal())
	}
	return append(b, h.Raw...)
}

func (r Route) marshal(sidecar bool) []byte {
	b := appendMessage(nil, 1, r.match())
	switch {
	case r.NonForwarding:
		b = appendMessage(b, 18, nil)
	case r.Redirect != "" || r.RedirectPath != "":
		b = appendMessage(b, 3, r.redirect())
	case r.DirectResponse != 0:
		b = appendMessage(b, 7, r.response())
	default:
		b = appendMessage(b, 2, r.action(sidecar))
	}
	if r.Decorator != "" {
		b = appendMessage(b, 5, appendString(nil, 1, r.Decorator))
	}
	b = r.RequestHeaders.append(b, 9, 12)
	b = r.ResponseHeaders.append(b, 10, 11)
	b = appendPerFilter(b, 13, r.Fault, r.Filters)
	return append(appendString(b, 14, r.Name), r.Raw...)
}

func (r Route) redirect() []byte {
	b := appendString(appendString(nil, 1, r.Redirect), 2, r.RedirectPath)
	return appendVarint(b, 3, map[uint32]uint64{302: 1, 303: 2, 307: 3, 308: 4}[r.RedirectCode])
}

func (r Route) response() []byte {
	b := appendVarint(nil, 1, uint64(r.DirectResponse))
	if r.DirectBody != "" {
		b = appendMessage(b, 2, appendString(nil, 3, r.DirectBody))
	}
	return b
}

// action is the RouteAction.
func (r Route) action(sidecar bool) []byte {
	b := r.target()
	b = appendString(b, 5, r.PrefixRewrite)
	b = r.appendTimeout(b, sidecar)
	if r.Retry != nil {
		b = appendMessage(b, 9, r.Retry.marshal())
	}
	for _, h := range r.Hash {
		b = appendMessage(b, 15, h.marshal())
	}
	switch {
	case r.HostRewrite != "":
		b = appendString(b, 6, r.HostRewrite)
	case r.HostRewriteHeader != "":
		b = appendString(b, 29, r.HostRewriteHeader)
	case r.AutoHostRewrite:
		b = appendWrapped(b, 7, 1)
	}
	if r.Hedge {
		b = appendMessage(b, 27, appendBool(nil, 3, true))
	}
	for _, m := range r.Mirrors {
		b = appendMessage(b, 30, m.marshal())
	}
	if r.RegexRewrite != nil {
		b = appendMessage(b, 32, r.RegexRewrite.marshal())
	}
	return append(b, r.RawAction...)
}

func (r Route) target() []byte {
	switch {
	case r.ClusterHeader != "":
		return appendString(nil, 2, r.ClusterHeader)
	case len(r.Clusters) == 1 && r.Clusters[0].Weight == 0:
		return appendMember(nil, 1, r.Clusters[0].Name)
	case len(r.Clusters) == 0:
		return nil
	}
	var list []byte
	for _, c := range r.Clusters {
		list = appendMessage(list, 1, c.marshal())
	}
	return appendMessage(nil, 3, list)
}

func (c WeightedCluster) marshal() []byte {
	b := appendString(nil, 1, c.Name)
	b = appendWrapped(b, 2, uint64(c.Weight))
	b = c.RequestHeaders.append(b, 4, 9)
	b = c.ResponseHeaders.append(b, 5, 6)
	b = appendPerFilter(b, 10, nil, c.Filters)
	return appendString(b, 11, c.HostRewrite)
}

func (r Route) appendTimeout(b []byte, sidecar bool) []byte {
	limit := max(r.Timeout, 0)
	b = appendDuration(b, 8, limit)
	if sidecar || r.Timeout == 0 {
		return appendDuration(b, 23, limit)
	}
	return appendMessage(b, 36, appendDuration(nil, 1, limit))
}

func (m Mirror) marshal() []byte {
	b := appendString(nil, 1, m.Cluster)
	if m.Share != nil {
		b = appendMessage(b, 3, runtimeShare(*m.Share))
	}
	b = appendWrapped(b, 4, 0)
	return appendBool(b, 6, true)
}

func (h HashPolicy) marshal() []byte {
	var b []byte
	switch {
	case h.Header != "":
		header := appendString(nil, 1, h.Header)
		if h.HeaderRegex != nil {
			header = appendMessage(header, 2, h.HeaderRegex.marshal())
		}
		b = appendMessage(b, 1, header)
	case h.Cookie != "":
		cookie := appendString(nil, 1, h.Cookie)
		if h.CookieTTL != nil {
			cookie = appendDuration(cookie, 2, *h.CookieTTL)
		}
		b = appendMessage(b, 2, appendString(cookie, 3, h.CookiePath))
	case h.SourceIP:
		b = appendMessage(b, 3, appendBool(nil, 1, true))
	case h.Query != "":
		b = appendMessage(b, 5, appendString(nil, 1, h.Query))
	case h.FilterState != "":
		b = appendMessage(b, 6, appendString(nil, 1, h.FilterState))
	}
	return appendBool(b, 4, h.Terminal)
}

func (w Rewrite) marshal() []byte {
	b := appendMessage(nil, 1, appendString(nil, 2, w.Pattern))
	return appendString(b, 2, w.Substitution)
}

// append writes HeaderValueOptions and names to remove.
func (m HeaderMutation) append(b []byte, add, remove protowire.Number) []byte {
	const overwrite = 2 // OVERWRITE_IF_EXISTS_OR_ADD
	for _, h := range m.Set {
		b = appendMessage(b, add, appendVarint(h.option(), 3, overwrite))
	}
	for _, h := range m.Add {
		b = appendMessage(b, add, h.option())
	}
	return appendStrings(b, remove, m.Remove)
}

func (h Header) option() []byte {
	return appendMessage(nil, 1, appendString(appendString(nil, 1, h.Name), 2, h.Value))
}

// appendPerFilter writes entries of typed_per_filter_config.
func appendPerFilter(b []byte, num protowire.Number, fault *Fault, filters []HTTPFilter) []byte {
	if fault != nil {
		f := FaultFilter()
		f.Config = fault.marshal()
		filters = append([]HTTPFilter{f}, filters...)
	}
	for _, f := range filters {
		b = appendMessage(b, num, appendAny(appendString(nil, 1, f.Name), 2, f.TypeURL, f.Config))
	}
	return b
}

func (f Fault) marshal() []byte {
	var b []byte
	if f.Delay != 0 || f.ByHeader {
		var delay []byte
		if f.Delay != 0 {
			delay = appendDuration(nil, 3, f.Delay)
		} else {
			delay = appendMessage(nil, 5, nil)
		}
		b = appendMessage(b, 1, appendMessage(delay, 4, share(f.DelayShare)))
	}
	var abort []byte
	switch {
	case f.AbortHTTP != 0:
		abort = appendVarint(nil, 2, uint64(f.AbortHTTP))
	case f.AbortGRPC != 0:
		abort = appendVarint(nil, 5, uint64(f.AbortGRPC))
	case f.ByHeader:
		abort = appendMessage(nil, 4, nil)
	}
	if abort != nil {
		b = appendMessage(b, 2, appendMessage(abort, 3, share(f.AbortShare)))
	}
	return append(b, f.Raw...)
}

func (p RetryPolicy) marshal() []byte {
	b := appendString(nil, 1, p.On)
	b = appendLimit(b, 2, p.Retries, 0)
	b = appendGiven(b, 3, p.PerTryTimeout)
	if p.PreviousPriorities {
		b = appendExtension(b, 4, 3, "envoy.retry_priorities.previous_priorities",
			typePrefix+"envoy.extensions.retry.priority.previous_priorities.v3.PreviousPrioritiesConfig",
			appendVarint(nil, 1, 2))
	}
	draws := p.HostDraws
	if p.PreviousHosts {
		b = appendExtension(b, 5, 3, "envoy.retry_host_predicates.previous_hosts",
			typePrefix+"envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate", nil)
		draws = cmp.Or(draws, 5)
	}
	b = appendVarint(b, 6, uint64(draws))
	if len(p.Codes) > 0 {
		var codes []byte
		for _, c := range p.Codes {
			codes = protowire.AppendVarint(codes, uint64(c))
		}
		b = appendMessage(b, 7, codes)
	}
	if p.Backoff != 0 {
		b = appendMessage(b, 8, appendGiven(appendDuration(nil, 1, p.Backoff), 2, p.MaxBackoff))
	}
	return append(b, p.Raw...)
}

package proxyless

import (
	"context"
	"maps"
	"strconv"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
)

// previousAttempts tells a provider how often the call was sent before (gRFC A6).
const previousAttempts = "grpc-previous-rpc-attempts"

// apply changes headers as the mesh asks: first what is removed, then what is
// set, in order. md is the call's own; its values may be shared and are
// replaced, never written.
func (m *headerMutations) apply(md metadata.MD) {
	for _, name := range m.remove {
		if !untouchable(name) {
			delete(md, name)
		}
	}
	for i := range m.change {
		c := &m.change[i]
		if untouchable(c.name) {
			continue
		}
		old, has := md[c.name]
		switch c.action {
		case headerAppend:
			md[c.name] = append(old[:len(old):len(old)], c.value)
		case headerAddIfAbsent:
			if !has {
				md[c.name] = []string{c.value}
			}
		case headerRemove:
			delete(md, c.name)
		case headerOverwrite:
			md[c.name] = []string{c.value}
		case headerOverwriteIfExists:
			if has {
				md[c.name] = []string{c.value}
			}
		}
	}
}

// untouchable says that a header belongs to the protocol: a mesh that changed
// it would break calls. The authority has a way of its own.
func untouchable(name string) bool {
	switch name {
	case "te", "content-type", "content-length", "connection", "transfer-encoding", "upgrade", "user-agent", "host":
		return true
	}
	return strings.HasPrefix(name, ":") || strings.HasPrefix(name, "grpc-")
}

// outgoing is the context of an attempt: with Triple's headers, what the mesh
// makes of them and of the call's own, and how often the call was sent before.
func (p *routePolicy) outgoing(ctx context.Context, a *attempt, repeats int) context.Context {
	if repeats == 0 && p.headers.request.empty() {
		return a.plan.outgoing(ctx)
	}
	md, has := metadata.FromOutgoingContext(ctx)
	if !has {
		md = make(metadata.MD, len(a.plan.headers)+1)
	}
	maps.Copy(md, a.plan.headers)
	p.headers.request.apply(md)
	if repeats > 0 {
		md[previousAttempts] = []string{strconv.Itoa(repeats)}
	}
	return metadata.NewOutgoingContext(ctx, md)
}

// authority is what the mesh rewrites the authority to; empty where it does
// not. A literal is a route's or a mutation of the header "host".
func (p *routePolicy) authority(ctx context.Context, method string, a *attempt) string {
	r := &p.rewrite
	switch {
	case r.literal != "":
		return r.literal
	case r.header != "":
		h := a.plan.callHeaders(ctx, method)
		value, _ := h.get(r.header)
		return value
	case r.path != nil:
		return r.path.ReplaceAllString(method, r.substitute)
	case r.auto:
		if x := a.set.endpoints[a.at].extra; x != nil {
			return x.hostname
		}
	}
	for i := range p.headers.request.change {
		if c := &p.headers.request.change[i]; (c.name == "host" || c.name == ":authority") && c.action != headerRemove {
			return c.value
		}
	}
	return ""
}

// answered changes the response headers that the caller asked for, and adds
// what is told beside. A response without headers of its own has them in its
// trailers.
func (p *routePolicy) answered(opts []grpc.CallOption, told metadata.MD) {
	m := &p.headers.response
	if m.empty() && told == nil {
		return
	}
	var header, trailer *metadata.MD
	for _, o := range opts {
		switch o := o.(type) {
		case grpc.HeaderCallOption:
			header = o.HeaderAddr
		case grpc.TrailerCallOption:
			trailer = o.TrailerAddr
		}
	}
	switch {
	case header != nil && (*header != nil || trailer == nil):
		*header = m.amend(*header, told)
	case trailer != nil && (*trailer)["content-type"] != nil:
		*trailer = m.amend(*trailer, told)
	}
}

// amend is what the caller sees of response headers.
func (m *headerMutations) amend(md, told metadata.MD) metadata.MD {
	if md == nil {
		if told == nil {
			return nil
		}
		md = metadata.MD{}
	}
	m.apply(md)
	for name, values := range told {
		md[name] = append(md[name], values...)
	}
	return md
}

package proxyless

import (
	"errors"
	"fmt"
	"strings"

	"google.golang.org/grpc/codes"
)

const (
	typeFilterConfig   = "envoy.config.route.v3.FilterConfig"
	typeSessionOfRoute = "envoy.extensions.filters.http.stateful_session.v3.StatefulSessionPerRoute"
	typeCookieSession  = "envoy.extensions.http.stateful_session.cookie.v3.CookieBasedSessionState"
	typeHeaderSession  = "envoy.extensions.http.stateful_session.header.v3.HeaderBasedSessionState"
)

// overrides are what one level says about filters in typed_per_filter_config.
// Nil says nothing; a policy that does nothing switches the filter off.
type overrides struct {
	fault   *faultPolicy
	session *sessionPolicy
}

// orElse fills in what this level does not say from the level above.
func (o *overrides) orElse(above *overrides) {
	if o.fault == nil {
		o.fault = above.fault
	}
	if o.session == nil {
		o.session = above.session
	}
}

// filterOverride reads an entry of typed_per_filter_config. The kind of filter
// is told by the type of the configuration; the name only serves the report.
func (d *decoding) filterOverride(entry []byte, to *overrides) error {
	name := ""
	var packed []byte
	c := walk(entry)
	for c.next() {
		switch c.num {
		case 1:
			name = c.text("key")
		case 2:
			c.message("value", &packed)
		}
	}
	x, err := decodeExtension(packed)
	c.fail(err)
	disabled := false
	if c.err == nil && x.name == typeFilterConfig && !x.json {
		x, disabled, err = decodeFilterConfig(x.value)
		c.fail(err)
	}
	if c.err == nil {
		c.fail(d.applyOverride(name, x, disabled, to))
	}
	return inField(perFilter+"["+name+"]", c.err)
}

// decodeFilterConfig reads an envoy.config.route.v3.FilterConfig. is_optional
// changes nothing: a filter that is not known is noted either way.
func decodeFilterConfig(b []byte) (x extension, disabled bool, err error) {
	var packed []byte
	c := walk(b)
	for c.next() {
		switch c.num {
		case 1:
			c.message("config", &packed)
		case 3:
			disabled = c.scalar("disabled") != 0
		}
	}
	if c.err == nil {
		x, err = decodeExtension(packed)
		c.fail(inField("config", err))
	}
	return x, disabled, c.err
}

// applyOverride takes what a level says about one filter.
func (d *decoding) applyOverride(name string, x extension, disabled bool, to *overrides) (err error) {
	fault := x.name == typeFault || disabled && x.name == "" && strings.Contains(name, "fault")
	session := x.name == typeSessionOfRoute || disabled && x.name == "" && strings.Contains(name, "stateful_session")
	f := listenerFilter{config: x}
	switch {
	case disabled && fault:
		to.fault = &faultPolicy{}
	case disabled && session:
		to.session = &sessionPolicy{}
	case disabled, f.harmless(), strings.HasPrefix(x.name, "envoy.extensions.filters.http.cors."):
	case x.json:
		d.ignore(perFilter + "[" + name + "]")
	case fault:
		to.fault, err = d.fault(x.value)
	case session:
		var p *sessionPolicy
		if p, err = d.sessionOfRoute(x.value); p != nil {
			to.session = p
		}
	default:
		d.ignore(perFilter + "[" + name + "]")
	}
	return err
}

// fault reads an envoy.extensions.filters.http.fault.v3.HTTPFault.
func (d *decoding) fault(b []byte) (*faultPolicy, error) {
	p := &faultPolicy{}
	var delay, abort, most []byte
	c := walk(b)
	for c.next() {
		switch c.num {
		case 1:
			c.message("delay", &delay)
		case 2:
			c.message("abort", &abort)
		case 3:
			p.upstream = d.intern(c.raw("upstream_cluster"))
		case 4:
			d.keep(&c, "headers")
			c.fail(inField("headers", d.appendHeaderMatch(c.bytes("headers"), &p.headers)))
		case 5:
			d.keep(&c, "downstream_nodes")
			p.nodes = append(p.nodes, d.intern(c.raw("downstream_nodes")))
		case 6:
			c.message("max_active_faults", &most)
		case 7:
			d.ignore("response_rate_limit")
		}
	}
	n, err := decodeWrapped(most)
	c.fail(inField("max_active_faults", err))
	p.maxActive, p.limited = uint32(n), most != nil
	if c.err == nil && delay != nil {
		c.fail(inField("delay", p.setDelay(delay)))
	}
	if c.err == nil && abort != nil {
		c.fail(inField("abort", p.setAbort(abort)))
	}
	return p, c.err
}

// setDelay reads an envoy.extensions.filters.common.fault.v3.FaultDelay.
func (p *faultPolicy) setDelay(b []byte) (err error) {
	var specifier oneof
	var share []byte
	c := walk(b)
	for c.next() {
		switch c.num {
		case 3, 5:
			specifier.message(&c, "fault_delay_secifier")
		case 4:
			c.message("percentage", &share)
		}
	}
	if c.err != nil {
		return c.err
	}
	if p.delayShare, p.delayUnit, err = decodeShare(share); err != nil {
		return inField("percentage", err)
	}
	switch specifier.num {
	case 3:
		p.delay, err = decodeDuration(specifier.val)
		return inField("fixed_delay", err)
	case 5:
		p.headerDelay = true
		return nil
	}
	return errors.New("neither fixed_delay nor header_delay")
}

// setAbort reads an envoy.extensions.filters.http.fault.v3.FaultAbort.
func (p *faultPolicy) setAbort(b []byte) (err error) {
	var specifier oneof
	var share []byte
	c := walk(b)
	for c.next() {
		switch c.num {
		case 2:
			specifier.scalar(&c, "http_status")
		case 3:
			c.message("percentage", &share)
		case 4:
			specifier.message(&c, "header_abort")
		case 5:
			specifier.scalar(&c, "grpc_status")
		}
	}
	if c.err != nil {
		return c.err
	}
	if p.abortShare, p.abortUnit, err = decodeShare(share); err != nil {
		return inField("percentage", err)
	}
	switch specifier.num {
	case 2:
		if specifier.u < 200 || specifier.u >= 600 {
			return inField("http_status", fmt.Errorf("%d is not one of 200 to 599", specifier.u))
		}
		p.hasAbort, p.abort = true, codeOfHTTP(uint32(specifier.u))
	case 4:
		p.headerAbort = true
	case 5:
		p.hasAbort, p.abort = true, knownCode(specifier.u)
	default:
		return errors.New("neither http_status, nor grpc_status, nor header_abort")
	}
	return nil
}

// knownCode is the gRPC status of a number.
func knownCode(n uint64) codes.Code {
	if n > uint64(codes.Unauthenticated) {
		return codes.Unknown
	}
	return codes.Code(n)
}

// sessionOfRoute reads a StatefulSessionPerRoute.
func (d *decoding) sessionOfRoute(b []byte) (*sessionPolicy, error) {
	var override oneof
	c := walk(b)
	for c.next() {
		switch c.num {
		case 1:
			override.scalar(&c, "disabled")
		case 2:
			override.message(&c, "stateful_session")
		}
	}
	if c.err != nil || override.num == 0 || override.num == 1 && override.u == 0 {
		return nil, c.err
	}
	p, err := d.session(override.val)
	return p, inField("stateful_session", err)
}

// session reads an envoy.extensions.filters.http.stateful_session.v3.StatefulSession.
func (d *decoding) session(b []byte) (*sessionPolicy, error) {
	p := &sessionPolicy{}
	var state []byte
	c := walk(b)
	for c.next() {
		switch c.num {
		case 1:
			c.message("session_state", &state)
		case 2:
			p.strict = c.scalar("strict") != 0
		case 4:
			if c.scalar("status_on_strict_destination_not_found") != 503 {
				d.ignore("status_on_strict_destination_not_found")
			}
		}
	}
	if c.err == nil && state != nil {
		c.fail(inField("session_state", d.sessionState(state, p)))
	}
	return p, c.err
}

// sessionState reads how a session is remembered, which is all that can be
// left out: then there is no affinity.
func (d *decoding) sessionState(b []byte, p *sessionPolicy) error {
	packed, err := submessage(b, 2, "typed_config")
	if err != nil {
		return err
	}
	x, err := decodeExtension(packed)
	switch {
	case err != nil:
	case x.json:
		d.ignore("session_state (" + x.name + " as a TypedStruct)")
	case x.name == typeCookieSession:
		var cookie []byte
		if cookie, err = submessage(x.value, 1, "cookie"); err == nil {
			err = inField("cookie", d.sessionCookie(cookie, p))
		}
	case x.name == typeHeaderSession:
		var name string
		name, err = subtext(x.value, 1, "name")
		if p.header = headerName(name); err == nil && p.header == "" {
			err = missingField("name")
		}
	default:
		d.ignore("session_state (" + x.name + ")")
	}
	return inField("typed_config", err)
}

// sessionCookie reads an envoy.type.http.v3.Cookie. Its attributes are for browsers.
func (d *decoding) sessionCookie(b []byte, p *sessionPolicy) error {
	var ttl []byte
	c := walk(b)
	for c.next() {
		switch c.num {
		case 1:
			p.cookie = d.intern(c.raw("name"))
		case 2:
			c.message("ttl", &ttl)
		case 3:
			p.path = d.intern(c.raw("path"))
		}
	}
	if c.err == nil && p.cookie == "" {
		return missingField("name")
	}
	var err error
	p.ttl, err = decodeDuration(ttl)
	c.fail(inField("ttl", err))
	return c.err
}

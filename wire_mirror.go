package proxyless

// mirrorPolicy appends a RouteAction.RequestMirrorPolicy, unless it mirrors no call.
func (d *decoding) mirrorPolicy(b []byte, to *[]mirrorPolicy) error {
	m := mirrorPolicy{share: fractionScale}
	var fraction []byte
	c := walk(b)
	for c.next() {
		switch c.num {
		case 1:
			m.cluster = d.intern(c.raw("cluster"))
		case 3:
			c.message("runtime_fraction", &fraction)
		case 5:
			m.header = headerName(d.intern(c.raw("cluster_header")))
		case 6:
			m.keepsName = c.scalar("disable_shadow_host_suffix_append") != 0
		case 7:
			d.ignore("request_mirror_policies.request_headers_mutations")
		case 8:
			d.ignore("request_mirror_policies.host_rewrite_literal")
		}
	}
	if fraction != nil {
		value, err := submessage(fraction, 1, "default_value")
		c.fail(err)
		m.share, err = decodeFraction(value)
		c.fail(inField("runtime_fraction.default_value", err))
	}
	if c.err == nil && m.cluster == "" && m.header == "" {
		return missingField("cluster")
	}
	if m.cluster != "" {
		m.header = ""
	}
	if m.share > 0 {
		*to = append(*to, m)
	}
	return c.err
}

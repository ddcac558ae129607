package proxyless

// hashPolicy appends a RouteAction.HashPolicy. One that never gives a hash is
// left out.
func (d *decoding) hashPolicy(b []byte, to *[]hashPolicy) error {
	var specifier oneof
	var h hashPolicy
	c := walk(b)
	for c.next() {
		switch c.num {
		case 1, 2, 3, 5, 6:
			specifier.message(&c, "policy_specifier")
		case 4:
			h.terminal = c.scalar("terminal") != 0
		default:
			d.ignore("hash_policy." + unapplied(nil).name(c.num))
		}
	}
	if c.err != nil {
		return c.err
	}
	use, err := d.hashSpecifier(specifier, &h)
	if use && err == nil {
		*to = append(*to, h)
	}
	return err
}

func (d *decoding) hashSpecifier(s oneof, h *hashPolicy) (use bool, err error) {
	switch s.num {
	case 1:
		return true, inField("header", d.hashHeader(s.val, h))
	case 2:
		return true, inField("cookie", d.hashCookie(s.val, h))
	case 3:
		h.kind = hashSource
		source, err := decodeWrapped(s.val) // source_ip is field 1, as the value of a wrapper is
		return source != 0, inField("connection_properties", err)
	case 5:
		h.kind = hashQuery
		h.name, err = subtext(s.val, 1, "name")
		return true, inField("query_parameter", err)
	case 6:
		h.kind = hashChannelID
		key, err := subtext(s.val, 1, "key")
		if key != "io.grpc.channel_id" {
			d.ignore("hash_policy.filter_state[" + key + "]")
			return false, inField("filter_state", err)
		}
		return true, inField("filter_state", err)
	}
	d.ignore("hash_policy of an unknown kind")
	return false, nil
}

// hashHeader reads a HashPolicy.Header.
func (d *decoding) hashHeader(b []byte, h *hashPolicy) error {
	var rewrite []byte
	c := walk(b)
	for c.next() {
		switch c.num {
		case 1:
			h.name = headerName(d.intern(c.raw("header_name")))
		case 2:
			c.message("regex_rewrite", &rewrite)
		}
	}
	if c.err == nil && rewrite != nil {
		var err error
		h.rewrite, h.substitute, err = decodeSubstitution(rewrite)
		c.fail(inField("regex_rewrite", err))
	}
	if c.err == nil && h.name == "" {
		return missingField("header_name")
	}
	return c.err
}

// hashCookie reads a HashPolicy.Cookie. Its attributes are for browsers.
func (d *decoding) hashCookie(b []byte, h *hashPolicy) error {
	h.kind = hashCookie
	var ttl []byte
	c := walk(b)
	for c.next() {
		switch c.num {
		case 1:
			h.name = d.intern(c.raw("name"))
		case 2:
			c.message("ttl", &ttl)
		case 3:
			h.path = d.intern(c.raw("path"))
		}
	}
	if c.err == nil && h.name == "" {
		return missingField("name")
	}
	var err error
	h.hasTTL = ttl != nil
	h.ttl, err = decodeDuration(ttl)
	c.fail(inField("ttl", err))
	return c.err
}

package proxyless

import (
	"errors"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
)

// headerLevel is the header mutations of one level: weighted cluster, route,
// virtual host or route configuration.
type headerLevel struct {
	request, response levelMutations
}

type levelMutations struct {
	remove    []string
	overwrite []headerChange // before add
	add       []headerChange
}

func (m *levelMutations) empty() bool {
	return len(m.remove) == 0 && len(m.overwrite) == 0 && len(m.add) == 0
}

func (l *headerLevel) empty() bool { return l.request.empty() && l.response.empty() }

// settleHeaders puts the mutations of all levels in the order in which Envoy
// applies them: the most specific level first, unless it is to win, then last.
// At each level headers are removed first.
func settleHeaders(levels []*headerLevel, specificWins bool) headerPolicy {
	var p headerPolicy
	for i := range levels {
		if specificWins {
			i = len(levels) - 1 - i
		}
		p.request.append(&levels[i].request)
		p.response.append(&levels[i].response)
	}
	return p
}

// append applies a level after what is there. What it removes has to go even
// if an earlier level has set it.
func (m *headerMutations) append(level *levelMutations) {
	for _, name := range level.remove {
		if slices.ContainsFunc(m.change, func(c headerChange) bool { return c.name == name }) {
			m.change = append(m.change, headerChange{name: name, action: headerRemove})
		} else if !slices.Contains(m.remove, name) {
			m.remove = append(m.remove, name)
		}
	}
	m.change = append(append(m.change, level.overwrite...), level.add...)
}

// removeHeader reads an element of request_headers_to_remove or
// response_headers_to_remove.
func (d *decoding) removeHeader(c *cursor, field string, m *levelMutations) {
	d.keep(c, field)
	name := strings.ToLower(d.intern(c.raw(field)))
	if unchangeable(name) {
		d.ignore(field + " (" + name + ")")
		return
	}
	m.remove = append(m.remove, name)
}

// unchangeable says that a header is not a call's to change: Envoy refuses it, too.
func unchangeable(name string) bool {
	return name == "" || name[0] == ':' || name == "host"
}

// addHeader reads an envoy.config.core.v3.HeaderValueOption.
func (d *decoding) addHeader(c *cursor, field string, m *levelMutations) {
	d.keep(c, field)
	var header, legacy []byte
	var action uint64
	keepEmpty := false
	o := walk(c.bytes(field))
	for o.next() {
		switch o.num {
		case 1:
			o.message("header", &header)
		case 2:
			o.message("append", &legacy)
		case 3:
			action = o.scalar("append_action")
		case 4:
			keepEmpty = o.scalar("keep_empty_value") != 0
		}
	}
	name, value, err := d.headerValue(header)
	o.fail(inField("header", err))
	if legacy != nil {
		appends, err := decodeWrapped(legacy)
		o.fail(inField("append", err))
		if action = uint64(headerAppend); appends == 0 {
			action = uint64(headerOverwrite)
		}
	}
	if o.err != nil {
		c.fail(inField(field, o.err))
		return
	}
	formatted, ok := formatConstant(value)
	if unchangeable(name) || action > uint64(headerOverwriteIfExists) || !ok {
		d.ignore(field + " (" + name + ": " + value + ")")
		return
	}
	if formatted == "" && !keepEmpty {
		return // Envoy leaves it alone, too
	}
	change := headerChange{name: name, value: formatted, action: headerAction(action)}
	if change.action == headerOverwrite || change.action == headerOverwriteIfExists {
		m.overwrite = append(m.overwrite, change)
	} else {
		m.add = append(m.add, change)
	}
}

// headerValue reads an envoy.config.core.v3.HeaderValue.
func (d *decoding) headerValue(b []byte) (name, value string, err error) {
	c := walk(b)
	for c.next() {
		switch c.num {
		case 1:
			name = strings.ToLower(d.intern(c.raw("key")))
		case 2:
			value = d.intern(c.raw("value"))
		case 3:
			value = d.intern(c.bytes("raw_value"))
		}
	}
	if c.err == nil && name == "" {
		return "", "", missingField("key")
	}
	return name, value, c.err
}

// formatConstant resolves Envoy's substitution commands in a value where they
// are the same for every call: %%, %HOSTNAME%, %ENVIRONMENT(X)%, %PROTOCOL%.
// ok is false where there is another one.
func formatConstant(value string) (resolved string, ok bool) {
	if strings.IndexByte(value, '%') < 0 {
		return value, true
	}
	var b strings.Builder
	for {
		at := strings.IndexByte(value, '%')
		if at < 0 {
			b.WriteString(value)
			return b.String(), true
		}
		b.WriteString(value[:at])
		command, rest, found := strings.Cut(value[at+1:], "%")
		if !found {
			return "", false
		}
		switch {
		case command == "":
			b.WriteByte('%')
		case command == "HOSTNAME":
			name, _ := os.Hostname()
			b.WriteString(name)
		case command == "PROTOCOL":
			b.WriteString("HTTP/2")
		case strings.HasPrefix(command, "ENVIRONMENT(") && strings.HasSuffix(command, ")"):
			b.WriteString(os.Getenv(command[len("ENVIRONMENT(") : len(command)-1]))
		default:
			return "", false
		}
		value = rest
	}
}

// authorityRewrite reads the member of RouteAction.host_rewrite_specifier.
func (d *decoding) authorityRewrite(s oneof, r *authorityRewrite) (err error) {
	switch s.num {
	case 6:
		r.literal = d.intern(s.val)
	case 7:
		value, err := decodeWrapped(s.val)
		r.auto = value != 0
		return inField("auto_host_rewrite", err)
	case 29:
		r.header = headerName(d.intern(s.val))
	case 35:
		r.path, r.substitute, err = decodeSubstitution(s.val)
		return inField("host_rewrite_path_regex", err)
	case 44:
		d.ignore("host_rewrite")
	}
	return nil
}

// decodeSubstitution reads an envoy.type.matcher.v3.RegexMatchAndSubstitute.
// The pattern is not anchored; the substitution comes in Go's form.
func decodeSubstitution(b []byte) (re *regexp.Regexp, substitute string, err error) {
	var matcher []byte
	var text, rewrite string
	c := walk(b)
	for c.next() {
		switch c.num {
		case 1:
			c.message("pattern", &matcher)
		case 2:
			rewrite = c.text("substitution")
		}
	}
	pattern := walk(matcher)
	for pattern.next() {
		if pattern.num == 2 {
			text = pattern.text("regex")
		}
	}
	c.fail(inField("pattern", pattern.err))
	if c.err != nil {
		return nil, "", c.err
	}
	if re, err = regexp.Compile(text); err != nil {
		return nil, "", inField("pattern.regex", err)
	}
	substitute, err = goSubstitution(rewrite, re.NumSubexp())
	return re, substitute, inField("substitution", err)
}

// goSubstitution turns RE2's \1 into Go's ${1}.
func goSubstitution(s string, groups int) (string, error) {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] == '$':
			b.WriteString("$$")
		case s[i] != '\\':
			b.WriteByte(s[i])
		case i+1 < len(s) && s[i+1] == '\\':
			b.WriteByte('\\')
			i++
		case i+1 < len(s) && s[i+1] >= '0' && s[i+1] <= '9':
			if i++; int(s[i]-'0') > groups {
				return "", fmt.Errorf("the pattern has no group %c", s[i])
			}
			fmt.Fprintf(&b, "${%c}", s[i])
		default:
			return "", errors.New(`\ is followed by neither a digit nor \`)
		}
	}
	return b.String(), nil
}

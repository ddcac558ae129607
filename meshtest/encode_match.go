package meshtest

import "google.golang.org/protobuf/encoding/protowire"

// match is the RouteMatch.
func (r Route) match() []byte {
	b := r.path()
	if r.IgnoreCase {
		b = appendWrapped(b, 4, 0)
	}
	for _, h := range r.Headers {
		b = appendMessage(b, 6, h.marshal())
	}
	for _, q := range r.Query {
		b = appendMessage(b, 7, q.marshal())
	}
	if r.Fraction != nil {
		b = appendMessage(b, 9, runtimeShare(*r.Fraction))
	}
	return append(b, r.RawMatch...)
}

func (r Route) path() []byte {
	switch {
	case r.Path != "":
		return appendMember(nil, 2, r.Path)
	case r.Regex != "":
		return appendMessage(nil, 10, appendString(nil, 2, r.Regex))
	case r.SeparatedPrefix != "":
		return appendMember(nil, 14, r.SeparatedPrefix)
	default:
		return appendMember(nil, 1, r.Prefix)
	}
}

// share is a FractionalPercent in parts per million.
func share(parts uint32) []byte {
	const million = 2
	return appendVarint(appendVarint(nil, 1, uint64(parts)), 2, million)
}

// runtimeShare is a RuntimeFractionalPercent.
func runtimeShare(parts uint32) []byte { return appendMessage(nil, 1, share(parts)) }

func (q QueryMatch) marshal() []byte {
	b := appendString(nil, 1, q.Name)
	if q.Kind == HeaderPresent {
		return appendPresentBool(b, 6, true)
	}
	return appendMessage(b, 5, textMatcher(q.Kind, q.Value))
}

// textMatcher is a StringMatcher.
func textMatcher(kind HeaderKind, value string) []byte {
	num := [...]protowire.Number{
		HeaderExact: 1, HeaderPrefix: 2, HeaderSuffix: 3, HeaderContains: 7, HeaderRegex: 5,
	}[kind]
	return appendPattern(nil, num, kind, value)
}

func (h HeaderMatch) marshal() []byte {
	b := appendString(nil, 1, h.Name)
	switch h.Kind {
	case HeaderPresent:
		b = appendPresentBool(b, 7, true)
	case HeaderAbsent:
		b = appendPresentBool(b, 7, false)
	case HeaderRange:
		span := appendVarint(nil, 1, uint64(h.Start))
		b = appendMessage(b, 6, appendVarint(span, 2, uint64(h.End)))
	default:
		b = h.appendText(b)
	}
	b = appendBool(b, 8, h.Invert)
	return appendBool(b, 14, h.MissingAsEmpty)
}

func (h HeaderMatch) appendText(b []byte) []byte {
	if h.Deprecated {
		num := [...]protowire.Number{
			HeaderExact: 4, HeaderPrefix: 9, HeaderSuffix: 10, HeaderContains: 12, HeaderRegex: 11,
		}[h.Kind]
		return appendPattern(b, num, h.Kind, h.Value)
	}
	return appendMessage(b, 13, appendBool(textMatcher(h.Kind, h.Value), 6, h.IgnoreCase))
}

// appendPattern writes text as a string, or as a RegexMatcher where it is one.
func appendPattern(b []byte, num protowire.Number, kind HeaderKind, text string) []byte {
	if kind == HeaderRegex {
		return appendMessage(b, num, appendString(nil, 2, text))
	}
	return appendMember(b, num, text)
}

package proxyless

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// property is one entry of a .properties file.
type property struct {
	line       int // where it starts, 1 for the first
	key, value string
}

// syntaxError says where a .properties file cannot be read.
type syntaxError struct {
	line   int
	reason string
}

func (e *syntaxError) Error() string { return fmt.Sprintf("line %d: %s", e.line, e.reason) }

// parseProperties reads the syntax of java.util.Properties: comments with # or
// !, keys ended by =, : or white space, a backslash that continues a line or
// escapes a character. The text is UTF-8, or ISO 8859-1 where it cannot be
// UTF-8. Every entry is returned in the order of the file, repeated keys too.
func parseProperties(data []byte) ([]property, error) {
	var found []property
	lines := logicalLines{rest: decodeText(data)}
	for {
		line, number, ok := lines.next()
		if !ok {
			return found, nil
		}
		rawKey, rawValue := splitProperty(line)
		key, err := unescape(rawKey)
		if err != nil {
			return nil, &syntaxError{number, err.Error()}
		}
		value, err := unescape(rawValue)
		if err != nil {
			return nil, &syntaxError{number, err.Error()}
		}
		found = append(found, property{number, key, value})
	}
}

func decodeText(data []byte) string {
	data = bytes.TrimPrefix(data, []byte("\uFEFF"))
	if utf8.Valid(data) {
		return string(data)
	}
	runes := make([]rune, len(data))
	for i, b := range data {
		runes[i] = rune(b)
	}
	return string(runes)
}

const propertySpace = " \t\f"

// logicalLines hands out the lines of a text with continuations joined, and
// leaves out blank lines and comments.
type logicalLines struct {
	rest   string
	number int // of the last natural line
}

func (l *logicalLines) next() (line string, number int, ok bool) {
	for l.rest != "" {
		natural := strings.TrimLeft(l.natural(), propertySpace)
		if natural == "" || natural[0] == '#' || natural[0] == '!' {
			continue
		}
		return l.continued(natural)
	}
	return "", 0, false
}

// continued appends the lines that follow a trailing backslash.
func (l *logicalLines) continued(natural string) (line string, number int, ok bool) {
	number = l.number
	var joined strings.Builder
	for oddBackslashes(natural) {
		joined.WriteString(natural[:len(natural)-1])
		natural = strings.TrimLeft(l.natural(), propertySpace)
	}
	joined.WriteString(natural)
	return joined.String(), number, true
}

// natural takes one line, ended by \n, \r, \r\n or the end of the text.
func (l *logicalLines) natural() string {
	l.number++
	end := strings.IndexAny(l.rest, "\r\n")
	if end < 0 {
		line := l.rest
		l.rest = ""
		return line
	}
	line, after := l.rest[:end], l.rest[end+1:]
	if l.rest[end] == '\r' {
		after = strings.TrimPrefix(after, "\n")
	}
	l.rest = after
	return line
}

func oddBackslashes(line string) bool {
	return (len(line)-len(strings.TrimRight(line, `\`)))%2 == 1
}

// splitProperty cuts a logical line at the first separator that is not
// escaped; both parts are still escaped.
func splitProperty(line string) (key, value string) {
	end := 0
	for end < len(line) && !strings.ContainsRune("=:"+propertySpace, rune(line[end])) {
		if line[end] == '\\' {
			end++
		}
		end++
	}
	end = min(end, len(line))
	key, value = line[:end], strings.TrimLeft(line[end:], propertySpace)
	if value != "" && (value[0] == '=' || value[0] == ':') {
		value = strings.TrimLeft(value[1:], propertySpace)
	}
	return key, value
}

// unescape resolves \t, \n, \r, \f, \uXXXX (pairs of surrogates too) and drops
// the backslash before anything else.
func unescape(s string) (string, error) {
	if !strings.Contains(s, `\`) {
		return s, nil
	}
	var out strings.Builder
	for {
		plain, escaped, found := strings.Cut(s, `\`)
		out.WriteString(plain)
		if !found || escaped == "" {
			return out.String(), nil
		}
		r, size, err := escapedRune(escaped)
		if err != nil {
			return "", err
		}
		out.WriteRune(r)
		s = escaped[size:]
	}
}

// escapedRune reads what follows a backslash and how many bytes that is.
func escapedRune(s string) (rune, int, error) {
	switch s[0] {
	case 't':
		return '\t', 1, nil
	case 'n':
		return '\n', 1, nil
	case 'r':
		return '\r', 1, nil
	case 'f':
		return '\f', 1, nil
	case 'u':
		return escapedUnicode(s)
	}
	r, size := utf8.DecodeRuneInString(s)
	return r, size, nil
}

const unicodeEscape = len("uXXXX")

func escapedUnicode(s string) (rune, int, error) {
	r, err := utf16Unit(s)
	if err != nil || !utf16.IsSurrogate(r) {
		return r, unicodeEscape, err
	}
	if after := s[unicodeEscape:]; strings.HasPrefix(after, `\u`) {
		if low, err := utf16Unit(after[1:]); err == nil && utf16.DecodeRune(r, low) != utf8.RuneError {
			return utf16.DecodeRune(r, low), unicodeEscape + 1 + unicodeEscape, nil
		}
	}
	return utf8.RuneError, unicodeEscape, nil
}

func utf16Unit(s string) (rune, error) {
	if len(s) >= unicodeEscape {
		if n, err := strconv.ParseUint(s[1:unicodeEscape], 16, 16); err == nil {
			return rune(n), nil
		}
	}
	return 0, fmt.Errorf(`\u is not followed by four hexadecimal digits`)
}

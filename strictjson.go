package proxyless

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"unicode/utf8"
)

// maxJSONDepth is how deep objects and lists of tokens and keys may nest.
const maxJSONDepth = 32

// parseJSONObject reads one JSON object from somebody who is not trusted yet.
// What two readers could understand in two ways is an error: names that occur
// twice, bytes that are no UTF-8, anything after the end. Numbers are float64,
// as in a protobuf Struct.
func parseJSONObject(data []byte) (map[string]any, error) {
	if !utf8.Valid(data) || !json.Valid(data) {
		return nil, errors.New("it is no JSON")
	}
	in := json.NewDecoder(bytes.NewReader(data))
	value, err := nextJSON(in, 0)
	if err != nil {
		return nil, err
	}
	object, ok := value.(map[string]any)
	if !ok {
		return nil, errors.New("it is no JSON object")
	}
	return object, nil
}

// nextJSON reads a value of a text that is known to be JSON.
func nextJSON(in *json.Decoder, depth int) (any, error) {
	token, err := in.Token()
	if err != nil {
		return nil, errors.New("a number of it is out of range") // the only thing left to be wrong
	}
	if depth++; depth > maxJSONDepth {
		return nil, fmt.Errorf("it nests deeper than %d", maxJSONDepth)
	}
	switch token {
	case json.Delim('{'):
		object := map[string]any{}
		for in.More() {
			name, _ := in.Token()
			text, _ := name.(string)
			if _, twice := object[text]; twice {
				return nil, errors.New("a name occurs twice in one object")
			}
			if object[text], err = nextJSON(in, depth); err != nil {
				return nil, err
			}
		}
		_, err = in.Token()
		return object, err
	case json.Delim('['):
		list := []any{}
		for in.More() {
			value, err := nextJSON(in, depth)
			if err != nil {
				return nil, err
			}
			list = append(list, value)
		}
		_, err = in.Token()
		return list, err
	}
	return token, nil
}

// textOf is a member of an object that has to be text where it is there.
func textOf(object map[string]any, name string) (text string, err error) {
	value, present := object[name]
	if !present {
		return "", nil
	}
	text, ok := value.(string)
	if !ok {
		return "", fmt.Errorf("%q is no text", name)
	}
	return text, nil
}

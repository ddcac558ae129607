package interop

import (
	"slices"
	"strings"
)

// headerRows: changes to the headers of requests and responses.
var headerRows = []row{
	changing("request-set", "set in the request, in place of what is there", "http.headers.request.set",
		"headers: {request: {set: {x-mesh: new}}}", requestHas("x-mesh", "new")),
	changing("request-add", "added to the request, beside what is there", "http.headers.request.add",
		"headers: {request: {add: {x-mesh: new}}}", requestHas("x-mesh", "old", "new")),
	changing("request-remove", "removed from the request", "http.headers.request.remove",
		"headers: {request: {remove: [x-mesh]}}", requestHas("x-mesh")),
	changing("response-set", "set in the response", "http.headers.response.set",
		"headers: {response: {set: {x-kept: new}}}", responseHas("x-kept", "new")),
	changing("response-add", "added to the response", "http.headers.response.add",
		"headers: {response: {add: {x-kept: new}}}", responseHas("x-kept", "backend", "new")),
	changing("response-remove", "removed from the response", "http.headers.response.remove",
		"headers: {response: {remove: [x-taken]}}", responseHas("x-taken")),
	{name: "destination-headers", about: "the same for one destination only", field: "http.route.headers",
		yaml: rule("") + virtual(`- route:
  - {destination: {host: HOST, subset: v1}, weight: 50, headers: {request: {set: {x-mesh: one}}, response: {set: {x-kept: one}}}}
  - {destination: {host: HOST, subset: v2}, weight: 50}`),
		check: func(s *scene) error {
			for range 40 {
				got, err := s.call(withHeader("x-mesh", "old"))
				if err != nil {
					return err
				}
				want := map[string][2]string{"v1": {"one", "one"}, "v2": {"old", "backend"}}[got.Host]
				if err := equal("x-mesh at "+got.Host, strings.Join(got.Headers["x-mesh"], ","), want[0]); err != nil {
					return err
				}
				if err := equal("x-kept from "+got.Host, strings.Join(got.header["x-kept"], ","), want[1]); err != nil {
					return err
				}
			}
			return nil
		}},
}

// changing is a row with a change of headers, in YAML, on its only route.
func changing(name, about, field, change string, look func(seen) error) row {
	return row{
		name: name, about: about, field: field,
		yaml:  virtual("- " + change + "\n  route: [{destination: {host: HOST}}]"),
		check: seeing(withHeader("x-mesh", "old"), look),
	}
}

func requestHas(key string, values ...string) func(seen) error {
	return func(got seen) error {
		if !slices.Equal(got.Headers[key], values) {
			return unseenf("the backend saw %s: %q, want %q", key, got.Headers[key], values)
		}
		return nil
	}
}

func responseHas(key string, values ...string) func(seen) error {
	return func(got seen) error {
		if !slices.Equal(got.header[key], values) {
			return unseenf("the caller saw %s: %q, want %q", key, got.header[key], values)
		}
		return nil
	}
}

func init() { inPart("VirtualService: headers", headerRows) }

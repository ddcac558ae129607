package interop

import (
	"strings"
	"testing"

	"github.com/proxyless/proxyless"
)

// view is how the library looks at the mesh in a test.
type view string

const (
	fullView view = "full_view"
	leanView view = "lean_view"
)

// views are those that tests run in.
var views = []view{leanView}

// set makes a member look at the mesh in this view.
func (v view) set(c *proxyless.Config) {}

// eachView runs a test in each view, one after the other.
func eachView(t *testing.T, test func(t *testing.T)) {
	for _, v := range views {
		t.Run(string(v), test)
	}
}

// viewOf is the view that a test is in, by its name; the default one for a test
// that runs once.
func viewOf(t testing.TB) view {
	for _, v := range views {
		if strings.Contains(t.Name(), "/"+string(v)) {
			return v
		}
	}
	return views[0]
}

package interop

import "github.com/proxyless/proxyless"

// view is how the library looks at the mesh in a test.
type view string

const (
	fullView view = "full view"
	leanView view = "lean view"
)

// views are those that tests run in.
var views = []view{leanView}

// set makes a member look at the mesh in this view.
func (v view) set(c *proxyless.Config) {}

// column is one of the conformance table.
type column string

const (
	fullColumn  = column(fullView)
	leanColumn  = column(leanView)
	rivalColumn = column("grpc-go xDS")
)

var columns = []column{leanColumn, rivalColumn}

func (c column) view() view { return view(c) }

package interop

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/proxyless/proxyless"
	"github.com/proxyless/proxyless/interop/lab"
)

// view is how the library looks at the mesh in a test.
type view string

const (
	fullView view = "full_view"
	leanView view = "lean_view"
)

// views are those that tests run in.
var views = []view{fullView, leanView}

// set makes a member look at the mesh in this view.
func (v view) set(c *proxyless.Config) {
	c.View = map[view]proxyless.View{fullView: proxyless.ViewFull, leanView: proxyless.ViewLean}[v]
}

// eachView runs a test in each view, one after the other: the second once istiod
// has forgotten the objects of the first.
func eachView(t *testing.T, test func(t *testing.T)) {
	for i, v := range views {
		if i > 0 {
			catchUp(t, suite.Lab(t))
		}
		t.Run(string(v), test)
	}
}

var lastMarker atomic.Int64

// catchUp waits until istiod knows of all Services and policies that were
// applied so far. In the full view, what it does not know is told at once.
func catchUp(t testing.TB, l *lab.Lab) {
	t.Helper()
	must(t, l.Namespace(soon(t), "markers"))
	name := fmt.Sprint("marker-", lastMarker.Add(1))
	withManifest(t, l, service("markers", name, name, grpcPort))
	host := name + ".markers.svc.cluster.local"
	must(t, lab.WaitFor(within(t, 45*time.Second), "istiod to catch up", func(context.Context) error {
		a := openADS(t, l.Istiod.Plain(), credential{}, leanNode(consumerIP, "marker", "markers")).ask(t, listenerType, host+":50052")
		if a == nil || a.err != nil || len(a.Resources) == 0 {
			return fmt.Errorf("it does not know %s", host)
		}
		return nil
	}))
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

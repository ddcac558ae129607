package interop

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/status"
)

const conformanceFile = "../docs/conformance.md"

// column is one of the table: the library in a view, or grpc-go.
type column string

const (
	fullColumn  = column(fullView)
	leanColumn  = column(leanView)
	rivalColumn = column("grpc-go_xDS")
)

// columns are those that are observed.
func columns() (all []column) {
	for _, v := range views {
		all = append(all, column(v))
	}
	return append(all, rivalColumn)
}

func (c column) view() view { return view(c) }

// cell is what was observed of a row in a column: nil is as the feature says.
type cell struct {
	err  error
	took time.Duration
}

func (got *cell) observe(w *world, r *row, c column) {
	defer func(began time.Time) { got.took = time.Since(began) }(time.Now())
	if r.istiod != nil && c != fullColumn {
		got.err = errors.New("not asked")
		return
	}
	if r.breaks {
		w.breaking.Lock()
		defer w.breaking.Unlock()
	}
	s, err := w.scene(r, c)
	if err != nil {
		got.err = err
		return
	}
	// A machine that is busy may spoil the first look of what should be there.
	for range 2 {
		if got.err = r.check(s); got.err == nil || r.single || r.reason(c) != "" {
			return
		}
	}
}

// reason says why a row is expected not to be observed in a column; "" where
// it is expected to be.
func (r *row) reason(c column) string {
	switch {
	case c == leanColumn && r.lean != "":
		return r.lean
	case c != rivalColumn && pending[r.name] != "":
		return "not yet: " + pending[r.name]
	case c == fullColumn:
		return r.full
	}
	return ""
}

// judge fails the test where the library does not do what the row says.
func (got *cell) judge(t *testing.T, r *row, c column) {
	t.Helper()
	reason := r.reason(c)
	t.Logf("%v took %v", c, got.took.Round(time.Millisecond))
	switch {
	case c == rivalColumn:
		if got.err != nil {
			t.Logf("%v: %v", c, got.err)
		}
	case got.err != nil && reason == "":
		t.Errorf("%v: %v", c, got.err)
	case got.err == nil && reason != "":
		t.Errorf("%v: it is observed, though the row says: %s", c, reason)
	case got.err != nil:
		t.Logf("%v: %v", c, got.err)
	}
}

// text is the cell in the table.
func (got *cell) text(r *row, c column) string {
	reason := r.reason(c)
	switch {
	case got == nil:
		return "not yet"
	case got.err == nil:
		return "yes"
	case r.istiod != nil && c != fullColumn:
		return r.lean
	case c != rivalColumn && reason != "":
		return reason
	case c != rivalColumn:
		return "FAILS"
	case isUnseen(got.err):
		return "ignored"
	case errors.As(got.err, new(unserved)):
		return "does not serve"
	}
	return fmt.Sprintf("calls fail: %v", status.Code(got.err))
}

func tableOf(t testing.TB, rows []*row, cells []map[column]*cell) string {
	t.Helper()
	var b strings.Builder
	fmt.Fprintf(&b, `# Conformance to Istio's traffic management and security

Each line is a test: the YAML is applied to a real istiod (%s), calls are made
through the public API, and what happens to them is observed. "yes" means that
it happens as Istio documents it. The full view is what a sidecar gets, the lean
view what Istio has for gRPC. Beside them is grpc-go's own xDS client (%s) on
the same YAML, in the lean view, observed by the same calls: "ignored" means
that calls go on as if the field were not there. In the lean view istiod leaves
out much of DestinationRule; nobody can obey what is not sent.

The tables about who is let in are of servers: a provider in each view, and
grpc-go's xDS server with its xDS credentials, on one pod with the label
`+"`security.istio.io/tlsMode: istio`"+`. Their callers know nothing of xDS. "ignored"
means that a call was let in that should not have been.

Written by

    cd interop && go test -run TestConformance -update-conformance .

and held to what is observed, when run without the switch.
`, istioVersion(t), moduleVersion(t, "google.golang.org/grpc"))
	part := ""
	for i, r := range rows {
		if r.part != part {
			part = r.part
			fmt.Fprintf(&b, "\n## %s\n\n| feature | field | proxyless, full view | proxyless, lean view | grpc-go xDS | remark |\n|---|---|---|---|---|---|\n", part)
		}
		field := r.field
		if field != "" {
			field = "`" + field + "`"
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s | %s | %s |\n", r.about, field,
			cells[i][fullColumn].text(r, fullColumn), cells[i][leanColumn].text(r, leanColumn), cells[i][rivalColumn].text(r, rivalColumn), r.remark)
	}
	return b.String()
}

// moduleVersion is the one in this module's go.mod.
func moduleVersion(t testing.TB, module string) string {
	t.Helper()
	_, rest, _ := strings.Cut(readFile(t, "go.mod"), module+" ")
	return strings.Fields(rest)[0]
}

// holdTable compares the table with the one that is published, or writes it.
func holdTable(t *testing.T, rows []*row, cells []map[column]*cell) {
	t.Helper()
	is := tableOf(t, rows, cells)
	if *updateConformance {
		write(t, conformanceFile, []byte(is))
		return
	}
	was, err := os.ReadFile(conformanceFile)
	if err != nil || string(was) != is {
		t.Errorf("%s is not what was observed (-update-conformance writes it)\n%s", conformanceFile, firstDifference(string(was), is))
	}
}

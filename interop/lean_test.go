package interop

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/proxyless/proxyless/interop/lab"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// TestLeanGaps shows what istiod does not tell a provider in the lean view, and
// that the provider says so: in its log as it starts, and on the page /ls. In
// the full view it says nothing of the kind.
func TestLeanGaps(t *testing.T) {
	eachView(t, func(t *testing.T) {
		g := newGuarded(t)
		lean := viewOf(t) == leanView
		const said = "not enforced"
		if strings.Contains(g.log.String(), said) != lean {
			t.Errorf("the provider's log:\n%s", g.log.String())
		}
		if _, text := askQoS(t, g.provider.mesh, "/ls"); strings.Contains(text, said) != lean {
			t.Errorf("/ls says:\n%s", text)
		}
		one := newIssuer(t, "https://one.example")
		expired := bearer(one.sign(t, "ES256", map[string]any{"exp": time.Now().Add(-time.Hour).Unix()}))
		for _, gap := range []struct {
			name, manifest string
			headers        []string
			full, lean     codes.Code
		}{
			{"an ALLOW policy without rules", authorizationPolicy("{action: ALLOW}", ""), nil, codes.PermissionDenied, codes.OK},
			{"CUSTOM", authorizationPolicy("{action: CUSTOM, provider: {name: elsewhere}, rules: [{}]}", ""), nil, codes.PermissionDenied, codes.OK},
			{"a dry run", authorizationPolicy("{action: DENY, rules: [{}]}", `"istio.io/dry-run": "true"`), nil, codes.OK, codes.PermissionDenied},
			{"RequestAuthentication", requestAuthentication(t, "", one), expired, codes.Unauthenticated, codes.OK},
		} {
			t.Run(gap.name, func(t *testing.T) {
				g.govern(t, gap.manifest)
				want := gap.full
				if lean {
					want = gap.lean
				}
				must(t, lab.WaitFor(within(t, 45*time.Second), "the policy, as far as it is told", func(context.Context) error {
					if err := outcome(t, g.callers["alice"], sayHello, gap.headers...); status.Code(err) != want {
						return fmt.Errorf("the call ended with %w, want %v", err, want)
					}
					return nil
				}))
			})
		}
	})
}

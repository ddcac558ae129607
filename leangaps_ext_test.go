package proxyless_test

import (
	"context"
	"log/slog"
	"strings"
	"testing"

	"github.com/proxyless/proxyless"
	"github.com/proxyless/proxyless/meshtest"
)

// warnings hands on what is logged as a warning.
type warnings struct {
	slog.Handler
	heard chan string
}

func (w warnings) Enabled(context.Context, slog.Level) bool { return true }
func (w warnings) WithAttrs([]slog.Attr) slog.Handler       { return w }
func (w warnings) Handle(_ context.Context, r slog.Record) error {
	if r.Level == slog.LevelWarn {
		select {
		case w.heard <- r.Message:
		default:
		}
	}
	return nil
}

// TestAProviderInTheLeanViewSaysWhatItIsNotTold: somebody who relies on policy
// has to hear of it.
func TestAProviderInTheLeanViewSaysWhatItIsNotTold(t *testing.T) {
	useLeanView(t)
	w := warnings{slog.DiscardHandler, make(chan string, 100)}
	cp := meshtest.New(t)
	startProvider(t, cp, &echo{name: "one"}, func(c *proxyless.Config) { c.Logger = slog.New(w) })
	for {
		select {
		case message := <-w.heard:
			if strings.HasPrefix(message, "part of the mesh's rules is not enforced: in the lean view") && strings.Contains(message, "RequestAuthentication") {
				return
			}
		case <-t.Context().Done():
			t.Fatal("nothing was said")
		}
	}
}

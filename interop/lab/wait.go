package lab

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// pollInterval is the pause between two looks of [WaitFor].
const pollInterval = 50 * time.Millisecond

// WaitFor looks again and again until check returns nil. When ctx ends first,
// the error names what was waited for and what the last look said.
func WaitFor(ctx context.Context, what string, check func(context.Context) error) error {
	ticker := time.NewTicker(pollInterval)
	defer ticker.Stop()
	for {
		err := check(ctx)
		if err == nil {
			return nil
		}
		var final stop
		if errors.As(err, &final) {
			return final.error
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("lab: waited in vain for %s: %w: %w", what, ctx.Err(), err)
		case <-ticker.C:
		}
	}
}

// stop is an error after which waiting has no point.
type stop struct{ error }

package proxyless

import "time"

var started = time.Now()

// sinceStart is the time in its cheapest form.
func sinceStart() time.Duration { return time.Since(started) }

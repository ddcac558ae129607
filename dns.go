package proxyless

import (
	"cmp"
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"net/netip"
	"strings"
	"sync"
	"time"
)

// nameService looks names up for the state machine: each at once, and then again
// and again, since neither Go's resolver nor the system's says how long an
// answer is good for. The ADS loop owns it; each name has a goroutine of its
// own, so that one that is slow does not keep others waiting.
type nameService struct {
	// Constant after construction.
	lookUp func(ctx context.Context, network, host string) ([]netip.Addr, error)
	report func(host string, addrs []netip.Addr, failure string)

	// Owned by the ADS loop.
	active  map[string]context.CancelFunc
	workers sync.WaitGroup
}

const (
	// refreshPause is between two lookups of a name, on average, where the
	// cluster does not say otherwise (Envoy's dns_refresh_rate), and at most
	// after a failure.
	refreshPause = 5 * time.Second
	// lookUpTimeout ends a lookup that gets no answer.
	lookUpTimeout = 10 * time.Second
)

// start begins to look a name up.
func (r *nameService) start(name nameLookup) {
	if r.active == nil {
		r.active = map[string]context.CancelFunc{}
	}
	ctx, cancel := context.WithCancel(context.Background())
	r.active[name.host] = cancel
	r.workers.Add(1)
	go func() { // ends with ctx, which stop and close end; joined by close
		defer r.workers.Done()
		r.follow(ctx, name.host, cmp.Or(name.every, refreshPause))
	}()
}

// stop ends the lookups of a name. An answer on its way means nothing to the
// state machine any more.
func (r *nameService) stop(host string) {
	r.active[host]()
	delete(r.active, host)
}

// close ends all lookups.
func (r *nameService) close() {
	for _, cancel := range r.active {
		cancel()
	}
	r.workers.Wait()
}

func (r *nameService) follow(ctx context.Context, host string, every time.Duration) {
	for ctx.Err() == nil {
		pause := every
		attempt, cancel := context.WithTimeout(ctx, lookUpTimeout)
		addrs, err := r.lookUp(attempt, "ip", host)
		cancel()
		failure := ""
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			failure = lookUpFailure(err)
		case len(addrs) == 0:
			failure = "it has no address"
		}
		r.report(host, addrs, failure)
		if failure != "" {
			pause = min(pause, refreshPause)
		}
		timer := time.NewTimer(pause*3/4 + rand.N(pause/2+1))
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		}
	}
}

// lookUpFailure words a failure so that the same one reads the same each time:
// what Go says of a DNS server that is silent has the port that was asked from.
func lookUpFailure(err error) string {
	var failed *net.DNSError
	if !errors.As(err, &failed) {
		return err.Error()
	}
	same := *failed
	if _, rest, ok := strings.Cut(same.Err, "->"); ok {
		same.Err = strings.TrimSpace(rest[strings.LastIndex(rest, ": ")+1:])
	}
	return same.Error()
}

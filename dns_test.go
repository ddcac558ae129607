package proxyless

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// TestNamesAreLookedUpAgainAndAgain runs in a bubble of fake time.
func TestNamesAreLookedUpAgainAndAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		asked, reports := map[string]int{}, map[string][]string{}
		s := nameService{
			lookUp: func(ctx context.Context, network, host string) ([]netip.Addr, error) {
				mu.Lock()
				asked[host]++
				n := asked[host]
				mu.Unlock()
				switch {
				case host == "slow":
					<-ctx.Done()
					return nil, ctx.Err()
				case n == 2:
					return nil, errors.New("no such host")
				case n == 3:
					return nil, nil
				}
				return []netip.Addr{netip.MustParseAddr("192.0.2.1")}, nil
			},
			report: func(host string, addrs []netip.Addr, failure string) {
				mu.Lock()
				defer mu.Unlock()
				reports[host] = append(reports[host], failure)
			},
		}
		so := func(host string) (lookups int, told []string) {
			synctest.Wait()
			mu.Lock()
			defer mu.Unlock()
			return asked[host], slices.Clone(reports[host])
		}
		s.start("slow")
		s.start("fast")
		_, fast := so("fast")
		if _, slow := so("slow"); len(fast) != 1 || len(slow) != 0 {
			t.Errorf("at once: %v, %v", fast, slow)
		}
		time.Sleep(time.Minute)
		n, fast := so("fast")
		if n < 9 || n > 17 {
			t.Errorf("%d lookups in a minute", n)
		}
		if want := []string{"", "no such host", "it has no address", ""}; !slices.Equal(fast[:4], want) {
			t.Errorf("reports %q", fast)
		}
		if _, slow := so("slow"); len(slow) == 0 || slow[0] == "" {
			t.Errorf("a server that does not answer: %q", slow)
		}
		s.stop("fast")
		before, _ := so("fast")
		time.Sleep(time.Minute)
		if n, _ := so("fast"); n != before {
			t.Error("it was looked up after the end")
		}
		s.close()
	})
}

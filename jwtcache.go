package proxyless

import (
	"encoding/binary"
	"math/rand/v2"
	"sync/atomic"
)

// A filter remembers at most tokenSets*tokenWays tokens, of which none is
// longer than maxKnownToken: some 4 MiB of usual tokens.
const (
	tokenSets     = 256
	tokenWays     = 4
	maxKnownToken = 4 << 10
)

// knownToken is a token whose signature was verified. It is immutable but for
// claims.
type knownToken struct {
	hash   [32]byte // SHA-256 of the token, so that nobody can make another of the same hash
	signed *signedToken
	facts  tokenFacts
	claims []atomic.Pointer[tokenClaimSet] // by provider: what is told of the token; nil while it was not verified with the provider's keys
}

// tokenCache is the tokens that a filter verified. Nothing is removed: a newer
// token takes the place of one that expired, or of any, and whoever finds one
// still looks at its time. The zero value is empty.
type tokenCache struct {
	table atomic.Pointer[[tokenSets][tokenWays]atomic.Pointer[knownToken]]
}

func tokenSet(hash *[32]byte) int { return int(binary.LittleEndian.Uint32(hash[:]) % tokenSets) }

// find allocates nothing and takes no lock; nil is none.
func (c *tokenCache) find(hash *[32]byte) *knownToken {
	table := c.table.Load()
	if table == nil {
		return nil
	}
	set := &table[tokenSet(hash)]
	for i := range set {
		if k := set[i].Load(); k != nil && k.hash == *hash {
			return k
		}
	}
	return nil
}

// keep puts a token in the place of one that is there already, expired, or
// chosen at random.
func (c *tokenCache) keep(k *knownToken, now float64) {
	table := c.table.Load()
	if table == nil {
		c.table.CompareAndSwap(nil, new([tokenSets][tokenWays]atomic.Pointer[knownToken]))
		table = c.table.Load()
	}
	set := &table[tokenSet(&k.hash)]
	place := rand.IntN(tokenWays)
	for i := range set {
		switch old := set[i].Load(); {
		case old == nil || old.facts.hasExpiry && old.facts.expires < now:
			place = i
		case old.hash == k.hash:
			return
		}
	}
	set[place].Store(k)
}

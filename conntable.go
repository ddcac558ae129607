package proxyless

import (
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"unique"

	"google.golang.org/grpc"
	"google.golang.org/grpc/encoding"
)

// connTable holds the cells of one Mesh.
type connTable struct {
	// Constant after construction.
	options []grpc.DialOption
	counts  *counters
	codec   func() encoding.CodecV2 // that options force on every call; nil when none
	upkeep  *upkeep
	seed    uint64 // of subsetting
	watched bool   // the user's options may look at calls
	secrets *secretStore

	// Have locks of their own.
	mirrors  *errands // copies of calls
	failback *errands // calls that are to be made later

	changed notifier // some cell changed its state

	mu      sync.Mutex
	cells   map[connKey]*cell  // those that an endpoint set holds
	leaving map[*cell]struct{} // those that finish their calls
	closed  bool

	closers sync.WaitGroup // those of aside; joined by close
}

// connKey is what must be equal for two services to share a connection.
type connKey struct {
	addr     netip.AddrPort
	settings connSettings
	security unique.Handle[string] // of security.key
}

// linkLimit says whether one more connection to an endpoint that has one may
// be made. It is a function of whoever holds the cell.
type linkLimit func() bool

func newConnTable(user []grpc.DialOption, counts *counters) *connTable {
	options := []grpc.DialOption{grpc.WithNoProxy()}
	t := &connTable{options: append(options, user...), counts: counts, codec: dialledCodec(user), watched: len(user) > 0, mirrors: newErrands(mostMirrored), failback: newErrands(mostFailback), upkeep: newUpkeep(), seed: rand.Uint64(), cells: map[connKey]*cell{}, leaving: map[*cell]struct{}{}}
	t.changed.init()
	return t
}

// acquire returns the cell of a key, which is the security's, with one more
// reference. t.mu is held.
func (t *connTable) acquire(key connKey, sec *security) *cell {
	c := t.cells[key]
	if c == nil {
		c = &cell{key: key, table: t, security: sec, watched: key.settings.idleTimeout > 0}
		t.cells[key] = c
	}
	c.refs++
	return c
}

// succeed is acquire for a key that no cell has, in the place of a cell that
// works. t.mu is held.
func (t *connTable) succeed(key connKey, sec *security) *cell {
	c := t.acquire(key, sec)
	c.heir = true
	return c
}

// release gives one reference back. It returns the cell when that was the last
// one: the caller drains it after unlocking. t.mu is held.
func (t *connTable) release(c *cell) *cell {
	if c.refs--; c.refs > 0 {
		return nil
	}
	if t.cells[c.key] == c {
		delete(t.cells, c.key)
	}
	t.leaving[c] = struct{}{}
	return c
}

// close ends every connection, calls in flight included.
func (t *connTable) close() {
	t.mirrors.close()
	t.failback.close()
	t.mu.Lock()
	t.closed = true
	for _, c := range t.cells {
		t.leaving[c] = struct{}{}
	}
	leaving := slices.Collect(maps.Keys(t.leaving))
	t.cells = map[connKey]*cell{}
	t.mu.Unlock()
	var all sync.WaitGroup
	for _, c := range leaving {
		c.draining.Store(true)
		c.ready.Store(nil)
		all.Go(c.shut) // joined below
	}
	t.changed.notify()
	all.Wait()
	t.closers.Wait()
}

// aside runs what may wait for a peer that does not read, which can take gRPC
// seconds, off the ADS loop and off the way of a call.
func (t *connTable) aside(f func()) {
	t.mu.Lock()
	if t.closed {
		t.mu.Unlock()
		f()
		return
	}
	t.closers.Add(1)
	t.mu.Unlock()
	go func() { // bounded by gRPC; joined by close
		defer t.closers.Done()
		f()
	}()
}

package proxyless

import (
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// mostPlainPeers bounds how many addresses are remembered.
const mostPlainPeers = 1000

// PlainTextPeer is an address from which this process is called in plain text.
type PlainTextPeer struct {
	Address     netip.Addr
	Connections int       // open now
	Accepted    uint64    // connections since the first that is remembered
	Calls       uint64    // calls through them
	Last        time.Time // when the last connection was open: now while one is
}

// plainPeers remembers who speaks plain text: those with an open connection, and
// of the others those who did last.
type plainPeers struct {
	mu sync.Mutex
	by map[netip.Addr]*plainPeer
}

// plainPeer is what is remembered of one address.
type plainPeer struct {
	calls atomic.Uint64

	// Guarded by plainPeers.mu.
	address  netip.Addr
	open     int
	accepted uint64
	last     time.Time
}

// enter notes a connection.
func (p *plainPeers) enter(address netip.Addr, now time.Time) *plainPeer {
	p.mu.Lock()
	defer p.mu.Unlock()
	who := p.by[address]
	if who == nil {
		who = &plainPeer{address: address}
		if p.by == nil {
			p.by = map[netip.Addr]*plainPeer{}
		}
		if len(p.by) < mostPlainPeers || p.dropOldest() {
			p.by[address] = who
		}
	}
	who.open++
	who.accepted++
	who.last = now
	return who
}

// dropOldest forgets the address that has been gone for the longest time. It
// reports whether there was any.
func (p *plainPeers) dropOldest() bool {
	var oldest *plainPeer
	for _, who := range p.by {
		if who.open == 0 && (oldest == nil || who.last.Before(oldest.last)) {
			oldest = who
		}
	}
	if oldest == nil {
		return false
	}
	delete(p.by, oldest.address)
	return true
}

// left notes that a connection was closed.
func (p *plainPeers) left(who *plainPeer, now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	who.open--
	who.last = now
}

// list is who speaks plain text, the most recent first.
func (p *plainPeers) list(now time.Time) []PlainTextPeer {
	p.mu.Lock()
	defer p.mu.Unlock()
	list := make([]PlainTextPeer, 0, len(p.by))
	for _, who := range p.by {
		one := PlainTextPeer{Address: who.address, Connections: who.open, Accepted: who.accepted, Calls: who.calls.Load(), Last: who.last}
		if who.open > 0 {
			one.Last = now
		}
		list = append(list, one)
	}
	slices.SortFunc(list, func(a, b PlainTextPeer) int {
		if c := b.Last.Compare(a.Last); c != 0 {
			return c
		}
		return a.Address.Compare(b.Address)
	})
	return list
}

package meshtest

import (
	"slices"
	"sort"
)

// watch is what a stream asked for of one type, and what it was sent.
type watch struct {
	typeURL string
	names   []string // sorted, each once; none is all, where the type allows it
	nonce   string   // of the last response; empty before the first
	acked   bool     // the last response was answered, or there was none
	seen    uint64   // version of the world that was sent last
	owed    bool     // a request waits for its response
}

// pushOrder is the order in which istiod sends what changed.
var pushOrder = []string{ClusterType, ClusterLoadAssignmentType, ListenerType, RouteConfigurationType}

// typesInOrder lists the watched types; those that pushOrder does not know come
// last.
func (s *stream) typesInOrder() []string {
	types := make([]string, 0, len(s.watches))
	for t := range s.watches {
		types = append(types, t)
	}
	rank := func(t string) int {
		if i := slices.Index(pushOrder, t); i >= 0 {
			return i
		}
		return len(pushOrder)
	}
	sort.Slice(types, func(i, j int) bool {
		if a, b := rank(types[i]), rank(types[j]); a != b {
			return a < b
		}
		return types[i] < types[j]
	})
	return types
}

// receive judges a request as istiod does: a NACK changes nothing, a request
// that answers an older response than the last is ignored, and an ACK is
// answered only when it names something new. It returns the watch from then on,
// nil where there is none, and whether a response is due.
func (w *watch) receive(q Request) (next *watch, respond bool) {
	if q.NACK {
		if w != nil && q.Nonce == w.nonce {
			w.acked = true
		}
		return w, false
	}
	if len(q.Names) == 0 && !wildcard(q.TypeURL) {
		return nil, false
	}
	names := slices.Compact(slices.Sorted(slices.Values(q.Names)))
	if w == nil || q.Nonce == "" {
		return &watch{typeURL: q.TypeURL, names: names, acked: true}, true
	}
	if q.Nonce != w.nonce {
		return w, false
	}
	w.acked = true
	same := slices.Equal(w.names, names)
	onlyRemoved := !slices.ContainsFunc(names, func(n string) bool {
		_, had := slices.BinarySearch(w.names, n)
		return !had
	})
	w.names = names
	return w, !same && (wildcard(q.TypeURL) || !onlyRemoved)
}

// due says that there is something new to send.
func (w *watch) due(world *world) bool {
	switch {
	case w.owed:
		return true
	case pushedWhole(w.typeURL):
		return world.version > w.seen
	default:
		return slices.ContainsFunc(w.names, func(name string) bool {
			return world.changedAt(w.typeURL, name) > w.seen
		})
	}
}

// wildcard says that no names stand for all resources of the type.
func wildcard(typeURL string) bool {
	return typeURL == ListenerType || typeURL == ClusterType
}

// pushedWhole says that every change, one of endpoints too, sends all watched
// resources of the type again, changed or not. So does istiod to a proxyless
// client; of the other types it sends what changed.
func pushedWhole(typeURL string) bool {
	return wildcard(typeURL) || typeURL == RouteConfigurationType
}

// alwaysAnswered says that a response is sent even when it holds nothing.
func alwaysAnswered(typeURL string) bool { return pushedWhole(typeURL) }

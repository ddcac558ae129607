package meshtest

import (
	"context"
	"sync"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
)

// recordLimit bounds the requests that are kept, so that a control plane may
// run for weeks; the oldest are forgotten first.
const recordLimit = 1 << 14

// Request is one DiscoveryRequest or DeltaDiscoveryRequest as it arrived.
type Request struct {
	Seq    int         // 1 for the first request that this control plane received
	Stream int         // 1 for the first stream
	Header metadata.MD // of the stream

	TypeURL string
	Version string   // of the last response that the client accepted; not in the delta protocol
	Nonce   string   // of the response that this answers; empty where it answers none
	Names   []string // in the delta protocol those that are subscribed to

	Delta        bool
	Unsubscribed []string          // delta only
	Held         map[string]string // delta only: initial_resource_versions

	NACK        bool // error_detail is present
	ErrorCode   codes.Code
	ErrorDetail string

	HasNode               bool // the fields below are of this very message
	NodeID                string
	NodeCluster           string
	Metadata              map[string]any // as encoding/json would decode it
	Region, Zone, SubZone string
}

// record keeps what was received and tells those who wait.
type record struct {
	mu       sync.Mutex
	requests []Request // the newest, at most recordLimit
	total    int       // how many ever arrived
	changed  chan struct{}
}

func newRecord() *record { return &record{changed: make(chan struct{})} }

func (r *record) add(q Request) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.total++
	q.Seq = r.total
	if len(r.requests) == recordLimit {
		r.requests = append(r.requests[:0:0], r.requests[recordLimit/2:]...)
	}
	r.requests = append(r.requests, q)
	close(r.changed)
	r.changed = make(chan struct{})
}

// after returns the requests that came after the first n and a channel that is
// closed when there is one more.
func (r *record) after(n int) ([]Request, <-chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	forgotten := r.total - len(r.requests)
	return r.requests[min(max(n-forgotten, 0), len(r.requests)):], r.changed
}

// Requests returns what was received so far, oldest first. The newest 8192
// requests are always kept.
func (c *ControlPlane) Requests() []Request {
	list, _ := c.record.after(0)
	return append([]Request(nil), list...)
}

// WaitRequest returns the first request that match accepts, among those already
// received and those to come, and fails when ctx ends before there is one. To
// wait for a request that is still to come, let match compare Seq.
func (c *ControlPlane) WaitRequest(ctx context.Context, match func(Request) bool) (Request, error) {
	for seen := 0; ; {
		list, changed := c.record.after(seen)
		for _, q := range list {
			if match(q) {
				return q, nil
			}
			seen = q.Seq
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return Request{}, context.Cause(ctx)
		}
	}
}

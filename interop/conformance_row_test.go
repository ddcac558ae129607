package interop

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"github.com/proxyless/proxyless/examples/greeting/greetpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
)

// governed is the namespace of the conformance rows.
const governed = "governed"

// row is one line of the conformance table: what a user writes, and what is
// observed of it by calls.
type row struct {
	part  string // heading of the table
	name  string // of the Service too, in lower case with dashes
	about string // the feature in words
	field string // the YAML field
	yaml  string // in which HOST stands for the Service's name

	labels map[string]string // of the consumer's pod
	istiod []string          // what an istiod of the row's own has in its environment; full view only
	host   string            // what is referred to in place of the Service, as host
	port   int
	bare   bool // the row brings its own Service, or needs none
	serves bool // it is about who is let in: it has a pod of its own, and servers
	alone  bool // its columns are observed one after the other
	single bool // a second look would see what the first left
	breaks bool // it breaks connections: it has pods of its own, and nothing beside it on them

	// check observes the feature. Where calls work and the feature does not
	// show, the error is an unseen.
	check func(*scene) error

	// Expectations other than "it is observed"; see also pending. A cell whose
	// expectation is not met fails the test, in both directions.
	full   string // why it is not observed in the full view
	lean   string // why it is not observed in the lean view
	remark string // for the reader
}

// unseen says that calls worked and the feature did not show.
type unseen struct{ error }

func unseenf(format string, args ...any) error { return unseen{fmt.Errorf(format, args...)} }

// scene is a row in one column: a client of the row's Service.
type scene struct {
	*row
	world *world
	conn  grpc.ClientConnInterface
	ours  *member // nil in grpc-go's column
	guard *guard  // of a row that serves, which has no conn
}

// spec is one call.
type spec struct {
	method  string // default /conformance.Echo/Call
	headers []string
	limit   time.Duration // default 15 s
	script  script
}

const echo = "conformance.Echo"

var lastKey atomic.Int64

// call makes one call and returns what its backend saw.
func (s *scene) call(c spec) (seen, error) {
	got, _, err := s.callKeyed(c)
	return got, err
}

// callKeyed returns all visits of the call, too.
func (s *scene) callKeyed(c spec) (got seen, visits []seen, err error) {
	if c.method == "" {
		c.method = "/" + echo + "/Call"
	}
	if c.limit == 0 {
		c.limit = 15 * time.Second
	}
	if c.script.Key == "" {
		c.script.Key = fmt.Sprintf("%s-%d", s.name, lastKey.Add(1))
	}
	text, err := json.Marshal(c.script)
	if err != nil {
		return got, nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), c.limit)
	defer cancel()
	ctx = metadata.AppendToOutgoingContext(ctx, c.headers...)
	var reply greetpb.SayHelloReply
	var header, trailer metadata.MD
	began := time.Now()
	err = s.conn.Invoke(ctx, c.method, &greetpb.SayHelloRequest{Name: string(text)}, &reply, grpc.Header(&header), grpc.Trailer(&trailer))
	took := time.Since(began)
	visits = s.world.ledger.of(c.script.Key)
	if err == nil {
		err = json.Unmarshal([]byte(reply.GetMessage()), &got)
	}
	got.header, got.trailer, got.took = header, trailer, took
	return got, visits, err
}

// many makes n calls, one after the other, and counts the answers by backend.
func (s *scene) many(n int, c spec) (map[string]int, error) {
	counts := map[string]int{}
	for range n {
		got, err := s.call(c)
		if err != nil {
			return counts, err
		}
		counts[got.Host]++
	}
	return counts, nil
}

// target is what the row's client refers to.
func (r *row) target() string {
	if r.host != "" {
		return r.host
	}
	return r.name + "." + governed + ".svc.cluster.local"
}

func (r *row) targetPort() int {
	if r.port != 0 {
		return r.port
	}
	return servicePort
}

// virtual is a VirtualService of the row with the routes, in YAML.
func virtual(routes string) string {
	return `---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: HOST, namespace: NAMESPACE}
spec:
  hosts: [HOST]
  http:
` + indent(routes, 2)
}

// rule is a DestinationRule of the row with subsets by version and the traffic
// policy, in YAML.
func rule(policy string) string {
	text := `---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: HOST, namespace: NAMESPACE}
spec:
  host: HOST
  subsets:
  - {name: v1, labels: {version: v1}}
  - {name: v2, labels: {version: v2}}
  - {name: v3, labels: {version: v3}}
`
	if policy != "" {
		text += "  trafficPolicy:\n" + indent(policy, 4)
	}
	return text
}

// dest is a destination in YAML.
func dest(subset string) string { return "{destination: {host: HOST, subset: " + subset + "}}" }

func indent(text string, by int) string {
	lines := strings.Split(strings.Trim(text, "\n"), "\n")
	return strings.Repeat(" ", by) + strings.Join(lines, "\n"+strings.Repeat(" ", by)) + "\n"
}

// isUnseen tells a feature that does not show from calls that fail.
func isUnseen(err error) bool { return errors.As(err, new(unseen)) }

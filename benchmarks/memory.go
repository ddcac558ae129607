package main

import (
	"fmt"
	"runtime"

	endpointpb "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	"google.golang.org/protobuf/proto"
)

// allocation is what one operation allocates, in the whole process.
type allocation struct{ objects, bytes float64 }

func (a allocation) String() string {
	return fmt.Sprintf("%.0f allocs, %s kB", a.objects, significant(a.bytes/1e3))
}

// allocated is the least of three tries: what else happens only adds.
func allocated(times int, work func(times int)) allocation {
	var least allocation
	for try := range 3 {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		for range times {
			work(1)
		}
		runtime.ReadMemStats(&after)
		a := allocation{float64(after.Mallocs-before.Mallocs) / float64(times), float64(after.TotalAlloc-before.TotalAlloc) / float64(times)}
		if try == 0 || a.objects < least.objects {
			least = a
		}
	}
	return least
}

func decodeWithProtobuf(value []byte) {
	if err := proto.Unmarshal(value, new(endpointpb.ClusterLoadAssignment)); err != nil {
		panic(err)
	}
}

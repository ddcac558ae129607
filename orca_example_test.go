package proxyless_test

import (
	"context"
	"fmt"

	"github.com/proxyless/proxyless"
	"github.com/proxyless/proxyless/meshtest"
)

// A provider tells how loaded it is, once a second or so, and consumers whose
// mesh says client_side_weighted_round_robin spread their calls by it. A handler
// may say what its call cost: proxyless.ReportCallLoad(ctx, ...).
func ExampleServer_ReportLoad() {
	cp, err := meshtest.Start()
	if err != nil {
		panic(err)
	}
	defer cp.Close()
	mesh, err := proxyless.Join(context.Background(), member(cp, "provider"))
	if err != nil {
		panic(err)
	}
	defer mesh.Close()
	server := mesh.NewServer()
	queue, room := 30.0, 100.0
	fmt.Println(server.ReportLoad(proxyless.LoadReport{ApplicationUtilization: queue / room}))
	fmt.Println(server.ReportLoad(proxyless.LoadReport{MemoryUtilization: 2}))
	// Output:
	// <nil>
	// proxyless: provider ReportLoad: MemoryUtilization is out of range; report what is finite and not negative; shares lie between 0 and 1
}

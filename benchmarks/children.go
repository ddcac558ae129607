package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/proxyless/proxyless/benchmarks/internal/program"
	"github.com/proxyless/proxyless/meshtest"
)

const mib = 1 << 20

// children are the programs of cmd, built and stripped.
type children struct {
	folder string
	size   map[string]float64
}

func buildChildren(names ...string) (*children, error) {
	folder, err := os.MkdirTemp("", "proxyless-benchmarks-")
	if err != nil {
		return nil, err
	}
	c := &children{folder, map[string]float64{}}
	for _, name := range names {
		out := filepath.Join(folder, name)
		cmd := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", out, "./cmd/"+name)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if text, err := cmd.CombinedOutput(); err != nil {
			c.remove()
			return nil, fmt.Errorf("go build ./cmd/%s: %w\n%s", name, err, text)
		}
		info, err := os.Stat(out)
		if err != nil {
			c.remove()
			return nil, err
		}
		c.size[name] = float64(info.Size())
	}
	return c, nil
}

func (c *children) remove() { os.RemoveAll(c.folder) }

// run starts a child and returns what it measured of itself.
func (c *children) run(name string, args ...string) (r program.Result, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Join(c.folder, name), args...)
	out, err := cmd.Output()
	if err == nil {
		err = json.Unmarshal(out, &r)
	}
	if exit, ok := err.(*exec.ExitError); ok {
		err = fmt.Errorf("%s: %w: %s", name, err, exit.Stderr)
	}
	return r, err
}

// heap measures in children what watching a cluster of 10 000 endpoints adds to
// the heap before any call. Nothing listens at the endpoints: proxyless does not
// try to connect before the first call, and grpc-go, which does, is refused
// everywhere, so that it holds no connection.
func heap(r *report, _ time.Duration) error {
	const n = 10_000
	c, err := buildChildren("proxyless", "grpcxds")
	if err != nil {
		return err
	}
	defer c.remove()
	w, err := newWorld()
	if err != nil {
		return err
	}
	defer w.close()
	endpoints := make([]meshtest.Endpoint, n)
	for i := range endpoints {
		endpoints[i] = meshtest.Endpoint{Address: netip.AddrFrom4([4]byte{127, 1, byte(i >> 8), byte(i)}).String(), Port: 1, TLSMode: "istio"}
	}
	w.provide("watched", endpoints...)
	args := []string{"-watch", "-control", w.control.Addr(), "-service", fmt.Sprintf("watched:%d", port)}
	watch := func(args ...string) (e estimate, err error) {
		var heaps []float64
		for range 3 {
			result, err := c.run("proxyless", args...)
			if err != nil {
				return e, err
			}
			heaps = append(heaps, float64(result.Heap)/mib)
		}
		return estimateOf(heaps), nil
	}
	mine, err := watch(append(args, "-lean")...)
	if err != nil {
		return err
	}
	r.add(row{what: "heap of a watched cluster, 10 000 endpoints, lean view", ours: significant(mine.median) + " MiB", compared: "of proxyless", estimate: mine, unit: " MiB", budget: 2})
	full, err := watch(args...)
	if err != nil {
		return err
	}
	r.add(row{what: "… full view", ours: significant(full.median) + " MiB", compared: "of proxyless", estimate: full, unit: " MiB", budget: 2})
	wide, err := newWorld()
	if err != nil {
		return err
	}
	defer wide.close()
	wanted := wide.manyServices(1000)
	in, err := watch("-watch", "-control", wide.control.Addr(), "-service", strings.Join(wanted, ","))
	if err != nil {
		return err
	}
	r.add(row{what: "heap of three services in a mesh of 1 000, full view", ours: significant(in.median) + " MiB", compared: "of proxyless", estimate: in, unit: " MiB", budget: 5})
	if r.quick {
		return nil // grpc-go takes most of a minute until all endpoints have refused it
	}
	result, err := c.run("grpcxds", args...)
	if err != nil {
		return err
	}
	theirs := float64(result.Heap) / mib
	x := theirs / mine.median
	r.add(row{what: "… grpc-go xDS over proxyless", other: fmt.Sprintf("%s MiB, stacks %s MiB", significant(theirs), significant(float64(result.Stacks)/mib)),
		compared: "heap / heap", estimate: estimate{x, theirs / mine.high, theirs / mine.low, 1}})
	return nil
}

// programs compares whole programs: their size on disk, their peak memory up to
// the first answer, and how long that takes.
func programs(r *report, share time.Duration) error {
	names := []string{"base", "proxyless", "grpcxds"}
	c, err := buildChildren(names...)
	if err != nil {
		return err
	}
	defer c.remove()
	above := func(name string) estimate {
		x := (c.size[name] - c.size["base"]) / 1e6
		return estimate{x, x, x, 1}
	}
	mb := func(name string) string { return significant(c.size[name]/1e6) + " MB" }
	r.add(row{what: "stripped binary above gRPC and net/http", ours: mb("proxyless"), other: mb("base"), compared: "difference", estimate: above("proxyless"), unit: " MB", budget: 2})
	r.add(row{what: "… grpc-go xDS above the same", other: mb("grpcxds"), compared: "difference", estimate: above("grpcxds"), unit: " MB"})

	w, err := newWorld()
	if err != nil {
		return err
	}
	defer w.close()
	addr, err := w.bareServer(Greeter{})
	if err != nil {
		return err
	}
	w.provide("echo", endpoint(addr))
	args := []string{"-control", w.control.Addr(), "-target", addr.String(), "-service", fmt.Sprintf("echo:%d", port)}
	rss, anonymous, started := make([][]float64, len(names)), make([][]float64, len(names)), make([][]float64, len(names))
	var contestants []contestant
	for i, name := range names {
		contestants = append(contestants, func() sample {
			result, err := c.run(name, args...)
			if err != nil {
				panic(err)
			}
			started[i] = append(started[i], float64(result.Started))
			rss[i] = append(rss[i], float64(result.PeakRSS)/mib)
			anonymous[i] = append(anonymous[i], float64(result.Anonymous)/mib)
			return sample{}
		})
	}
	compete(share, contestants...)
	median := func(all []float64) string { return significant(estimateOf(all).median) + " MiB" }
	r.add(row{what: "peak memory up to the first answer", ours: median(rss[1]), other: median(rss[0]), compared: "difference to gRPC and net/http", estimate: difference(rss[1], rss[0]), unit: " MiB", budget: 1})
	r.add(row{what: "… grpc-go xDS above the same", other: median(rss[2]), compared: "difference", estimate: difference(rss[2], rss[0]), unit: " MiB"})
	r.add(row{what: "memory at the first answer, without pages of the program's file", ours: median(anonymous[1]), other: median(anonymous[0]), compared: "difference to gRPC and net/http", estimate: difference(anonymous[1], anonymous[0]), unit: " MiB"})
	r.add(row{what: "… grpc-go xDS above the same", other: median(anonymous[2]), compared: "difference", estimate: difference(anonymous[2], anonymous[0]), unit: " MiB"})
	r.add(row{what: "time from main to the first answer", ours: nanoseconds(started[1]), other: nanoseconds(started[2]), compared: "proxyless / grpc-go xDS", estimate: ratio(started[1], started[2])})
	return nil
}

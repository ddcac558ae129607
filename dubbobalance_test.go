package proxyless

import (
	"maps"
	"slices"
	"strings"
	"testing"
)

func TestLoadBalanceKnowsTheSameNamesEverywhere(t *testing.T) {
	if names := slices.Sorted(maps.Keys(dubboBalances)); !slices.Equal(names, slices.Sorted(slices.Values(loadBalanceNames))) {
		t.Errorf("options know %q, choosing knows %q", loadBalanceNames, names)
	}
}

func TestAnUnknownLoadBalanceIsRefusedWithTheList(t *testing.T) {
	m := newHandFed().mesh
	_, err := m.Refer("greet.Greeting", ProvidedBy("echo"), LoadBalance("fastest"))
	if err == nil || !strings.Contains(err.Error(), `"fastest"`) || !strings.Contains(err.Error(), "leastactive, shortestresponse") {
		t.Errorf("the error is %v", err)
	}
	if _, err = m.Refer("greet.Greeting", ProvidedBy("echo"), Subset(-1)); err == nil {
		t.Error("a negative subset is accepted")
	}
}

// referAs makes another reference to the service of a handFed.
func (f *handFed) referAs(t *testing.T, opts ...ReferOption) *Invoker {
	t.Helper()
	inv, err := f.mesh.Refer("greet.Greeting", append([]ReferOption{ProvidedBy("echo"), Port(50052)}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	f.mesh.ads.commands()
	return inv
}

func TestAReferenceChoosesInItsOwnWay(t *testing.T) {
	f := newHandFed()
	as := map[string]*Invoker{}
	for _, name := range loadBalanceNames {
		as[name] = f.referAs(t, LoadBalance(strings.ToUpper(name)))
	}
	again := f.referAs(t, LoadBalance("leastactive"))
	few := f.referAs(t, Subset(3))
	f.feed(fedService(10))
	set := func(inv *Invoker) *endpointSet { return inv.plan.Load().sets[0] }
	for name, inv := range as {
		if got, want := set(inv).balance, dubboBalances[name].balance; got != want {
			t.Errorf("%s: endpoints are chosen by %v", name, got)
		}
		if policy := inv.plan.Load().routes.routes[0].policy; (policy != nil) != (dubboBalances[name].hash != nil) {
			t.Errorf("%s: the route's policy is %v", name, policy)
		}
	}
	if set(f.inv).balance != (balancing{}) || set(f.inv) == set(as["leastactive"]) {
		t.Error("a reference that asks for nothing does not choose as the mesh says")
	}
	if set(again) != set(as["leastactive"]) {
		t.Error("two references that ask for the same do not share their endpoints")
	}
	if n := len(set(few).slots); n != 3 {
		t.Errorf("a subset of 3 has %d endpoints", n)
	}
	// An update moves each reference on to a set of its own kind.
	f.feed([][]byte{fedEndpoints(9, 0)})
	if s := set(as["p2c"]); s.balance.policy != lbP2C || len(s.slots) != 9 || s.state == nil || set(f.inv).state != nil {
		t.Errorf("after an update: %+v", s.balance)
	}
	for _, inv := range as {
		inv.Close()
	}
	again.Close()
	few.Close()
	f.mesh.ads.commands()
	if n := len(f.mesh.planner.sets[fedCluster]); n != 1 || len(f.mesh.planner.states) != 0 {
		t.Errorf("%d sets and %d states are left", n, len(f.mesh.planner.states))
	}
}

func TestTheReferencesWayWinsOverConfigs(t *testing.T) {
	f := newHandFed()
	f.mesh.config.LoadBalance = "leastactive"
	plain, own := f.referAs(t), f.referAs(t, LoadBalance("random"))
	f.feed(fedService(2))
	if plain.plan.Load().sets[0].balance.policy != lbLeastRequest || own.plan.Load().sets[0].balance.policy != lbRandom {
		t.Error("LoadBalance of the reference, then of Config")
	}
}

func TestAMeshsHashPolicyWinsOverTheRequest(t *testing.T) {
	p := newPreference(&referSettings{loadBalance: "consistenthash"}, "")
	mesh := &routePolicy{hash: []hashPolicy{{name: "user"}}}
	if p.policy(mesh) != mesh {
		t.Error("the mesh's hash policy was replaced")
	}
	retry := &routePolicy{retry: &retryPolicy{retries: 7}}
	if got := p.policy(retry); got.retry != retry.retry || len(got.hash) != 1 || len(retry.hash) != 0 {
		t.Error("what else the mesh asks for got lost")
	}
	none := newPreference(&referSettings{}, "")
	if none.policy(nil) != nil {
		t.Error("a reference that asks for nothing has a policy")
	}
}

package proxyless_test

import (
	"context"
	"encoding/binary"
	"io"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/proxyless/proxyless"
	"github.com/proxyless/proxyless/meshtest"
)

// inBothProtocols runs a test of the full view against a control plane that
// speaks delta, and against one that does not.
func inBothProtocols(t *testing.T, test func(t *testing.T, cp *meshtest.ControlPlane)) {
	t.Run("delta", func(t *testing.T) { test(t, meshtest.New(t)) })
	t.Run("state of the world", func(t *testing.T) { test(t, meshtest.New(t, meshtest.WithoutDelta())) })
}

func TestTheFullViewInBothProtocols(t *testing.T) {
	inBothProtocols(t, func(t *testing.T, cp *meshtest.ControlPlane) {
		one, two := startProvider(t, cp, &echo{name: "one"}), startProvider(t, cp, &echo{name: "two"})
		cp.SetService(echoService(one.endpoint()))
		mesh := join(t, testConfig(cp, "consumer"))
		inv := refer(t, mesh)
		eventually(t, inv, "one")
		cp.SetService(echoService(two.endpoint()))
		eventually(t, inv, "two")
		cp.Disconnect()
		cp.SetService(echoService(one.endpoint()))
		eventually(t, inv, "one")
		s := echoService()
		cp.RemoveService(s.Name, s.Namespace)
		deadline := time.Now().Add(10 * time.Second)
		for {
			_, err := say(t.Context(), inv)
			if err != nil && problem(t, err).Stage == proxyless.StageListener {
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("the Service was taken away: %v", err)
			}
			time.Sleep(5 * time.Millisecond)
		}
	})
}

// TestWhatVanishedMeanwhileVanishes takes a Service away while there is no
// stream.
func TestWhatVanishedMeanwhileVanishes(t *testing.T) {
	inBothProtocols(t, func(t *testing.T, cp *meshtest.ControlPlane) {
		one := startProvider(t, cp, &echo{name: "one"})
		cp.SetService(echoService(one.endpoint()))
		mesh := join(t, testConfig(cp, "consumer"))
		inv := refer(t, mesh)
		eventually(t, inv, "one")
		connects := mesh.Stats().ControlPlaneConnects
		cp.StopListening()
		s := echoService()
		cp.RemoveService(s.Name, s.Namespace)
		if _, err := say(t.Context(), inv); err != nil {
			t.Errorf("without a control plane: %v", err)
		}
		if err := cp.Restart(); err != nil {
			t.Fatal(err)
		}
		deadline := time.Now().Add(20 * time.Second)
		for mesh.Stats().ControlPlaneConnects == connects || callError(t, inv) == nil {
			if time.Now().After(deadline) {
				t.Fatal("calls are still answered")
			}
			time.Sleep(5 * time.Millisecond)
		}
	})
}

func callError(t *testing.T, inv *proxyless.Invoker) error {
	_, err := say(t.Context(), inv)
	return err
}

func TestTheEgressPolicyIsObeyed(t *testing.T) {
	cp := meshtest.New(t)
	outside := startProvider(t, cp, &echo{name: "outside"}).addr.String()
	cfg := testConfig(cp, "consumer")
	cfg.Resolver = resolver(map[string]net.IP{"far.example.com.": net.IPv4(127, 0, 0, 1)})
	mesh := join(t, cfg)
	_, port, _ := net.SplitHostPort(outside)
	far, e := mesh.Refer(echoInterface, proxyless.ProvidedBy("far.example.com:"+port), proxyless.Version("1.0.0"))
	if e != nil {
		t.Fatal(e)
	}
	eventually(t, far, "outside")
	nobody, _ := mesh.Refer(echoInterface, proxyless.ProvidedBy("nobody.example.com:"+port))
	if _, err := say(t.Context(), nobody); !strings.Contains(problem(t, err).Error(), "looking it up failed") {
		t.Error(err)
	}
	cp.SetEgress(meshtest.RegistryOnly)
	deadline := time.Now().Add(10 * time.Second)
	for {
		_, err := say(t.Context(), far)
		if err != nil && strings.Contains(err.Error(), "REGISTRY_ONLY") && strings.Contains(err.Error(), "ServiceEntry") {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("under REGISTRY_ONLY: %v", err)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// resolver asks a name server of the test's own, which knows the given names.
func resolver(known map[string]net.IP) *net.Resolver {
	return &net.Resolver{PreferGo: true, StrictErrors: true, Dial: func(context.Context, string, string) (net.Conn, error) {
		client, server := net.Pipe()
		go serveDNS(server, known) // ends with the connection
		return client, nil
	}}
}

// serveDNS answers over a stream, whose messages have their length before them.
func serveDNS(c net.Conn, known map[string]net.IP) {
	defer c.Close()
	for {
		var size uint16
		if binary.Read(c, binary.BigEndian, &size) != nil {
			return
		}
		query := make([]byte, size)
		if _, err := io.ReadFull(c, query); err != nil {
			return
		}
		var name strings.Builder
		at := 12
		for query[at] > 0 {
			n := int(query[at])
			name.Write(query[at+1 : at+1+n])
			name.WriteByte('.')
			at += 1 + n
		}
		question := query[12 : at+5]
		ip, found := known[name.String()]
		isA := query[at+2] == 1
		answer := append([]byte{query[0], query[1], 0x85, 0x80, 0, 1, 0, 0, 0, 0, 0, 0}, question...)
		switch {
		case !found:
			answer[3] |= 3 // no such name
		case isA:
			answer[7] = 1
			answer = append(answer, 0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 5, 0, 4)
			answer = append(answer, ip.To4()...)
		}
		if binary.Write(c, binary.BigEndian, uint16(len(answer))) != nil {
			return
		}
		if _, err := c.Write(answer); err != nil {
			return
		}
	}
}

// TestTheDeltaMethodIsTriedOnce says that a control plane which does not speak
// delta is asked for state of the world from then on.
func TestTheDeltaMethodIsTriedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cp := meshtest.New(t, meshtest.InMemory(), meshtest.WithoutDelta())
		cp.SetService(echoService())
		mesh := join(t, testConfig(cp, "consumer"))
		refer(t, mesh)
		synctest.Wait()
		for range 3 {
			cp.Disconnect()
			time.Sleep(time.Minute)
			synctest.Wait()
		}
		for _, r := range cp.Requests() {
			if r.Delta {
				t.Errorf("a delta request: %+v", r)
			}
		}
		if s := mesh.Stats(); s.Responses == 0 || s.ControlPlaneConnects > 5 {
			t.Errorf("%+v", s)
		}
		mesh.Close()
	})
}

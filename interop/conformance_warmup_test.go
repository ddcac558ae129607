package interop

import (
	"time"

	"github.com/proxyless/proxyless/interop/lab"
)

// warmsUp starts an endpoint beside one that serves already and looks at the
// share it gets, at first and later.
func warmsUp(s *scene) error {
	pod := func(version string) (*backend, func()) {
		b := startBackend(s.world.t, s.world.lab, s.world.ledger, lab.WorkloadSpec{
			Namespace: governed, Name: "warmup-" + version, Labels: map[string]string{"app": "warmup", "version": version},
		})
		return b, b.end
	}
	_, endOld := pod("old")
	defer endOld()
	if err := eventuallyShares(s, spec{}, 20, bounds{"old": {20, 20}}); err != nil {
		return err
	}
	time.Sleep(3 * time.Second) // the old one is warm
	_, endNew := pod("new")
	defer endNew()
	began := time.Now()
	for { // until it gets its first call
		got, err := s.call(spec{})
		if err != nil {
			return err
		}
		if got.Host == "new" {
			break
		}
		if time.Since(began) > 10*time.Second {
			return unseenf("the new one gets no call")
		}
		time.Sleep(5 * time.Millisecond)
	}
	first, err := s.many(100, spec{})
	if err != nil {
		return err
	}
	time.Sleep(3500 * time.Millisecond)
	later, err := s.many(100, spec{})
	if err != nil {
		return err
	}
	if first["new"] > 30 || later["new"] < 35 {
		return unseenf("answers %v at first, %v later", first, later)
	}
	return nil
}

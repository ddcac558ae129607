package proxyless

import (
	"context"
	"io"
	"log/slog"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
)

func quietLifecycle() *lifecycle { return newLifecycle(slog.New(slog.DiscardHandler)) }

func TestReadinessOfAConsumer(t *testing.T) {
	life := quietLifecycle()
	if ok, why := life.ready(); ok || !slices.Equal(why, []string{"nothing exported or referred yet"}) {
		t.Errorf("neither provider nor consumer: %v, %v", ok, why)
	}
	states := []referenceState{
		{Interface: "org.x.A", Version: "1.0.0", Answered: true},
		{Interface: "org.x.B", Group: "g", Problem: "no route"},
	}
	life.setReferences(func() []referenceState { return states })
	if ok, why := life.ready(); ok || !slices.Equal(why, []string{"g/org.x.B: the mesh has not answered yet: no route"}) {
		t.Errorf("one of two answered: %v, %v", ok, why)
	}
	states[1].Answered = true
	if ok, why := life.ready(); !ok || why != nil {
		t.Errorf("all answered: %v, %v", ok, why)
	}
	for name, probe := range map[string]func() (bool, []string){"live": life.live, "startup": life.startup} {
		if ok, _ := probe(); !ok {
			t.Errorf("%s is false", name)
		}
	}
}

func TestReadinessOfAProvider(t *testing.T) {
	var answered atomic.Bool
	r := serveTalk(t, &Config{ShutdownTimeout: time.Second}, serverHooks{answered: answered.Load}, func(s *Server) {
		exportTalk(s, "1.0.0")
		if ok, why := s.life.ready(); ok || !slices.Equal(why, []string{"a server was made but does not serve yet"}) {
			t.Errorf("before Serve: %v, %v", ok, why)
		}
	})
	conn := r.dial(t)
	states := func() string {
		return healthOf(t, conn, "") + " " + healthOf(t, conn, talkInterface) + " " + healthOf(t, conn, "org.x.Talk:1.0.0")
	}
	if ok, why := r.life.ready(); ok || !strings.Contains(strings.Join(why, ""), "inbound configuration") {
		t.Errorf("before the mesh answered: %v, %v", ok, why)
	}
	if got := states(); got != "NOT_SERVING NOT_SERVING NOT_SERVING" {
		t.Errorf("health before the mesh answered: %s", got)
	}
	answered.Store(true)
	if ok, why := r.life.ready(); !ok {
		t.Errorf("after the mesh answered: %v", why)
	}
	if got := states(); got != "SERVING SERVING SERVING" {
		t.Errorf("health after the mesh answered: %s", got)
	}
	if got := healthOf(t, conn, "org.x.Talk:2.0.0"); got != codes.NotFound.String() {
		t.Errorf("health of what is not exported: %s", got)
	}
	list, err := healthpb.NewHealthClient(conn).List(t.Context(), &healthpb.HealthListRequest{})
	if err != nil || len(list.Statuses) != 3 {
		t.Errorf("list = %v, %v", list, err)
	}
	r.stop()
	<-r.done
	if ok, why := r.life.ready(); ok || !strings.Contains(strings.Join(why, ""), "has stopped") {
		t.Errorf("after Serve: %v, %v", ok, why)
	}
	newServer(&Config{}, r.Server.log, r.life, serverHooks{}, nil)
	if ok, why := r.life.ready(); ok || !slices.Equal(why, []string{"a server was made but does not serve yet"}) {
		t.Errorf("with the next server: %v, %v", ok, why)
	}
}

func TestOfflineAndOnline(t *testing.T) {
	r := serveTalk(t, &Config{ShutdownTimeout: time.Second}, serverHooks{}, func(s *Server) {
		exportTalk(s, "1.0.0")
		exportTalk(s, "g/2.0.0")
	})
	conn := r.dial(t)
	steps := []struct {
		offline, pattern string
		found, ready     bool
		health           string // of the process, the interface, and the two exports
	}{
		{"offline", `org\.y\..*`, false, true, "SERVING SERVING SERVING SERVING"},
		{"offline", "Talk", false, true, "SERVING SERVING SERVING SERVING"},
		{"offline", "org.x.Talk:1.0.0", true, true, "SERVING SERVING NOT_SERVING SERVING"},
		{"offline", "g/.*", true, false, "NOT_SERVING NOT_SERVING NOT_SERVING NOT_SERVING"},
		{"online", "org.x.Talk", true, true, "SERVING SERVING SERVING SERVING"},
		{"offline", "", true, false, "NOT_SERVING NOT_SERVING NOT_SERVING NOT_SERVING"},
		{"online", ".*2.0.0", true, true, "SERVING SERVING NOT_SERVING SERVING"},
		{"online", "", true, true, "SERVING SERVING SERVING SERVING"},
	}
	for _, tt := range steps {
		change := r.life.online
		if tt.offline == "offline" {
			change = r.life.offline
		}
		if found, err := change(tt.pattern); found != tt.found || err != nil {
			t.Errorf("%s %s: found %v, %v", tt.offline, tt.pattern, found, err)
		}
		if ok, why := r.life.ready(); ok != tt.ready {
			t.Errorf("%s %s: ready %v, %v", tt.offline, tt.pattern, ok, why)
		}
		health := healthOf(t, conn, "") + " " + healthOf(t, conn, talkInterface) + " " +
			healthOf(t, conn, "org.x.Talk:1.0.0") + " " + healthOf(t, conn, "g/org.x.Talk:2.0.0")
		if health != tt.health {
			t.Errorf("%s %s: health %s, want %s", tt.offline, tt.pattern, health, tt.health)
		}
		if got, err := talkSay(talkContext(t.Context(), "1.0.0", "-"), conn, "Say", "x"); err != nil || got != "1.0.0:x" {
			t.Errorf("a call while offline: %q, %v", got, err)
		}
	}
	if _, err := r.life.offline("("); err == nil {
		t.Error("a pattern that cannot be read: no error")
	}
}

func TestReadinessTurnsAreLogged(t *testing.T) {
	log, logger := newTestLog()
	life := newLifecycle(logger)
	answered := false
	life.setReferences(func() []referenceState { return []referenceState{{Interface: "org.x.A", Answered: answered}} })
	for _, answered = range []bool{false, true, true, false} {
		life.refresh()
	}
	if got := log.String(); strings.Count(got, "msg=ready") != 1 || strings.Count(got, `msg="not ready" why="org.x.A: the mesh`) != 1 {
		t.Errorf("log:\n%s", got)
	}
}

func TestWatchersLearnOfChangesAndDoNotHoldTheDrain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := serveTalk(t, &Config{ShutdownDelay: time.Second, ShutdownTimeout: time.Hour}, serverHooks{}, func(s *Server) { exportTalk(s, "") })
		conn := r.dial(t)
		stream, err := healthpb.NewHealthClient(conn).Watch(context.Background(), &healthpb.HealthCheckRequest{Service: talkInterface})
		if err != nil {
			t.Fatal(err)
		}
		expect := func(want string) {
			t.Helper()
			if got, err := stream.Recv(); err != nil || got.Status.String() != want {
				t.Fatalf("watched %v, %v; want %s", got, err, want)
			}
		}
		expect("SERVING")
		r.life.offline("")
		expect("NOT_SERVING")
		r.life.online("")
		expect("SERVING")
		r.stop()
		expect("NOT_SERVING")
		if _, err := stream.Recv(); err == io.EOF || status.Code(err) != codes.Unavailable {
			t.Errorf("the end of the watch: %v", err)
		}
		began := time.Now()
		<-r.done
		if r.err != nil || time.Since(began) > time.Minute {
			t.Errorf("drained after %v: %v", time.Since(began), r.err)
		}
		conn.Close()
	})
}

package proxyless

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// askQoS is one request, from the loopback interface unless changed.
type askQoS struct {
	method, target, from, host, body string
	header                           map[string]string
}

func (a askQoS) of(h http.Handler) (code int, text string) {
	if a.method == "" {
		a.method = http.MethodGet
	}
	r := httptest.NewRequest(a.method, a.target, strings.NewReader(a.body))
	r.RemoteAddr, r.Host = "127.0.0.1:4711", "127.0.0.1:22222"
	if a.from != "" {
		r.RemoteAddr = a.from
	}
	if a.host != "" {
		r.Host = a.host
	}
	for name, value := range a.header {
		r.Header.Set(name, value)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w.Code, w.Body.String()
}

// qosOver is a QoS over a provider that serves two exports.
func qosOver(t *testing.T, c QoS, log *slog.Logger) (*qos, *serving) {
	t.Helper()
	r := serveTalk(t, &Config{ShutdownTimeout: time.Second}, serverHooks{}, func(s *Server) {
		exportTalk(s, "1.0.0")
		exportTalk(s, "g/2.0.0")
	})
	facts := qosFacts{
		application: "talk",
		config:      func() string { return "Application=talk" },
		snapshot:    func() any { return map[string]int{"listeners": 3} },
		security:    func() securityState { return r.security },
	}
	return newQoS(&Config{QoS: c}, log, r.life, facts), r
}

func quietQoS(t *testing.T, c QoS) (*qos, *serving) {
	t.Helper()
	return qosOver(t, c, slog.New(slog.DiscardHandler))
}

func TestQoSCommands(t *testing.T) {
	q, r := quietQoS(t, QoS{})
	r.life.setReferences(func() []referenceState {
		return []referenceState{
			{Interface: "org.x.Other", Version: "1.0.0", ProvidedBy: "other", Port: 50052, Answered: true, Endpoints: 3, Ready: 2},
		}
	})
	ls := `Application: talk
As Provider side:
+---------------------+--------+
|Provider Service Name|PUB     |
+---------------------+--------+
|g/org.x.Talk:2.0.0   |xds-A(Y)|
+---------------------+--------+
|org.x.Talk:1.0.0     |xds-A(Y)|
+---------------------+--------+
As Consumer side:
+---------------------+--------+
|Consumer Service Name|NUM     |
+---------------------+--------+
|org.x.Other:1.0.0    |xds-A(3)|
+---------------------+--------+
org.x.Other:1.0.0 from other port 50052: 2 of 3 endpoints connected
Identity: none
`
	steps := []struct {
		ask  askQoS
		code int
		text string // "..." at the end: only the beginning counts
	}{
		{askQoS{target: "/live"}, 200, "true"},
		{askQoS{target: "/startup"}, 200, "true"},
		{askQoS{target: "/ready"}, 200, "true"},
		{askQoS{target: "/ready/"}, 200, "true"},
		{askQoS{target: "/ls"}, 200, ls},
		{askQoS{target: "/version"}, 200, "proxyless version \"..."},
		{askQoS{target: "/help"}, 200, "+--------+---------+---..."},
		{askQoS{target: "/help/offline"}, 200, "+------------+-------------------------------------..."},
		{askQoS{target: "/help/fly"}, 200, "no such command:fly"},
		{askQoS{target: "/config"}, 200, "Application=talk"},
		{askQoS{target: "/snapshot"}, 200, "{\n  \"listeners\": 3\n}"},
		{askQoS{target: "/fly"}, 404, "no such command; /help lists them"},
		{askQoS{target: "/"}, 404, "no such command..."},
		{askQoS{target: "/offline/a/b"}, 404, "no such command..."},
		{askQoS{target: "/live", method: http.MethodPut}, 405, "use GET or POST"},
		{askQoS{target: "/offline", method: http.MethodHead}, 405, "use GET or POST"},
		{askQoS{target: "/live", method: http.MethodHead}, 200, "true"},

		{askQoS{target: "/offline/org.y"}, 200, "service not found"},
		{askQoS{target: "/offline/"}, 200, "service not found"},
		{askQoS{target: "/offline?service="}, 200, "service not found"},
		{askQoS{target: "/offline/("}, 400, "error parsing regexp..."},
		{askQoS{target: "/offline?x=%zz"}, 400, "cannot read the query..."},
		{askQoS{target: "/ready"}, 200, "true"},
		{askQoS{target: "/offline/g%2Forg.x.Talk:2.0.0"}, 200, "OK"},
		{askQoS{target: "/ready"}, 200, "true"},
		{askQoS{target: "/offline", method: http.MethodPost, body: "any=org.x.Talk%3A1.0.0&z=1"}, 200, "OK"},
		{askQoS{target: "/ready"}, 503, "false\ntaken offline through QoS"},
		{askQoS{target: "/ready", from: "10.0.0.1:1"}, 503, "false"},
		{askQoS{target: "/live"}, 200, "true"},
		{askQoS{target: "/online?any=.*"}, 200, "OK"},
		{askQoS{target: "/ready"}, 200, "true"},
		{askQoS{target: "/offline"}, 200, "OK"},
		{askQoS{target: "/ready"}, 503, "false..."},
		{askQoS{target: "/online?org.x.Talk"}, 200, "OK"},
		{askQoS{target: "/ready"}, 200, "true"},
		{askQoS{target: "/offline", method: http.MethodPost, body: strings.Repeat("a=b&", 1<<18) + "c"}, 413, "the form is larger than 1 MiB"},
	}
	for _, tt := range steps {
		code, text := tt.ask.of(q.handler())
		want, begins := strings.CutSuffix(tt.text, "...")
		if code != tt.code || text != want && !(begins && strings.HasPrefix(text, want)) {
			t.Errorf("%s %s: %d\n%s\nwant %d\n%s", tt.ask.method, tt.ask.target, code, text, tt.code, tt.text)
		}
	}
}

func TestQoSShowsWhatIsWrong(t *testing.T) {
	refuse := new(atomic.Pointer[Error])
	refuse.Store(&Error{Stage: StageProvider, Reason: "the mesh demands mutual TLS"})
	r := serveTalk(t, &Config{ShutdownTimeout: time.Second}, serverHooks{refuse: refuse}, func(s *Server) { exportTalk(s, "") })
	r.life.offline("")
	r.life.setReferences(func() []referenceState {
		return []referenceState{{Interface: "org.x.Other", Problem: "listener other: does not exist"}}
	})
	q := newQoS(&Config{}, slog.New(slog.DiscardHandler), r.life, qosFacts{
		snapshot: func() any { return func() {} }, security: func() securityState { return securityState{} }})
	_, text := askQoS{target: "/ls"}.of(q.handler())
	for _, want := range []string{
		"|org.x.Talk           |xds-A(N)|",
		"every call is refused: proxyless: provider: the mesh demands mutual TLS",
		"the mesh has not answered yet; listener other: does not exist",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("ls lacks %q:\n%s", want, text)
		}
	}
	if code, text := (askQoS{target: "/snapshot"}).of(q.handler()); code != 500 || !strings.Contains(text, "json") {
		t.Errorf("a snapshot that is no JSON: %d %s", code, text)
	}
}

const (
	qosStranger = "10.9.8.7:1"
	qosListed   = "192.168.1.5:1"
	qosLocal    = "127.0.0.1:1"
)

func TestQoSAccess(t *testing.T) {
	// Which of these the caller may run, by first letter: /live (PUBLIC), /ls
	// and /offline (PROTECTED), /config (PRIVATE).
	whitelist := []string{"192.168.1.*"}
	tests := []struct {
		name string
		qos  QoS
		from string
		may  string
	}{
		{"local", QoS{}, qosLocal, "live ls offline config"},
		{"local IPv6", QoS{}, "[::1]:1", "live ls offline config"},
		{"local IPv4 in IPv6", QoS{}, "[::ffff:127.0.0.1]:1", "live ls offline config"},
		{"another loopback address", QoS{}, "127.0.0.3:1", "live ls offline config"},
		{"through Istio's sidecar", QoS{}, "127.0.0.6:1", "live"},
		{"local, level NONE", QoS{AnonymousLevel: LevelNone}, qosLocal, "live ls offline config"},
		{"stranger", QoS{}, qosStranger, "live"},
		{"stranger IPv6", QoS{}, "[2001:db8::1]:1", "live"},
		{"no address", QoS{}, "@", "live"},
		{"stranger, acceptForeignIp raises nothing", QoS{AcceptForeignIP: true}, qosStranger, "live"},
		{"stranger, level NONE", QoS{AnonymousLevel: LevelNone}, qosStranger, ""},
		{"stranger, level NONE, acceptForeignIp", QoS{AnonymousLevel: LevelNone, AcceptForeignIP: true}, qosStranger, "live"},
		{"stranger, level PROTECTED", QoS{AnonymousLevel: LevelProtected}, qosStranger, "live ls offline"},
		{"stranger, level PRIVATE", QoS{AnonymousLevel: LevelPrivate}, qosStranger, "live ls offline config"},
		{"stranger, allowed commands", QoS{AllowCommands: []string{"ls", "config"}}, qosStranger, "live ls config"},
		{"stranger, allowed command, level NONE", QoS{AnonymousLevel: LevelNone, AllowCommands: []string{"live"}}, qosStranger, "live"},
		{"stranger, others are whitelisted", QoS{Whitelist: whitelist}, qosStranger, "live"},
		{"whitelisted", QoS{Whitelist: whitelist}, qosListed, "live ls offline"},
		{"whitelisted IPv4 in IPv6", QoS{Whitelist: whitelist}, "[::ffff:192.168.1.5]:1", "live ls offline"},
		{"whitelisted, level NONE", QoS{Whitelist: whitelist, AnonymousLevel: LevelNone}, qosListed, "live ls offline"},
		{"whitelisted, level PRIVATE", QoS{Whitelist: whitelist, AnonymousLevel: LevelPrivate}, qosListed, "live ls offline config"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			q, _ := quietQoS(t, tt.qos)
			var may []string
			for _, name := range []string{"live", "ls", "offline", "config"} {
				code, text := askQoS{target: "/" + name, from: tt.from}.of(q.handler())
				switch code {
				case http.StatusOK:
					may = append(may, name)
				case http.StatusForbidden:
					if !strings.Contains(text, "qosAnonymousAllowCommands="+name) {
						t.Errorf("%s: the refusal does not say what permits it: %s", name, text)
					}
				default:
					t.Errorf("%s: %d %s", name, code, text)
				}
			}
			if got := strings.Join(may, " "); got != tt.may {
				t.Errorf("may run %q, want %q", got, tt.may)
			}
		})
	}
}

func TestQoSHeadersGrantNothing(t *testing.T) {
	q, _ := quietQoS(t, QoS{Whitelist: []string{"192.168.1.5"}})
	for header, value := range map[string]string{"X-Forwarded-For": "127.0.0.1", "Forwarded": "for=127.0.0.1", "Via": "1.1 proxy", "X-Real-Ip": "127.0.0.1"} {
		ask := askQoS{target: "/ls", from: qosStranger, header: map[string]string{header: value}}
		if code, text := ask.of(q.handler()); code != http.StatusForbidden {
			t.Errorf("stranger with %s: %d %s", header, code, text)
		}
		if ask.from = qosLocal; header == "X-Real-Ip" {
			continue
		}
		if code, text := ask.of(q.handler()); code != http.StatusForbidden {
			t.Errorf("relayed with %s: %d %s", header, code, text)
		}
	}
}

func TestQoSKeepsBrowsersFromWhatChangesAnything(t *testing.T) {
	q, r := quietQoS(t, QoS{})
	tests := []struct {
		name  string
		ask   askQoS
		wants int
	}{
		{"a page's form", askQoS{header: map[string]string{"Origin": "http://evil.example"}}, 403},
		{"an image", askQoS{header: map[string]string{"Referer": "http://evil.example/"}}, 403},
		{"an image without referrer", askQoS{header: map[string]string{"Sec-Fetch-Site": "cross-site"}}, 403},
		{"a rebound name", askQoS{host: "evil.example:22222"}, 403},
		{"no referrer, typed by hand", askQoS{header: map[string]string{"Sec-Fetch-Site": "none"}}, 200},
		{"localhost", askQoS{host: "localhost:22222"}, 200},
		{"IPv6", askQoS{host: "[::1]:22222"}, 200},
		{"IPv6 without port", askQoS{host: "[::1]"}, 200},
	}
	for _, tt := range tests {
		for _, target := range []string{"/online", "/config", "/snapshot"} {
			tt.ask.target = target
			if code, text := tt.ask.of(q.handler()); code != tt.wants {
				t.Errorf("%s, %s: %d %s", tt.name, target, code, text)
			}
		}
		tt.ask.target = "/ready"
		if code, text := tt.ask.of(q.handler()); code != 200 {
			t.Errorf("%s, probe: %d %s", tt.name, code, text)
		}
	}
	if ok, why := r.life.ready(); !ok {
		t.Errorf("not ready: %v", why)
	}
}

func TestQoSAudit(t *testing.T) {
	log, logger := newTestLog()
	q, _ := qosOver(t, QoS{Whitelist: []string{"wherever"}}, logger)
	askQoS{target: "/offline/org.x.Talk"}.of(q.handler())
	askQoS{target: "/offline", from: qosStranger}.of(q.handler())
	askQoS{target: "/ls", from: qosStranger}.of(q.handler())
	got := log.String()
	for _, want := range []string{
		`level=INFO msg="QoS command" command=offline args=[org.x.Talk] caller=127.0.0.1:4711 status=200`,
		`level=WARN msg="QoS command" command=offline args=[] caller=10.9.8.7:1 status=403`,
	} {
		if !strings.Contains(got, want) {
			t.Errorf("log lacks %s:\n%s", want, got)
		}
	}
	if strings.Contains(got, "command=ls") {
		t.Errorf("reading is logged:\n%s", got)
	}
}

func TestQoSOverTheWire(t *testing.T) {
	log, logger := newTestLog()
	q, _ := qosOver(t, QoS{Host: "127.0.0.1", Port: -1, Whitelist: []string{"wherever"}}, logger)
	if q.addr() != nil {
		t.Errorf("address before start: %v", q.addr())
	}
	q.close(t.Context()) // nothing to close yet
	if err := q.start(); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(log.String(), "entry=wherever") {
		t.Errorf("the whitelist entry that means nothing is not reported:\n%s", log)
	}
	client := &http.Client{Transport: &http.Transport{}}
	answer, err := client.Get("http://" + q.addr().String() + "/ready")
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(answer.Body)
	answer.Body.Close()
	if err != nil || string(body) != "true" || answer.StatusCode != 200 || answer.Header.Get("Content-Type") != "text/plain; charset=utf-8" || !answer.Close {
		t.Errorf("%v %q %v", answer, body, err)
	}
	second := newQoS(&Config{QoS: QoS{Host: "127.0.0.1", Port: q.addr().(*net.TCPAddr).Port}}, slog.New(slog.DiscardHandler), quietLifecycle(), qosFacts{})
	var e *Error
	if err := second.start(); !errors.As(err, &e) || !strings.Contains(err.Error(), "qosPort") {
		t.Errorf("port in use: %v", err)
	}
	q.close(t.Context())
	if _, err := client.Get("http://" + q.addr().String() + "/ready"); err == nil {
		t.Error("the port answers after close")
	}
}

func TestQoSCloseDoesNotWaitForever(t *testing.T) {
	q, r := quietQoS(t, QoS{Host: "127.0.0.1", Port: -1})
	asked, finish := make(chan struct{}), make(chan struct{})
	var once sync.Once
	r.life.setReferences(func() []referenceState { return nil })
	q.facts.config = func() string {
		once.Do(func() { close(asked) })
		<-finish
		return ""
	}
	if err := q.start(); err != nil {
		t.Fatal(err)
	}
	gone := make(chan struct{})
	go func() { // ended by the answer or the cut
		defer close(gone)
		if answer, err := http.Get("http://" + q.addr().String() + "/config"); err == nil {
			answer.Body.Close()
		}
	}()
	<-asked
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	q.close(ctx)
	close(finish)
	<-gone
}

func TestHostPatterns(t *testing.T) {
	tests := []struct {
		entry        string
		matches, not []string
	}{
		{"10.1.2.3", []string{"10.1.2.3:1", "[::ffff:10.1.2.3]:1"}, []string{"10.1.2.4:1"}},
		{" 10.1.2.3 ", []string{"10.1.2.3:1"}, nil},
		{"::ffff:10.1.2.3", []string{"10.1.2.3:1"}, nil},
		{"10.0.0.0/8", []string{"10.1.2.3:1", "[::ffff:10.1.2.3]:1"}, []string{"11.0.0.1:1", "[2001:db8::1]:1"}},
		{"10.1.2.3/8", []string{"10.9.9.9:1"}, nil},
		{"::ffff:10.0.0.0/104", []string{"10.1.2.3:1"}, []string{"11.0.0.1:1"}},
		{"10.*.2.*", []string{"10.0.2.0:1", "10.255.2.255:1"}, []string{"10.0.3.0:1", "11.0.2.0:1"}},
		{"10.1.2.1-20", []string{"10.1.2.1:1", "10.1.2.20:1"}, []string{"10.1.2.21:1", "10.1.2.0:1"}},
		{"2001:db8::/32", []string{"[2001:db8::1]:1", "[2001:db8::1%eth0]:1"}, []string{"[2001:db9::1]:1"}},
		{"2001:db8:0:0:0:0:0:*", []string{"[2001:db8::ffff]:1"}, []string{"[2001:db8::1:0]:1", "10.1.2.3:1"}},
		{"fe80::1", []string{"[fe80::1%eth0]:1"}, nil},
		{"*.*.*.*", []string{"10.1.2.3:1"}, []string{"[2001:db8::1]:1", "@"}},
	}
	for _, tt := range tests {
		a, bad := newAccess(QoS{Whitelist: []string{tt.entry}})
		if bad != nil {
			t.Errorf("%s means nothing", tt.entry)
			continue
		}
		check := func(froms []string, want Level) {
			for _, from := range froms {
				if got := a.level(&http.Request{RemoteAddr: from}); got != want {
					t.Errorf("%s: %s has %v, want %v", tt.entry, from, got, want)
				}
			}
		}
		check(tt.matches, LevelProtected)
		check(tt.not, LevelPublic)
	}
	for _, entry := range []string{"", "*", "host", "10.1.2", "10.1.2.256", "10.1.2.20-1", "10.1.2.-", "10.1.2.3/33", "1:2:3:*", "10.1.2.3.4"} {
		if _, bad := newAccess(QoS{Whitelist: []string{entry}}); bad == nil {
			t.Errorf("%q means something", entry)
		}
	}
}

func FuzzHostPattern(f *testing.F) {
	for _, entry := range []string{"10.1.2.3", "10.0.0.0/8", "10.*.2.1-20", "2001:db8:0:0:0:0:0:*", "fe80::1%eth0", "-"} {
		f.Add(entry, "10.1.2.3:4711")
	}
	f.Fuzz(func(t *testing.T, entry, from string) {
		a, bad := newAccess(QoS{Whitelist: []string{entry}})
		r := &http.Request{RemoteAddr: from}
		level := a.level(r)
		if len(bad) > 0 && level == LevelProtected {
			t.Errorf("%q means nothing and yet admits %s", entry, from)
		}
		if level == LevelPrivate && !callerOf(r).IsLoopback() {
			t.Errorf("%s counts as local", from)
		}
	})
}

func FuzzQoSRequest(f *testing.F) {
	for _, target := range []string{"/ls", "/offline/a%2Fb", "/offline?a=b&c=%20d", "/a/b/c", "//", "/%zz"} {
		f.Add(target, "a=b")
	}
	f.Fuzz(func(t *testing.T, path, form string) {
		name, args, ok := splitPath(path)
		if ok == (name == "") || !ok && args != nil {
			t.Errorf("%q: %q %q %v: a result and a refusal, or neither", path, name, args, ok)
		}
		if values, err := formValues(form); err != nil && values != nil {
			t.Errorf("%q: error and values", form)
		}
	})
}

// TestLsNamesWhatTheLeanViewLeavesOut for who exports something.
func TestLsNamesWhatTheLeanViewLeavesOut(t *testing.T) {
	for _, gaps := range []string{"", leanGaps} {
		q, _ := quietQoS(t, QoS{})
		q.facts.gaps = gaps
		_, text := askQoS{target: "/ls"}.of(q.handler())
		if strings.Contains(text, "not enforced: in the lean view") != (gaps != "") {
			t.Errorf("%q: %s", gaps, text)
		}
	}
}

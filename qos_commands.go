package proxyless

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"runtime/debug"
	"strings"
	"time"
	"unicode/utf8"

	"google.golang.org/grpc/metadata"
)

const modulePath = "github.com/proxyless/proxyless"

// command is one row of the table of what QoS can do and who may do it.
type command struct {
	name    string
	level   Level
	changes bool // audited, and kept from browsers
	summary string
	example string
	run     func(*qos, *qosCall) qosAnswer
}

// qosCall is one use of a command by a caller who may.
type qosCall struct {
	ctx   context.Context // ends when the caller goes
	args  []string
	query string // as it came, for commands that look at names
	level Level  // of the caller
}

func (c *qosCall) arg() string {
	if len(c.args) == 0 {
		return ""
	}
	return c.args[0]
}

// qosCommands is the table. Names, levels, words and codes are Dubbo 3.2's,
// with these deviations:
//   - /ready says false on its first line; callers with PROTECTED find the
//     reasons on the next ones. A consumer and a process that is neither
//     provider nor consumer yet wait for the mesh too, see lifecycle.ready.
//   - /ls shows whether calls are wanted (Y or N) and how many endpoints are
//     known, and then who this process is in the mesh and what its ports take;
//     there is no interface-level registry to show.
//   - /offline and /online work on the health service and on readiness, since
//     Kubernetes and not the process says what the mesh sends to; see
//     lifecycle.offline. Patterns are Go's regular expressions, matched as a
//     whole against [group/]interface[:version] and the bare interface; one
//     that cannot be read is answered with 400.
//   - /version names proxyless.
//   - /config, /coverage, /explain, /security and /snapshot are additions; Dubbo's
//     getConfig has their level.
func qosCommands() []command {
	return []command{
		{"config", LevelPrivate, false, "the effective configuration, secrets left out", "/config", (*qos).runConfig},
		{"coverage", LevelPrivate, false, "what of the mesh's configuration is applied, ignored, rejected", "/coverage or /coverage/json", (*qos).runCoverage},
		{"explain", LevelPrivate, false, "where a call would go, and why not elsewhere", "/explain?service=greeting&method=org.x.Greet/hello&header=user:jason&format=json", (*qos).runExplain},
		{"help", LevelProtected, false, "the commands, or one of them", "/help/ls", (*qos).runHelp},
		{"live", LevelPublic, false, "liveness probe: the process answers, whatever the mesh does", "/live", (*qos).runLive},
		{"ls", LevelProtected, false, "what is exported and referred to", "/ls", (*qos).runLs},
		{"offline", LevelProtected, true, "take exports out of service; calls are served on", "/offline or /offline/org.x.Greet:1.0.0", (*qos).runOffline},
		{"online", LevelProtected, true, "put exports back into service", "/online or /online/org.x.Greet.*", (*qos).runOnline},
		{"ready", LevelPublic, false, "readiness probe: everything exported and referred to is known to the mesh", "/ready", (*qos).runReady},
		{"security", LevelPrivate, false, "identity, what each port takes, who speaks plain text", "/security or /security/json", (*qos).runSecurity},
		{"snapshot", LevelPrivate, false, "what the mesh told, as JSON", "/snapshot", (*qos).runSnapshot},
		{"startup", LevelPublic, false, "startup probe: Join has returned", "/startup", (*qos).runStartup},
		{"version", LevelProtected, false, "the version of proxyless", "/version", (*qos).runVersion},
	}
}

// command finds a command by its name, nil if there is none.
func (q *qos) command(name string) *command {
	for i := range q.commands {
		if q.commands[i].name == name {
			return &q.commands[i]
		}
	}
	return nil
}

// accepts reports whether the command may be called with the HTTP method. HEAD
// promises to change nothing.
func (c *command) accepts(method string) bool {
	return method == http.MethodGet || method == http.MethodPost || method == http.MethodHead && !c.changes
}

func said(text string) qosAnswer { return qosAnswer{http.StatusOK, text} }

func (q *qos) runLive(c *qosCall) qosAnswer    { return c.probe(q.life.live()) }
func (q *qos) runStartup(c *qosCall) qosAnswer { return c.probe(q.life.startup()) }
func (q *qos) runReady(c *qosCall) qosAnswer   { return c.probe(q.life.ready()) }

func (c *qosCall) probe(ok bool, why []string) qosAnswer {
	if ok {
		return said("true")
	}
	text := "false"
	if c.level >= LevelProtected {
		text = strings.Join(append([]string{text}, why...), "\n")
	}
	return qosAnswer{http.StatusServiceUnavailable, text}
}

func (q *qos) runOffline(c *qosCall) qosAnswer { return c.switchWith(q.life.offline) }
func (q *qos) runOnline(c *qosCall) qosAnswer  { return c.switchWith(q.life.online) }

// switchWith takes an argument that is there but empty for a script's unset
// variable: it matches nothing, as in Dubbo, where no argument matches all.
func (c *qosCall) switchWith(change func(pattern string) (bool, error)) qosAnswer {
	if len(c.args) > 0 && c.arg() == "" {
		return said("service not found")
	}
	found, err := change(c.arg())
	switch {
	case err != nil:
		return qosAnswer{http.StatusBadRequest, err.Error()}
	case !found:
		return said("service not found")
	}
	return said("OK")
}

func (q *qos) runVersion(*qosCall) qosAnswer {
	return said(fmt.Sprintf("proxyless version %q", moduleVersion()))
}

// moduleVersion is the version of this module that the program was built with;
// "(devel)" inside the module itself.
func moduleVersion() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	for _, dependency := range info.Deps {
		if dependency.Path == modulePath {
			return dependency.Version
		}
	}
	return info.Main.Version
}

func (q *qos) runConfig(*qosCall) qosAnswer { return said(q.facts.config()) }

func (q *qos) runSnapshot(*qosCall) qosAnswer {
	return asJSON(q.facts.snapshot())
}

func (q *qos) runCoverage(c *qosCall) qosAnswer {
	rows := q.facts.coverage()
	if c.arg() == "json" {
		return asJSON(rows)
	}
	var b strings.Builder
	for _, row := range rows {
		b.WriteString(row.String())
	}
	return said(b.String())
}

// explainTime bounds the wait for what the mesh says of a service that nothing
// referred to.
const explainTime = 10 * time.Second

// runExplain looks at the names of its arguments: service and method, any number
// of header=name:value, and format=json.
func (q *qos) runExplain(c *qosCall) qosAnswer {
	query, err := url.ParseQuery(c.query)
	service, method := query.Get("service"), query.Get("method")
	if err != nil || service == "" || method == "" {
		return qosAnswer{http.StatusBadRequest, "which call? /explain?service=NAME&method=PACKAGE.SERVICE/METHOD&header=NAME:VALUE"}
	}
	md := metadata.MD{}
	for _, header := range query["header"] {
		name, value, _ := strings.Cut(header, ":")
		md.Append(strings.TrimSpace(name), strings.TrimSpace(value))
	}
	ctx, cancel := context.WithTimeout(c.ctx, explainTime)
	defer cancel()
	x, err := q.facts.explain(ctx, service, method, md)
	switch {
	case err != nil:
		return qosAnswer{http.StatusInternalServerError, err.Error()}
	case query.Get("format") == "json":
		return asJSON(x)
	}
	return said(x.String())
}

func asJSON(value any) qosAnswer {
	text, err := json.MarshalIndent(value, "", "  ")
	if err != nil {
		return qosAnswer{http.StatusInternalServerError, err.Error()}
	}
	return said(string(text))
}

func (q *qos) runHelp(c *qosCall) qosAnswer {
	if len(c.args) == 0 {
		rows := make([][]string, len(q.commands))
		for i, each := range q.commands {
			rows[i] = []string{each.name, each.level.String(), each.summary}
		}
		return said(table([]string{"COMMAND", "LEVEL", "SUMMARY"}, rows))
	}
	named := q.command(c.arg())
	if named == nil {
		return said("no such command:" + c.arg())
	}
	return said(table([]string{"COMMAND NAME", named.name}, [][]string{
		{"SUMMARY", named.summary}, {"LEVEL", named.level.String()}, {"EXAMPLE", named.example},
	}))
}

func (q *qos) runLs(*qosCall) qosAnswer {
	exports, references := q.life.exports(), q.life.referenceStates()
	var published, subscribed [][]string
	for _, e := range exports {
		published = append(published, []string{e.Key, "xds-A(" + yesNo(e.Serving) + ")"})
	}
	for _, r := range references {
		subscribed = append(subscribed, []string{r.key(), fmt.Sprintf("xds-A(%d)", r.Endpoints)})
	}
	var b strings.Builder
	fmt.Fprintf(&b, "Application: %s\n", q.facts.application)
	b.WriteString("As Provider side:\n")
	b.WriteString(table([]string{"Provider Service Name", "PUB"}, published))
	if err := q.life.refusal(); err != nil {
		fmt.Fprintf(&b, "every call is refused: %v\n", err)
	}
	if len(exports) > 0 && q.facts.gaps != "" {
		b.WriteString("not enforced: " + q.facts.gaps + "\n")
	}
	b.WriteString("As Consumer side:\n")
	b.WriteString(table([]string{"Consumer Service Name", "NUM"}, subscribed))
	for _, r := range references {
		b.WriteString(r.line())
	}
	security := q.facts.security()
	b.WriteString(security.text(plainTextInLs))
	return said(b.String())
}

func yesNo(yes bool) string {
	if yes {
		return "Y"
	}
	return "N"
}

// line tells where a reference goes and how far it got.
func (r referenceState) line() string {
	text := fmt.Sprintf("%s from %s port %d: %d of %d endpoints connected", r.key(), r.ProvidedBy, r.Port, r.Ready, r.Endpoints)
	if !r.Answered {
		text += "; the mesh has not answered yet"
	}
	if r.Problem != "" {
		text += "; " + r.Problem
	}
	return text + "\n"
}

// table draws rows in Dubbo's frame.
func table(head []string, rows [][]string) string {
	widths := make([]int, len(head))
	for _, row := range append([][]string{head}, rows...) {
		for i, cell := range row {
			widths[i] = max(widths[i], utf8.RuneCountInString(cell))
		}
	}
	var rule, b strings.Builder
	for _, width := range widths {
		rule.WriteString("+" + strings.Repeat("-", width))
	}
	rule.WriteString("+\n")
	b.WriteString(rule.String())
	for _, row := range append([][]string{head}, rows...) {
		for i, cell := range row {
			b.WriteString("|" + cell + strings.Repeat(" ", widths[i]-utf8.RuneCountInString(cell)))
		}
		b.WriteString("|\n")
		b.WriteString(rule.String())
	}
	return b.String()
}

package proxyless

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc/metadata"
)

// Limits of a QoS request.
const (
	qosHeaderTimeout = 5 * time.Second
	qosReadTimeout   = 10 * time.Second
	qosWriteTimeout  = 30 * time.Second // a large snapshot over a slow line
	qosHeaderLimit   = 16 << 10
	qosBodyLimit     = 1 << 20 // as Dubbo
)

// qos is the HTTP port of probes and commands, after Dubbo's QoS: a command is
// GET /name, its arguments the values of the query in their order whatever
// their names (/offline?any=v1), a second segment of the path (/offline/v1), or
// a form that is posted. Answers are plain text with Dubbo's words and codes:
// 200, 403 without permission (see access), 404 for a command that does not
// exist, 500 with a message when one fails.
//
// Deviations from Dubbo 3.2: no telnet, and none of the commands that call
// services, change logging or end the process; 404 has a sentence where
// Dubbo's is empty; 405 for other methods than GET, HEAD and POST; 400 for
// arguments that cannot be read; commands that change something are logged
// with caller and outcome.
type qos struct {
	// Constant after newQoS.
	cfg      *Config
	log      *slog.Logger
	life     *lifecycle
	facts    qosFacts
	access   access
	ignored  []string // whitelist entries that mean nothing
	commands []command
	server   *http.Server

	// Set by start.
	listener net.Listener
	ended    chan struct{} // closed when serving has ended
}

// qosFacts is what QoS shows of the process, beside the lifecycle.
type qosFacts struct {
	application string
	gaps        string        // what of the mesh's rules a provider is not told; empty for nothing
	config      func() string // the effective configuration, secrets left out
	snapshot    func() any    // what the mesh told, for encoding/json
	coverage    func() []ResourceCoverage
	security    func() securityState
	explain     func(ctx context.Context, service, method string, md metadata.MD) (*Explanation, error)
}

func newQoS(cfg *Config, log *slog.Logger, life *lifecycle, facts qosFacts) *qos {
	q := &qos{cfg: cfg, log: log, life: life, facts: facts, commands: qosCommands()}
	q.access, q.ignored = newAccess(cfg.QoS)
	q.server = &http.Server{
		Handler:                      q.handler(),
		ReadHeaderTimeout:            qosHeaderTimeout,
		ReadTimeout:                  qosReadTimeout,
		WriteTimeout:                 qosWriteTimeout,
		MaxHeaderBytes:               qosHeaderLimit,
		DisableGeneralOptionsHandler: true,
		ErrorLog:                     slog.NewLogLogger(log.Handler(), slog.LevelWarn),
	}
	q.server.SetKeepAlivesEnabled(false) // Dubbo closes after each answer
	return q
}

// start opens the port. It returns an [*Error] of [StageConfig] if it cannot;
// QoS.Check says whether that matters.
func (q *qos) start() error {
	for _, entry := range q.ignored {
		q.log.Warn("QoS whitelist entry means nothing and admits nobody: use an address, a wildcard or a CIDR block", "entry", entry)
	}
	address := net.JoinHostPort(q.cfg.QoS.Host, strconv.Itoa(max(0, q.cfg.QoS.Port))) // negative: any free one
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return &Error{
			Stage: StageConfig, Resource: "QoS " + address, Reason: "cannot listen", Err: err,
			Advice: "set QoS.Port (dubbo.application.qosPort) or QoS.Host (dubbo.application.qosHost), or QoS.Disabled (dubbo.application.qosEnable=false)",
		}
	}
	q.listener, q.ended = listener, make(chan struct{})
	go q.serve() // ended by close
	return nil
}

func (q *qos) serve() {
	defer close(q.ended)
	if err := q.server.Serve(q.listener); !errors.Is(err, http.ErrServerClosed) {
		q.log.Error("QoS stopped", keyError, err)
	}
}

// addr is the address of the port, nil before start.
func (q *qos) addr() net.Addr {
	if q.listener == nil {
		return nil
	}
	return q.listener.Addr()
}

// close lets requests finish until ctx ends, and frees the port.
func (q *qos) close(ctx context.Context) {
	if q.listener == nil {
		return
	}
	if err := q.server.Shutdown(ctx); err != nil {
		q.server.Close()
	}
	<-q.ended
}

func (q *qos) handler() http.Handler { return http.HandlerFunc(q.serveHTTP) }

func (q *qos) serveHTTP(w http.ResponseWriter, r *http.Request) {
	answer := q.answer(w, r)
	h := w.Header()
	h.Set("Content-Type", "text/plain; charset=utf-8")
	h.Set("Content-Length", strconv.Itoa(len(answer.text)))
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cache-Control", "no-store")
	w.WriteHeader(answer.code)
	io.WriteString(w, answer.text)
}

// qosAnswer is an HTTP status and what is said.
type qosAnswer struct {
	code int
	text string
}

// answer runs the checks from the cheapest to the command itself.
func (q *qos) answer(w http.ResponseWriter, r *http.Request) qosAnswer {
	name, args, ok := splitPath(r.URL.EscapedPath())
	c := q.command(name)
	if !ok || c == nil {
		return qosAnswer{http.StatusNotFound, "no such command; /help lists them"}
	}
	if !c.accepts(r.Method) {
		w.Header().Set("Allow", "GET, POST")
		return qosAnswer{http.StatusMethodNotAllowed, "use GET or POST"}
	}
	if refusal := q.access.refusal(c, r); refusal != "" {
		q.audit(c, r, args, http.StatusForbidden)
		return qosAnswer{http.StatusForbidden, refusal}
	}
	more, failure := arguments(w, r)
	if failure != nil {
		return *failure
	}
	args = append(args, more...)
	answer := c.run(q, &qosCall{ctx: r.Context(), args: args, query: r.URL.RawQuery, level: q.access.level(r)})
	q.audit(c, r, args, answer.code)
	return answer
}

// audit logs the use, and the attempted use, of commands that change something.
func (q *qos) audit(c *command, r *http.Request, args []string, code int) {
	if !c.changes {
		return
	}
	level := slog.LevelInfo
	if code == http.StatusForbidden {
		level = slog.LevelWarn
	}
	q.log.Log(r.Context(), level, "QoS command", "command", c.name, "args", args, "caller", r.RemoteAddr, "status", code)
}

// splitPath reads /name and /name/argument.
func splitPath(escaped string) (name string, args []string, ok bool) {
	name, arg, hasArg := strings.Cut(strings.TrimPrefix(escaped, "/"), "/")
	if name == "" || strings.Contains(arg, "/") {
		return "", nil, false
	}
	if !hasArg {
		return name, nil, true
	}
	arg, err := url.PathUnescape(arg)
	if err != nil {
		return "", nil, false
	}
	return name, []string{arg}, true
}

// arguments reads the values of the query and of a posted form, in order.
func arguments(w http.ResponseWriter, r *http.Request) ([]string, *qosAnswer) {
	args, err := formValues(r.URL.RawQuery)
	if err != nil {
		return nil, &qosAnswer{http.StatusBadRequest, "cannot read the query: " + err.Error()}
	}
	if r.Method != http.MethodPost {
		return args, nil
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, qosBodyLimit))
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		return nil, &qosAnswer{http.StatusRequestEntityTooLarge, "the form is larger than 1 MiB"}
	case err != nil:
		return nil, &qosAnswer{http.StatusBadRequest, "cannot read the form: " + err.Error()}
	}
	posted, err := formValues(string(body))
	if err != nil {
		return nil, &qosAnswer{http.StatusBadRequest, "cannot read the form: " + err.Error()}
	}
	return append(args, posted...), nil
}

// formValues is url.ParseQuery that keeps the order and drops the names. What
// has no name is a value too.
func formValues(encoded string) ([]string, error) {
	var values []string
	for pair := range strings.SplitSeq(encoded, "&") {
		if pair == "" {
			continue
		}
		_, value, named := strings.Cut(pair, "=")
		if !named {
			value = pair
		}
		value, err := url.QueryUnescape(value)
		if err != nil {
			return nil, err
		}
		values = append(values, value)
	}
	return values, nil
}

package control

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"path"
	"runtime"
	"runtime/debug"
	"strings"
	"time"

	"github.com/casemate-dev/casemate/api"
	"github.com/casemate-dev/casemate/api/problem"
	"github.com/casemate-dev/casemate/internal/identity"
)

const (
	keyPrefix  = "cm_" // of API keys, which must not end up in logs as an id
	healthPath = "/healthz"
)

// exchange is one request and what has been found out about it.
type exchange struct {
	id      string
	who     identity.Principal
	request *http.Request
	started time.Time
	http.ResponseWriter
	status int
}

type exchangeKey struct{}

// exchangeOf gives the exchange that a context belongs to.
func exchangeOf(ctx context.Context) *exchange {
	x, _ := ctx.Value(exchangeKey{}).(*exchange)
	return x
}

// WriteHeader notes the status for the access record.
func (x *exchange) WriteHeader(status int) {
	if x.status == 0 {
		x.status = status
	}
	x.ResponseWriter.WriteHeader(status)
}

// Write notes that the answer has begun.
func (x *exchange) Write(b []byte) (int, error) {
	if x.status == 0 {
		x.status = http.StatusOK
	}
	return x.ResponseWriter.Write(b)
}

// Unwrap lets http.ResponseController reach the server's writer.
func (x *exchange) Unwrap() http.ResponseWriter { return x.ResponseWriter }

// ServeHTTP runs the stages.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	x := &exchange{id: h.requestID(r), ResponseWriter: w, started: h.cfg.Clock()}
	w.Header().Set(api.RequestIDHeader, x.id)
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	x.request = r.WithContext(context.WithValue(r.Context(), exchangeKey{}, x))
	pattern := ""
	defer func() {
		if v := recover(); v != nil {
			if err, ok := v.(error); ok && errors.Is(err, http.ErrAbortHandler) {
				panic(v)
			}
			h.logPanic(r.Context(), x, v)
			if x.status == 0 {
				problem.Write(x, problem.New(problem.Internal, "something went wrong on our side"), x.id)
			}
		}
		h.cfg.Logger.LogAttrs(r.Context(), slog.LevelInfo, "request",
			slog.String("request_id", x.id), slog.String("principal", x.who.String()), slog.String("method", r.Method),
			slog.String("route", pattern), slog.Int("status", x.status), slog.Duration("took", h.cfg.Clock().Sub(x.started)),
			slog.String("remote", remoteIP(r.RemoteAddr)))
	}()
	var err error
	if pattern, err = h.route(x); err != nil {
		h.refuse(x, err)
		return
	}
	h.mux.ServeHTTP(x, x.request)
}

// logPanic keeps to what cannot be a credential: the value of a panic may be
// anything, but what the runtime itself says is not.
func (h *Handler) logPanic(ctx context.Context, x *exchange, v any) {
	attrs := []slog.Attr{
		slog.String("request_id", x.id), slog.String("type", fmt.Sprintf("%T", v)), slog.String("stack", string(debug.Stack())),
	}
	if err, ok := v.(runtime.Error); ok {
		attrs = append(attrs, slog.String("error", err.Error()))
	}
	h.cfg.Logger.LogAttrs(ctx, slog.LevelError, "defect in the control door", attrs...)
}

// remoteIP is the address without its port.
func remoteIP(addr string) string {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return addr
	}
	return host
}

// route authenticates and finds the operation, in this order.
func (h *Handler) route(x *exchange) (pattern string, err error) {
	r := x.request
	if r.URL.Path != healthPath {
		if x.who, err = h.authenticate(r); err != nil {
			return "", err
		}
	}
	if !strings.HasPrefix(r.URL.Path, "/") || path.Clean(r.URL.Path) != r.URL.Path || r.Method == http.MethodConnect {
		return "", problem.New(problem.InvalidPath, "the path is not in canonical form")
	}
	if _, pattern = h.mux.Handler(r); pattern != "" {
		return pattern, nil
	}
	var allowed []string
	for _, m := range []string{http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodDelete} {
		probe := r.Clone(r.Context())
		probe.Method = m
		if _, p := h.mux.Handler(probe); p != "" {
			allowed = append(allowed, m)
		}
	}
	if len(allowed) > 0 {
		x.Header().Set("Allow", strings.Join(allowed, ", "))
		return "", problem.New(problem.MethodNotAllowed, "%.20q is not a method of this path", r.Method)
	}
	return "", problem.New(problem.NotFound, "the API has no such path").Fix("See /openapi.json for what there is.")
}

// authenticate finds out who calls. Every reason for not knowing looks alike.
func (h *Handler) authenticate(r *http.Request) (identity.Principal, error) {
	refused := problem.New(problem.Unauthenticated, "no valid API key came with the request")
	given := r.Header["Authorization"]
	if len(given) != 1 {
		return identity.Principal{}, refused
	}
	scheme, presented, ok := strings.Cut(given[0], " ")
	if !ok || !strings.EqualFold(scheme, "Bearer") || presented == "" {
		return identity.Principal{}, refused
	}
	who, err := h.cfg.Keys.Verify(presented)
	if err != nil {
		return identity.Principal{}, refused.Because(err)
	}
	return who, nil
}

// refuse answers with a problem and logs what the caller is not told.
func (h *Handler) refuse(x *exchange, err error) {
	e := problem.From(err)
	h.logProblem(x, e)
	if e.Code == problem.Unauthenticated {
		x.Header().Set("WWW-Authenticate", `Bearer realm="casemate"`)
	}
	problem.Write(x, e, x.id)
}

func (h *Handler) logProblem(x *exchange, e *problem.Error) {
	level := slog.LevelDebug
	if problem.Lookup(e.Code).Status >= http.StatusInternalServerError {
		level = slog.LevelError
	}
	cause := ""
	if c := e.Unwrap(); c != nil {
		cause = c.Error()
	}
	h.cfg.Logger.LogAttrs(x.request.Context(), level, "refused", slog.String("request_id", x.id),
		slog.String("principal", x.who.String()), slog.String("code", string(e.Code)), slog.String("detail", e.Detail), slog.String("cause", cause))
}

// requestID takes the caller's id when it is well-formed, else makes one.
func (h *Handler) requestID(r *http.Request) string {
	if given := r.Header[api.RequestIDHeader]; len(given) == 1 && validRequestID(given[0]) {
		return given[0]
	}
	return h.cfg.NewID()
}

func validRequestID(s string) bool {
	if s == "" || len(s) > maxRequestID || strings.HasPrefix(s, keyPrefix) {
		return false
	}
	return strings.IndexFunc(s, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '.' && r != '_' && r != '-'
	}) < 0
}

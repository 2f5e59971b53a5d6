package gateway

import (
	"net/http"
	"net/url"
	"strings"

	"github.com/casemate-dev/casemate/api/problem"
	"github.com/casemate-dev/casemate/internal/function"
)

// healthPath answers whether this node takes requests, and nothing else about it.
const healthPath = reservedPrefix + "/healthz"

// probe asks a mux where a request would go. The mux sees a ResponseWriter;
// nothing it writes there, a 404 or a redirect, reaches anybody.
type probe struct {
	found  *endpoint
	header http.Header
}

func (p *probe) Header() http.Header {
	if p.header == nil {
		p.header = make(http.Header)
	}
	return p.header
}

func (p *probe) WriteHeader(int)             {}
func (p *probe) Write(b []byte) (int, error) { return len(b), nil }

// route finds the endpoint. Nothing is ever redirected: a path is served as it
// stands or not at all.
func (g *Gateway) route(x *exchange) error {
	path := x.r.URL.Path
	if isReserved(path) {
		return g.routeOwn(x, path)
	}
	if isLambda(path) {
		return g.routeLambda(x, path)
	}
	x.namespace = function.DefaultNamespace
	if rest, ok := strings.CutPrefix(path, namespacePrefix); ok {
		x.namespace, _, _ = strings.Cut(rest, "/")
		if x.namespace == function.DefaultNamespace {
			return problem.New(problem.NotFound, "nothing is served here") // it has one address, not two
		}
		if topic, ok := strings.CutPrefix(rest[len(x.namespace):], topicsPath); ok && function.ValidName(x.namespace) {
			return g.routeTopic(x, x.namespace, topic)
		}
		if value, ok := strings.CutPrefix(rest[len(x.namespace):], valuesPath); ok && function.ValidName(x.namespace) {
			return g.routeValue(x, x.namespace, value)
		}
	}
	mux := g.routes.Load().namespaces[x.namespace]
	if mux == nil {
		return problem.New(problem.NotFound, "nothing is served here")
	}
	if isPreflight(x.r) {
		if e := preflightTarget(mux, x.r.URL, x.r.Header.Get(headerACRequestMethod)); e != nil {
			x.target, x.preflight = e, true
			return nil
		}
	}
	mux.ServeHTTP(&x.routeProbe, x.r)
	if x.target = x.routeProbe.found; x.target != nil {
		return nil
	}
	if allow := x.routeProbe.header["Allow"]; len(allow) > 0 {
		x.w.Header()["Allow"] = allow
		return problem.New(problem.MethodNotAllowed, "this path is served for other methods").At("method")
	}
	return problem.New(problem.NotFound, "nothing is served here")
}

// preflightTarget finds the endpoint that the announced request would reach, if
// it has a policy to answer a preflight with.
func preflightTarget(mux *http.ServeMux, u *url.URL, method string) *endpoint {
	if !servedMethod(method) {
		return nil
	}
	var p probe
	mux.ServeHTTP(&p, &http.Request{Method: method, URL: u, ProtoMajor: 1, ProtoMinor: 1})
	if p.found == nil || p.found.cors == nil {
		return nil
	}
	return p.found
}

// routeOwn finds what is meant by a reserved path.
func (g *Gateway) routeOwn(x *exchange, path string) error {
	if topic, ok := strings.CutPrefix(path, topicsPath); ok {
		return g.routeTopic(x, function.DefaultNamespace, topic)
	}
	if value, ok := strings.CutPrefix(path, valuesPath); ok {
		return g.routeValue(x, function.DefaultNamespace, value)
	}
	if id, ok := strings.CutPrefix(path, invocationsPath); ok {
		return g.routeInvocation(x, id)
	}
	if path != healthPath {
		return problem.New(problem.NotFound, "nothing is served here")
	}
	return g.answerHealth(x)
}

func (g *Gateway) answerHealth(x *exchange) error {
	if x.r.Method != http.MethodGet && x.r.Method != http.MethodHead {
		x.setHeader("Allow", "GET, HEAD")
		return problem.New(problem.MethodNotAllowed, "this path is served for other methods").At("method")
	}
	g.letGoOfBody(x)
	g.limitAnswerTime(x, 0)
	x.setHeader("Content-Type", "text/plain; charset=utf-8")
	x.setHeader("Cache-Control", "no-store")
	x.setHeader("X-Content-Type-Options", "nosniff")
	x.WriteHeader(http.StatusOK)
	_, _ = x.Write([]byte("ok\n")) // whoever asked is gone
	return nil
}

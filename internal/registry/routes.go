package registry

import (
	"cmp"
	"fmt"
	"net/http"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/casemate-dev/casemate/api/problem"
	"github.com/casemate-dev/casemate/internal/function"
)

// AnyMethod is the method of a trigger that takes every one.
const AnyMethod = "ANY"

// Route is an HTTP trigger of a function's live alias.
type Route struct {
	Ref     function.Ref
	Trigger function.HTTPTrigger
}

// Pattern is the route in the words of http.ServeMux, without the namespace. A
// path that ends in a slash means that path alone: everything below it is
// written {name...}.
func (rt Route) Pattern() string {
	p := rt.Trigger.Path
	if strings.HasSuffix(p, "/") {
		p += "{$}"
	}
	if rt.Trigger.Method == AnyMethod {
		return p
	}
	return rt.Trigger.Method + " " + p
}

// String names the route for people, as in GET /orders/{id}.
func (rt Route) String() string { return rt.Trigger.Method + " " + rt.Trigger.Path }

// Routes lists what is served: the triggers of each function's live alias, from
// the version with its largest share, by namespace, function and place in the
// manifest. No two routes of a namespace conflict.
func (r *Registry) Routes() []Route {
	s := r.current.Load()
	var all []Route
	for _, routes := range s.routes {
		all = append(all, routes...)
	}
	slices.SortStableFunc(all, func(a, b Route) int {
		return cmp.Or(strings.Compare(a.Ref.Namespace, b.Ref.Namespace), strings.Compare(a.Ref.Name, b.Ref.Name))
	})
	return all
}

// liveRoutes lists what the functions of a namespace ask to have served, by
// function.
func (s *snapshot) liveRoutes(ns string) []Route {
	var routes []Route
	for _, e := range s.in(ns) {
		if v := e.primary(function.LiveAlias); v != nil {
			routes = append(routes, routesOf(e.ref, v.Config.Routes())...)
		}
	}
	return routes
}

func routesOf(ref function.Ref, triggers []function.HTTPTrigger) []Route {
	routes := make([]Route, 0, len(triggers))
	for _, t := range triggers {
		routes = append(routes, Route{ref, t})
	}
	return routes
}

// clash reports whether the functions in next could have the triggers given
// there, beside what is served of the others.
func (s *snapshot) clash(ns string, next map[string][]function.HTTPTrigger) *problem.Error {
	var routes []Route
	for _, rt := range s.routes[ns] {
		if _, replaced := next[rt.Ref.Name]; !replaced {
			routes = append(routes, rt)
		}
	}
	names := make([]string, 0, len(next))
	for name := range next {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		routes = append(routes, routesOf(function.Ref{Namespace: ns, Name: name}, next[name])...)
	}
	return conflict(routes)
}

// servable keeps the routes that can stand together. Deployments that conflict
// are refused, so one is dropped here only when the store was written by somebody
// else, or when a plan that swaps routes was cut off half way.
func servable(routes []Route) (kept []Route, dropped []Fault) {
	mux := http.NewServeMux()
	for _, rt := range routes {
		err := checkRoute(rt, "http")
		if err == nil && !register(mux, rt) {
			err = taken(rt, kept)
		}
		if err != nil {
			dropped = append(dropped, Fault{functionKey(rt.Ref), rt.Ref, "route " + rt.String() + " is not served: " + err.Detail})
			continue
		}
		kept = append(kept, rt)
	}
	return kept, dropped
}

// conflict reports the first two routes that no request could be told apart by,
// as the gateway's own router sees it.
func conflict(routes []Route) *problem.Error {
	mux := http.NewServeMux()
	for i, rt := range routes {
		if !register(mux, rt) {
			return taken(rt, routes[:i])
		}
	}
	return nil
}

// register reports whether the router takes the route. It says no by panicking.
func register(mux *http.ServeMux, rt Route) (ok bool) {
	defer func() { ok = recover() == nil }()
	mux.Handle(rt.Pattern(), http.NotFoundHandler())
	return true
}

// taken says which of the earlier routes stands in the way of rt.
func taken(rt Route, earlier []Route) *problem.Error {
	for _, other := range earlier {
		mux := http.NewServeMux()
		if !register(mux, other) || register(mux, rt) {
			continue
		}
		if other.Ref == rt.Ref {
			return problem.New(problem.RouteTaken, "the routes %s and %s of %s match the same requests", other, rt, rt.Ref).
				Fix("Keep one of the two, or make one of the paths more specific.")
		}
		return problem.New(problem.RouteTaken, "the route %s of %s matches the same requests as %s of %s", rt, rt.Ref, other, other.Ref).
			Fix("Choose another path for one of them, or delete the function that is no longer needed.")
	}
	return problem.New(problem.InvalidManifest, "the route %s of %s is not a pattern the router understands", rt, rt.Ref)
}

// checkRoute refuses a route that could reach beyond its namespace or into the
// platform's own paths, or that the router does not understand.
func checkRoute(rt Route, field string) *problem.Error {
	t := rt.Trigger
	bad := func(what, format string, args ...any) *problem.Error {
		return problem.New(problem.InvalidManifest, format, args...).At(field + what)
	}
	if t.Method == "" || strings.Trim(t.Method, "ABCDEFGHIJKLMNOPQRSTUVWXYZ") != "" {
		return bad(".method", "the method %.40q is not upper-case letters", t.Method).Fix("Write GET, POST, another method, or %s.", AnyMethod)
	}
	if t.Method == http.MethodConnect || t.Method == http.MethodTrace {
		return bad(".method", "the method %s is not for functions", t.Method)
	}
	p := t.Path
	if !strings.HasPrefix(p, "/") {
		return bad(".path", "the path %.200q does not begin with a slash", p)
	}
	for i := range len(p) {
		// A percent sign would let a path spell the reserved prefixes another way.
		if p[i] <= ' ' || p[i] == 0x7f || p[i] == '%' || p[i] == '\\' || p[i] == '?' || p[i] == '#' {
			return bad(".path", "the path %.200q holds the character %s", p, strconv.QuoteToASCII(p[i:i+1])).
				Fix("Write path characters as they are, unescaped, without spaces, query or fragment.")
		}
	}
	if strings.Contains(p, "{$}") {
		return bad(".path", "the path %.200q holds {$}", p).Fix("Leave it out: a path that ends in a slash means that path alone.")
	}
	if clean := path.Clean(p); clean != p && clean+"/" != p {
		return bad(".path", "the path %.200q is not in canonical form", p).Fix("Write %s.", clean)
	}
	if strings.HasPrefix(p, "/~") {
		return bad(".path", "paths that begin with /~ belong to namespaces").Fix("Leave the prefix out: the namespace of the function adds it.")
	}
	if p == "/2015-03-31" || strings.HasPrefix(p, "/2015-03-31/") {
		return bad(".path", "paths below /2015-03-31 are the Lambda API's").Fix("Choose another path.")
	}
	if strings.HasPrefix(p, "/.casemate") {
		return bad(".path", "paths that begin with /.casemate belong to the platform").Fix("Choose another path.")
	}
	if !register(http.NewServeMux(), rt) {
		return bad(".path", "the path %.200q is not a pattern the router understands", p).
			Fix("A parameter is a whole segment, {name}, named once; {name...} stands last.")
	}
	return nil
}

// checkRoutes checks each route of one function, and all of them together.
func checkRoutes(ref function.Ref, triggers []function.HTTPTrigger, field string) *problem.Error {
	routes := routesOf(ref, triggers)
	for i, rt := range routes {
		at := fmt.Sprintf("%s.http[%d]", field, i)
		if rt.Trigger.Webhook != "" {
			at = field + ".triggers." + rt.Trigger.Webhook + ".webhook"
		}
		if err := checkRoute(rt, at); err != nil {
			return err
		}
	}
	if err := conflict(routes); err != nil {
		first := slices.IndexFunc(routes, func(rt Route) bool { return rt.Trigger.Webhook != "" })
		if first >= 0 && conflict(routes[:first]) == nil { // webhooks stand last
			return err.At(field + ".triggers")
		}
		return err.At(field + ".http")
	}
	return nil
}

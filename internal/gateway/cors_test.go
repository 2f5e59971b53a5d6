package gateway

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/casemate-dev/casemate/api/problem"
	"github.com/casemate-dev/casemate/internal/function"
)

func corsRoute(method, path string, c function.CORS) Route {
	r := routeIn("default", method, path)
	r.Trigger.CORS = &c
	return r
}

func TestAttackCORSPolicyThatLetsEverybodyIn(t *testing.T) {
	t.Parallel()
	w := newWorld(t, Limits{})
	for want, c := range map[string]function.CORS{
		"with origin *": {Origins: []string{"*"}, Credentials: true},
		"keep one":      {Origins: []string{"*", "https://a.example"}},
		`"null"`:        {Origins: []string{"null"}},
		"is empty":      {},
		`a.example/"`:   {Origins: []string{"https://a.example/"}},
		"A.example":     {Origins: []string{"https://A.example"}},
		`*.example`:     {Origins: []string{"https://*.example"}},
		"u@a":           {Origins: []string{"https://u@a"}},
		"cors.headers":  {Origins: []string{"https://a.example"}, Headers: []string{"a\r\nb"}},
		`"*"`:           {Origins: []string{"https://a.example"}, Headers: []string{"*"}, Credentials: true},
		"cors.expose":   {Origins: []string{"https://a.example"}, Expose: []string{"a, b"}},
		"cors.methods":  {Origins: []string{"https://a.example"}, Methods: []string{"GET POST"}},
		"cors.maxAge":   {Origins: []string{"https://a.example"}, MaxAge: -1},
	} {
		if err := w.SetRoutes([]Route{corsRoute("GET", "/x", c)}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want %q, got %v", want, err)
		}
	}
}

func TestCORS(t *testing.T) {
	t.Parallel()
	w := served(
		t, Limits{},
		corsRoute("POST", "/listed", function.CORS{
			Origins: []string{"https://a.example", "http://localhost:3000"}, Headers: []string{"authorization", "content-type"},
			Expose: []string{"x-total"}, Credentials: true, MaxAge: 10 * time.Minute,
		}),
		corsRoute("GET", "/star", function.CORS{Origins: []string{"*"}}),
		routeIn("default", "GET", "/listed"),
		routeIn("default", "GET", "/none"),
	)
	preflight := func(path, origin, method string) answer {
		return w.do(t, "OPTIONS", path, nil, "Origin: "+origin, "Access-Control-Request-Method: "+method, "Access-Control-Request-Headers: authorization, x-evil")
	}
	want := func(a answer, fields ...string) {
		t.Helper()
		var got []string
		for name, values := range a.header {
			if strings.HasPrefix(name, "Access-Control-") || name == "Vary" {
				got = append(got, name+": "+strings.Join(values, "|"))
			}
		}
		slices.Sort(got)
		slices.Sort(fields)
		if !slices.Equal(got, fields) {
			t.Errorf("got %q\nwant %q", got, fields)
		}
	}

	// A preflight needs no key, tells the policy and starts nothing.
	a := preflight("/listed", "https://a.example", "POST")
	if a.status != 204 || a.body != "" {
		t.Errorf("preflight: %s", a.text)
	}
	want(a, "Access-Control-Allow-Origin: https://a.example", "Access-Control-Allow-Credentials: true", "Access-Control-Allow-Methods: POST",
		"Access-Control-Allow-Headers: authorization, content-type", "Access-Control-Max-Age: 600", "Vary: Origin")
	a = preflight("/star", "https://anything.example", "GET")
	want(a, "Access-Control-Allow-Origin: *", "Access-Control-Allow-Methods: GET, HEAD")

	// An origin is reflected only when it is listed, whole and exactly.
	for _, origin := range []string{
		"https://evil.example", "null", "https://a.example.evil", "https://a.example:444", "http://a.example", "https://A.example",
		"https://a.example/", "https://xa.example", "", "*", "https://a.example https://evil.example",
	} {
		a := preflight("/listed", origin, "POST")
		if a.status != 403 || strings.Contains(a.text, "Access-Control-") {
			t.Errorf("origin %q: %s", origin, a.text)
		}
		b := w.do(t, "POST", "/listed", nil, "Origin: "+origin, bearer(goodKey))
		want(b, "Vary: Origin")
	}

	// Preflights for a route without a policy, or none at all, are plain requests.
	preflight("/none", "https://a.example", "GET").want(t, problem.MethodNotAllowed)
	preflight("/listed", "https://a.example", "GET").want(t, problem.MethodNotAllowed)
	preflight("/listed", "https://a.example", "TRACE").want(t, problem.MethodNotAllowed)
	preflight("/nowhere", "https://a.example", "GET").want(t, problem.NotFound)
	if n := w.invoker.count.Load(); n != 11 {
		t.Errorf("functions were started %d times", n)
	}

	// The request itself needs its key, and a page may read why it failed.
	a = w.do(t, "POST", "/listed", nil, "Origin: http://localhost:3000")
	a.want(t, problem.Unauthenticated)
	listed := []string{"Access-Control-Allow-Origin: http://localhost:3000", "Access-Control-Allow-Credentials: true", "Access-Control-Expose-Headers: x-total", "Vary: Origin"}
	want(a, listed...)
	// The function adds to Vary, and cannot widen the policy.
	w.invoker.answering(outcome(200, "x", map[string][]string{"vary": {"accept"}, "access-control-allow-origin": {"*"}, "access-control-allow-methods": {"DELETE"}}), nil)
	a = w.do(t, "POST", "/listed", nil, "Origin: http://localhost:3000", bearer(goodKey))
	want(a, append(listed[:3:3], "Vary: Origin|accept")...)
	want(w.do(t, "POST", "/listed", nil, "Origin: https://evil.example", bearer(goodKey)), "Vary: Origin|accept")
}

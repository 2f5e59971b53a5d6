package gateway

import (
	"context"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/casemate-dev/casemate/api/problem"
	"github.com/casemate-dev/casemate/internal/function"
	"github.com/casemate-dev/casemate/internal/invoke"
)

func trigger(method, path string) function.HTTPTrigger {
	return function.HTTPTrigger{Method: method, Path: path}
}

func routeIn(ns, method, path string) Route {
	return Route{Ref: function.Ref{Namespace: ns, Name: "f"}, Trigger: trigger(method, path)}
}

func TestSetRoutesLeavesOutWithAReason(t *testing.T) {
	t.Parallel()
	w := newWorld(t, Limits{})
	good := routeIn("default", "GET", "/a/{id}")
	withLimit := routeIn("default", "GET", "/l")
	withLimit.Trigger.BodyLimit = function.MaxBodyLimit + 1
	for want, routes := range map[string][]Route{
		"conflict":                        {good, routeIn("default", "GET", "/a/{other}")},
		"cannot be served beside":         {routeIn("default", "GET", "/{x}/b"), routeIn("default", "GET", "/a/{y}")},
		"must begin with /":               {routeIn("default", "GET", "a")},
		"bad wildcard":                    {routeIn("default", "GET", "/{1x}")},
		"not at end":                      {routeIn("default", "GET", "/{rest...}/x")},
		"empty segment":                   {routeIn("default", "GET", "/a//b")},
		"dot segment":                     {routeIn("default", "GET", "/a/../b")},
		"encoded slash":                   {routeIn("default", "GET", "/a%2Fb")},
		"remove ?, #":                     {routeIn("default", "GET", "/a?b")},
		"/~":                              {routeIn("default", "GET", "/~shop/x")},
		"reserved":                        {routeIn("default", "GET", "/%7eshop/x")},
		"/.casemate":                      {routeIn("default", "GET", "/.casemate/healthz")},
		"path is reserved":                {routeIn("shop", "GET", "/%2ecasemate")},
		"method cannot be served":         {routeIn("default", "get", "/x")},
		"setting route GET /x HTTP/1.1":   {routeIn("default", "GET /x HTTP/1.1", "/y")},
		"setting route CONNECT":           {routeIn("default", "CONNECT", "/x")},
		"malformed name":                  {routeIn("../x", "GET", "/x")},
		"body limit is":                   {withLimit},
		"setting route GET \"/q\" of a/f": {routeIn("a", "GET", "/q"), routeIn("a", "GET", "/q")},
	} {
		// The last is the bad one. Those before it, and after, are served.
		routes = append(routes, routeIn("witness", "GET", "/witness"))
		err := w.SetRoutes(routes)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want %q, got %v", want, err)
		}
		if n := w.routes.Load().size; n != len(routes)-1 {
			t.Errorf("%s: %d of %d routes are served", want, n, len(routes))
		}
		if preflightTarget(w.routes.Load().namespaces["witness"], &url.URL{Path: "/~witness/witness"}, "GET") != nil {
			t.Error("a preflight finds a policy where there is none")
		}
	}
	if err := w.SetRoutes(nil); err != nil || w.routes.Load().size != 0 {
		t.Errorf("no routes: %v", err)
	}
}

func TestAttackCrossNamespacePath(t *testing.T) {
	t.Parallel()
	// The first namespace catches all it can; the second must not be reachable
	// through it, nor conflict with it.
	w := served(t, Limits{}, routeIn("default", "ANY", "/{rest...}"), routeIn("default", "GET", "/{a}/x"), routeIn("shop", "GET", "/{b}"))
	for path, want := range map[string]string{
		"/anything/else": "default", "/": "default", "/a/x": "default", "/shop/b": "default",
		"/~shop/b": "shop", "/%7Eshop/b": "shop", "/~sho%70/b": "shop",
		"/~shop": "", "/~shop/": "", "/~shop/b/c": "", "/~other/b": "", "/~": "", "/~/b": "", "/~default/a/x": "", "/~SHOP/b": "", "/~shop~default/x": "",
	} {
		before := w.invoker.count.Load()
		a := w.do(t, "GET", path, nil, bearer(goodKey))
		got := ""
		if w.invoker.count.Load() > before {
			got = w.invoker.last(t).Ref.Namespace
		}
		if got != want || (want == "" && a.status != 404) {
			t.Errorf("%s: reached %q with status %d, want %q", path, got, a.status, want)
		}
	}
	if c := w.invoker.last(t); c.Ref.Namespace == "shop" && !strings.HasPrefix(c.Path, "/b") {
		t.Errorf("the function sees %q", c.Path)
	}
}

func TestRouteChoice(t *testing.T) {
	t.Parallel()
	w := served(t, Limits{})
	for _, c := range []struct {
		method, path string
		status       int
		allow        string
	}{
		{"GET", "/hello", 200, ""},
		{"HEAD", "/hello", 200, ""},
		{"POST", "/hello", 405, "GET, HEAD"},
		{"OPTIONS", "/hello", 405, "GET, HEAD"},
		{"GET", "/echo", 405, "POST"},
		{"HEAD", "/echo", 405, "POST"},
		{"PROPFIND", "/any", 200, ""},
		{"OPTIONS", "/any", 200, ""},
		{"GET", "/orders/7", 200, ""},
		{"GET", "/orders/", 404, ""},
		{"GET", "/orders", 404, ""},
		{"GET", "/orders/7/x", 404, ""},
		{"GET", "/files/a/b/c", 200, ""},
		{"GET", "/files/", 200, ""},
		{"GET", "/files", 404, ""}, // and no redirect
		{"GET", "/slash/", 200, ""},
		{"GET", "/slash", 404, ""},
		{"GET", "/slash/below", 404, ""},
		{"GET", "/", 404, ""},
		{"GET", "/nowhere", 404, ""},
		{"DELETE", "/open", 405, "GET, HEAD, POST"},
	} {
		a := w.do(t, c.method, c.path, nil, bearer(goodKey))
		if a.status != c.status || a.header.Get("Allow") != c.allow || a.header.Get("Location") != "" {
			t.Errorf("%s %s: got %d, Allow %q, Location %q; want %d %q", c.method, c.path, a.status, a.header.Get("Allow"), a.header.Get("Location"), c.status, c.allow)
		}
	}
	w.do(t, "GET", "/nowhere", nil).want(t, problem.NotFound)
	w.do(t, "POST", "/hello", nil).want(t, problem.MethodNotAllowed)
}

// TestTableSwapUnderLoad changes the whole table while requests run. Every one
// is answered by the function that one of the tables names.
func TestTableSwapUnderLoad(t *testing.T) {
	t.Parallel()
	w := served(t, Limits{})
	w.invoker.run = func(_ context.Context, c *invoke.Call) (*invoke.Outcome, error) {
		return outcome(200, c.Ref.Name, nil), nil
	}
	table := func(name string) []Route {
		routes := routesForTests()
		for i := range routes {
			routes[i].Ref.Name = name
		}
		return routes
	}
	if err := w.SetRoutes(table("blue")); err != nil {
		t.Fatal(err)
	}
	stop := make(chan struct{})
	var wg sync.WaitGroup
	var blue, green atomic.Int64
	for range 4 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				r, _ := http.NewRequest("GET", "https://"+w.addr+"/orders/1", nil) //nolint:noctx // ends with the loop
				r.Header.Set("X-API-Key", goodKey)
				resp, err := w.client.Do(r)
				if err != nil {
					t.Errorf("a request failed: %v", err)
					return
				}
				a := collect(t, resp)
				switch {
				case a.status == 200 && a.body == "blue":
					blue.Add(1)
				case a.status == 200 && a.body == "green":
					green.Add(1)
				default:
					t.Errorf("got %s", a.text)
					return
				}
			}
		})
	}
	n := 0
	eventually(t, "both tables seen often, and many swaps", func() bool {
		for range 5 {
			n++
			if err := w.SetRoutes(table([]string{"blue", "green"}[n%2])); err != nil {
				t.Error(err)
			}
		}
		return t.Failed() || (blue.Load() > 50 && green.Load() > 50 && n > 200)
	})
	close(stop)
	wg.Wait()
}

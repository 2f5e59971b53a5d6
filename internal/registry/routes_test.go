package registry

import (
	"errors"
	"strings"
	"testing"

	"github.com/casemate-dev/casemate/api/problem"
	"github.com/casemate-dev/casemate/internal/function"
)

func TestRouteConflicts(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		first, second string
		clash         bool
	}{
		"same path":                     {"GET /a", "GET /a", true},
		"same path, other method":       {"GET /a", "POST /a", false},
		"same path, parameter renamed":  {"GET /a/{x}", "GET /a/{y}", true},
		"any and a method":              {"ANY /a", "GET /a", false},
		"any twice":                     {"ANY /a", "ANY /a", true},
		"literal inside a parameter":    {"GET /a/{x}", "GET /a/b", false},
		"crossing parameters":           {"GET /{x}/b", "GET /a/{y}", true},
		"crossing, any and a method":    {"ANY /{x}/b", "GET /a/{y}", true},
		"rest and a literal":            {"GET /a/{rest...}", "GET /a/b/c", false},
		"rest twice":                    {"GET /a/{rest...}", "GET /a/{other...}", true},
		"slash at the end and without":  {"GET /a/", "GET /a", false},
		"slash at the end is not below": {"GET /a/", "GET /a/b", false},
		"slash at the end and a rest":   {"GET /a/", "GET /a/{rest...}", false},
		"slash at the end twice":        {"GET /a/", "GET /a/", true},
	} {
		b := newBench(t)
		b.upload("one")
		first, second := spec("first", "one", c.first), spec("second", "one", c.second)

		check := func(where string, err error, names ...string) {
			t.Helper()
			if !c.clash {
				if err != nil {
					t.Errorf("%s, %s: %v", name, where, err)
				}
				return
			}
			p := wantCode(t, err, problem.RouteTaken)
			for _, n := range names {
				if !strings.Contains(p.Detail, n) {
					t.Errorf("%s, %s: %q does not name %s", name, where, p.Detail, n)
				}
			}
		}
		_, err := b.Plan(ctx, "default", "", []Spec{first, second})
		check("in one plan", err, "default/first", "default/second")
		_, err = b.Plan(ctx, "default", "", []Spec{spec("both", "one", c.first, c.second)})
		check("in one function", err, "default/both")
		if _, err := b.tryDeploy("other", "", second); err != nil {
			t.Errorf("%s: a route of another namespace is in the way: %v", name, err)
		}
		if _, err := b.tryDeploy("default", "", first); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		_, err = b.tryDeploy("default", "", second)
		check("after deploying one", err, "default/first", "default/second")
		if _, err := b.tryDeploy("default", "beta", second); err != nil {
			t.Errorf("%s: an alias that serves no routes was refused: %v", name, err)
		}
		f, err := b.Function(ref("default", "second"))
		if err != nil {
			t.Fatal(err)
		}
		beta := f.Aliases[0].Targets
		_, err = b.SetAlias(ctx, f.Ref, "live", beta, 0, "x")
		check("by moving the alias", err, "default/first", "default/second")
	}
}

func TestRollbackIntoATakenRouteIsRefused(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.deploy("default", "a", "one", "/x")
	now := b.deploy("default", "a", "two", "/y")
	b.deploy("default", "b", "one", "/x")
	_, err := b.Rollback(ctx, ref("default", "a"), "", "", "x")
	wantCode(t, err, problem.RouteTaken)
	b.wantLive(ref("default", "a"), now)
}

func TestRoutesThatReachTooFarAreRefused(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	for _, route := range []string{
		"GET /~other/admin", "GET /~", "GET /%7Eother/admin", "GET /%7eother", "GET /.casemate/health", "GET /.casemate", "GET /.casematex",
		"GET /%2ecasemate/health", "GET //~other/x", "GET /a/../~other", "GET /./a", "GET /a//b", "GET other.example/path", "GET a",
		"GET /a b", "GET /a\tb", "GET /a\nb", "GET /a\x00", "GET /a?b", "GET /a#b", "GET /a\\b", "GET ",
		"get /a", "CONNECT /a", "TRACE /a", "G-T /a", " /a", "GET,POST /a", "GET /{x", "GET /{x}y", "GET /{x}/{x}", "GET /{x...}/y", "GET /{}", "GET /{$}/x", "GET /{$}", "ANY /a//b",
	} {
		_, err := b.Plan(ctx, "default", "", []Spec{spec("hello", "one", route)})
		p := wantCode(t, err, problem.InvalidManifest)
		if !strings.HasPrefix(p.Field, "functions[0].http[0].") {
			t.Errorf("%q: field %q", route, p.Field)
		}
	}
	for _, route := range []string{"GET /", "ANY /", "GET /a", "GET /a/", "GET /{x}", "GET /{x}/y/{rest...}", "GET /grüße", "PROPFIND /a", "GET /a~b", "GET /a/~b", "GET /a/.casemate"} {
		if _, err := b.Plan(ctx, "default", "", []Spec{spec("hello", "one", route)}); err != nil {
			t.Errorf("%q: %v", route, err)
		}
	}
}

func TestRoutesFollowTheLargestShare(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	hello := ref("default", "hello")
	v1 := b.deploy("default", "hello", "one", "/one")
	v2 := b.deploy("default", "hello", "two", "/two", "POST /two")
	b.deploy("a-team", "zz", "one", "/zz")
	b.deploy("default", "alpha", "one", "/alpha")
	want := func(paths ...string) {
		t.Helper()
		for range 2 {
			var got []string
			for _, r := range b.Routes() {
				got = append(got, r.Ref.String()+" "+r.String())
			}
			if strings.Join(got, "; ") != strings.Join(paths, "; ") {
				t.Errorf("routes %q, want %q", got, paths)
			}
			b.reopen()
		}
	}
	want("a-team/zz GET /zz", "default/alpha GET /alpha", "default/hello GET /two", "default/hello POST /two")
	if _, err := b.SetAlias(ctx, hello, "live", []Weight{{v1, 60}, {v2, 40}}, 0, "x"); err != nil {
		t.Fatal(err)
	}
	want("a-team/zz GET /zz", "default/alpha GET /alpha", "default/hello GET /one")
}

func TestPattern(t *testing.T) {
	t.Parallel()
	for _, c := range [][3]string{
		{"GET", "/a", "GET /a"}, {"ANY", "/a", "/a"}, {"GET", "/", "GET /{$}"}, {"POST", "/a/", "POST /a/{$}"}, {"GET", "/a/{x...}", "GET /a/{x...}"},
	} {
		if got := (Route{Trigger: function.HTTPTrigger{Method: c[0], Path: c[1]}}).Pattern(); got != c[2] {
			t.Errorf("%s %s: %q", c[0], c[1], got)
		}
	}
}

// Moving a route from one function to another in one plan must not pass through a
// state in which both have it, whichever way the plan lists them.
func TestRouteHandedOverInOnePlan(t *testing.T) {
	t.Parallel()
	for _, names := range [][2]string{{"a", "b"}, {"b", "a"}} {
		b := newBench(t)
		giver, taker := names[0], names[1]
		b.deploy("default", giver, "one", "/x")
		b.deploy("default", taker, "two", "/y")
		specs := []Spec{spec(taker, "two", "/y", "/x"), spec(giver, "one", "/z")}
		p, err := b.Plan(ctx, "default", "", specs)
		if err != nil {
			t.Fatal(err)
		}
		b.inject(2, crashBefore)
		b.faults.only = "update" // the second record of the two
		_, err = b.Apply(ctx, p, specs, "x")
		var ae *ApplyError
		if !errors.As(err, &ae) || len(ae.Applied) != 1 || ae.Applied[0].Name != giver {
			t.Fatalf("the giver %s does not go first: %v", giver, err)
		}
		b.reopen()
		if fs := b.Faults(); len(fs) != 0 {
			t.Errorf("faults %v", fs)
		}
		if _, err := b.tryDeploy("default", "", specs...); err != nil {
			t.Error(err)
		}
	}
}

// A swap has no safe order. Cut off half way it leaves two functions with one
// route; one of them is served and the other reported, and nothing panics.
func TestRouteSwapCutOffHalfWayIsReported(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.deploy("default", "a", "one", "/x")
	b.deploy("default", "b", "two", "/y")
	specs := []Spec{spec("a", "one", "/y"), spec("b", "two", "/x")}
	p, err := b.Plan(ctx, "default", "", specs)
	if err != nil {
		t.Fatal(err)
	}
	b.inject(2, crashBefore)
	b.faults.only = "update"
	if _, err = b.Apply(ctx, p, specs, "x"); err == nil {
		t.Fatal("nothing failed")
	}
	b.reopen()
	if rs, fs := b.Routes(), b.Faults(); len(rs) != 1 || len(fs) != 1 || !strings.Contains(fs[0].Reason, "default/a") {
		t.Errorf("routes %v, faults %v", rs, fs)
	}
	if _, err := b.tryDeploy("default", "", specs...); err != nil {
		t.Fatal(err)
	}
	if rs, fs := b.Routes(), b.Faults(); len(rs) != 2 || len(fs) != 0 {
		t.Errorf("routes %v, faults %v", rs, fs)
	}
}

package registry

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/casemate-dev/casemate/api/problem"
	"github.com/casemate-dev/casemate/internal/function"
)

var ctx = context.Background()

func TestOpenNamesWhatIsMissing(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	for field, cfg := range map[string]Config{
		"Store":        {Blobs: b.blobs, Clock: b.clock.Now},
		"Blobs":        {Store: b.store, Clock: b.clock.Now},
		"Clock":        {Store: b.store, Blobs: b.blobs},
		"KeepVersions": {Store: b.store, Blobs: b.blobs, Clock: b.clock.Now, KeepVersions: -1},
	} {
		if _, err := Open(ctx, cfg); err == nil || !strings.Contains(err.Error(), field) {
			t.Errorf("without a good %s: error %v", field, err)
		}
	}
}

func TestDeployServesAndSurvivesReopening(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	hello := ref("default", "hello")
	v1 := b.deploy("default", "hello", "one", "/hello")
	b.wantLive(hello, v1)
	v2 := b.deploy("default", "hello", "two", "/hello")
	b.wantLive(hello, v2)
	b.deploy("other", "hello", "three", "/hello")
	b.reopen()
	b.wantLive(hello, v2)
	if n := b.Len(); n != 2 {
		t.Errorf("there are two functions, and %d are counted", n)
	}
	vs, err := b.Versions(hello)
	if err != nil || len(vs) != 2 || vs[0].ID != v2 || vs[1].ID != v1 {
		t.Fatalf("versions %v, error %v", vs, err)
	}
	if vs[0].Size != 3 || vs[0].Creator != "key:tester" || vs[0].Created.IsZero() || vs[0].Ref != hello {
		t.Errorf("version was stored as %+v", vs[0])
	}
	f, err := b.Function(hello)
	if err != nil || len(f.Aliases) != 1 || f.Live.ID != v2 || f.Revision == 0 {
		t.Fatalf("function %+v, error %v", f, err)
	}
	h := f.Aliases[0].History
	if len(h) != 2 || h[0].Targets[0].Version != v2 || h[1].Targets[0].Version != v1 || h[0].Why != WhyDeploy || h[0].By != "key:tester" || !h[0].At.After(h[1].At) {
		t.Errorf("history %+v", h)
	}
}

func TestSameDeploymentTwiceChangesNothing(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	v := b.deploy("default", "hello", "one", "/hello")
	b.store.mu.Lock()
	before := b.store.revision
	b.store.mu.Unlock()
	woken := 0
	b.Watch(func() { woken++ })

	s := spec("hello", "one", "/hello")
	p, err := b.Plan(ctx, "default", "live", []Spec{s})
	if err != nil || p.Changes[0].Action != ActionNone || p.Changes[0].Version != v || p.Changes[0].Current != v || len(p.Changes[0].Diff) != 0 {
		t.Fatalf("plan %+v, error %v", p, err)
	}
	done, err := b.Apply(ctx, p, []Spec{s}, "key:other")
	if err != nil || done[0].Changed || done[0].Version != v {
		t.Fatalf("deployed %+v, error %v", done, err)
	}
	if b.store.revision != before || woken != 0 {
		t.Errorf("the store went from revision %d to %d and the watcher was called %d times", before, b.store.revision, woken)
	}
}

func TestVersionIsTheSameWhereverItIsDeployed(t *testing.T) {
	t.Parallel()
	a, b := newBench(t), newBench(t)
	if x, y := a.deploy("default", "hello", "one", "/hello"), b.deploy("other", "hello", "one", "/hello"); x != y {
		t.Errorf("the same code and configuration got the ids %s and %s", x, y)
	}
	if x, y := a.deploy("default", "hello", "one", "/hello"), a.deploy("default", "hello", "one", "/hi"); x == y {
		t.Error("another configuration got the same id")
	}
}

func TestPlanSaysWhatChanges(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	old := spec("hello", "one", "GET /a", "POST /gone")
	old.Config.Environment = map[string]string{"KEPT": "x", "MOVED": "a", "LOST": "y"}
	old.Config.HTTP[0].CORS = &function.CORS{Origins: []string{"https://a.example"}, Methods: []string{"GET"}}
	b.upload("one")
	if _, err := b.tryDeploy("default", "", old); err != nil {
		t.Fatal(err)
	}
	next := spec("hello", "two", "GET /a", "GET /new")
	next.Config.Environment = map[string]string{"KEPT": "x", "MOVED": "b"}
	next.Config.Limits.Memory *= 2
	next.Config.Limits.Timeout /= 2
	next.Config.Limits.CPU = 2 * function.DefaultCPU
	next.Config.Limits.Calls = function.DefaultCalls // which held before, unwritten: no difference
	next.Config.Limits.Concurrency++
	next.Config.HTTP[0].Public = true
	next.Config.HTTP[0].BodyLimit *= 2
	next.Config.HTTP[0].CORS = &function.CORS{Origins: []string{"https://a.example", "*"}, Methods: []string{"GET", "PUT"}, Credentials: true}
	next.Config.HTTP[1].Public = true
	p, err := b.Plan(ctx, "default", "", []Spec{next})
	if err != nil {
		t.Fatal(err)
	}
	c := p.Changes[0]
	if c.Action != ActionUpdate || c.Current == "" || c.Current == c.Version || c.Revision == 0 {
		t.Errorf("change %+v", c)
	}
	want := map[string]Delta{}
	for _, d := range []Delta{
		{"code", function.DigestOf([]byte("one")).Short(), function.DigestOf([]byte("two")).Short()},
		{"memory", "128Mi", "256Mi"},
		{"timeout", "10s", "5s"},
		{"limits.cpu", "10s", "20s"},
		{"concurrency.max", "64", "65"},
		{"environment.MOVED", `"a"`, `"b"`},
		{"environment.LOST", `"y"`, ""},
		{"http[GET /a]", "with a key", "public"},
		{"http[GET /a].bodyLimit", "1Mi", "2Mi"},
		{"http[GET /a].cors.origins", "https://a.example", "https://a.example *"},
		{"http[GET /a].cors.methods", "GET", "GET PUT"},
		{"http[GET /a].cors.credentials", "false", "true"},
		{"http[POST /gone]", "with a key", ""},
		{"http[POST /gone].bodyLimit", "1Mi", ""},
		{"http[GET /new]", "", "public"},
		{"http[GET /new].bodyLimit", "", "1Mi"},
	} {
		want[d.Field] = d
	}
	for _, d := range c.Diff {
		if want[d.Field] != d {
			t.Errorf("unexpected difference %+v", d)
		}
		delete(want, d.Field)
	}
	for field := range want {
		t.Errorf("no difference for %s", field)
	}
	for _, w := range []string{
		"memory is raised from 128Mi to 256Mi", "limits.cpu is raised from 10s to 20s", "concurrency.max is raised from 64 to 65",
		"route GET /a becomes public", "bodyLimit of route GET /a is raised", "route GET /a answers web pages of every origin",
		"takes credentials", "one more method, PUT", "route GET /new becomes public",
	} {
		if !slices.ContainsFunc(c.Warnings, func(s string) bool { return strings.Contains(s, w) }) {
			t.Errorf("no warning says %q in %q", w, c.Warnings)
		}
	}
	if len(c.Warnings) != 9 {
		t.Errorf("%d warnings: %q", len(c.Warnings), c.Warnings)
	}
	// Going back is narrower everywhere but in the timeout.
	b.upload("two")
	if _, err := b.tryDeploy("default", "", next); err != nil {
		t.Fatal(err)
	}
	p, err = b.Plan(ctx, "default", "", []Spec{old})
	if err != nil || len(p.Changes[0].Warnings) != 1 || !strings.Contains(p.Changes[0].Warnings[0], "timeout") {
		t.Errorf("going back warns %q, error %v", p.Changes[0].Warnings, err)
	}
}

func TestPlanRefusesBadInput(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	good := spec("hello", "one")
	bad := func(f func(*Spec)) []Spec { s := good; f(&s); return []Spec{s} }
	for name, c := range map[string]struct {
		ns, alias string
		specs     []Spec
		code      problem.Code
	}{
		"namespace with a dot":     {"a.b", "", []Spec{good}, problem.BadRequest},
		"namespace empty":          {"", "", []Spec{good}, problem.BadRequest},
		"function name":            {"default", "", bad(func(s *Spec) { s.Name = "../hello" }), problem.BadRequest},
		"function twice":           {"default", "", []Spec{good, good}, problem.BadRequest},
		"no functions":             {"default", "", nil, problem.BadRequest},
		"too many":                 {"default", "", make([]Spec, MaxSpecs+1), problem.BadRequest},
		"alias name":               {"default", "Live", []Spec{good}, problem.BadRequest},
		"alias like a version":     {"default", "facade", []Spec{good}, problem.BadRequest},
		"digest":                   {"default", "", bad(func(s *Spec) { s.Artifact = "sha256:00" }), problem.BadRequest},
		"size":                     {"default", "", bad(func(s *Spec) { s.Size = MaxArtifact + 1 }), problem.BodyTooLarge},
		"text that is not UTF-8":   {"default", "", bad(func(s *Spec) { s.Config.Environment = map[string]string{"A": "\xff"} }), problem.InvalidManifest},
		"too large to be stored":   {"default", "", bad(func(s *Spec) { s.Config.Environment = map[string]string{"A": strings.Repeat("x", maxVersion)} }), problem.InvalidManifest},
		"route that is no pattern": {"default", "", []Spec{spec("hello", "one", "/{")}, problem.InvalidManifest},
	} {
		_, err := b.Plan(ctx, c.ns, c.alias, c.specs)
		if !problem.HasCode(err, c.code) {
			t.Errorf("%s: got %v, want %s", name, err, c.code)
		}
	}
}

func TestApplyRefusesAStalePlan(t *testing.T) {
	t.Parallel()
	two := spec("hello", "two")
	for name, meddle := range map[string]func(b *bench, p *Plan, specs *[]Spec){
		"deployed by somebody else": func(b *bench, _ *Plan, _ *[]Spec) { b.deploy("default", "hello", "three") },
		"alias moved and moved back": func(b *bench, _ *Plan, _ *[]Spec) {
			b.deploy("default", "hello", "three")
			if _, err := b.Rollback(ctx, ref("default", "hello"), "", "", "x"); err != nil {
				b.t.Fatal(err)
			}
		},
		"deleted and made anew": func(b *bench, _ *Plan, _ *[]Spec) {
			if err := b.Delete(ctx, ref("default", "hello"), "x"); err != nil {
				b.t.Fatal(err)
			}
			b.deploy("default", "hello", "one")
		},
		"other code":          func(_ *bench, _ *Plan, s *[]Spec) { (*s)[0].Artifact = function.DigestOf([]byte("three")) },
		"other configuration": func(_ *bench, _ *Plan, s *[]Spec) { (*s)[0].Config.Limits.Memory++ },
		"another alias":       func(_ *bench, p *Plan, _ *[]Spec) { p.Alias = "beta" },
		"another namespace":   func(_ *bench, p *Plan, _ *[]Spec) { p.Namespace = "other" },
		"one function more":   func(_ *bench, _ *Plan, s *[]Spec) { *s = append(*s, spec("more", "one")) },
		"one function less":   func(_ *bench, p *Plan, _ *[]Spec) { p.Changes = append(p.Changes, p.Changes[0]) },
		"another function":    func(_ *bench, p *Plan, _ *[]Spec) { p.Changes[0].Function = "else" },
		"forged revision":     func(_ *bench, p *Plan, _ *[]Spec) { p.Changes[0].Revision++ },
		"forged action":       func(_ *bench, p *Plan, _ *[]Spec) { p.Changes[0].Action = ActionNone },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t)
			for _, code := range []string{"two", "three"} {
				b.upload(code)
			}
			b.deploy("default", "hello", "one")
			specs := []Spec{two}
			p, err := b.Plan(ctx, "default", "", specs)
			if err != nil {
				t.Fatal(err)
			}
			meddle(b, &p, &specs)
			before := b.Functions("")
			_, err = b.Apply(ctx, p, specs, "x")
			wantCode(t, err, problem.PlanStale)
			if after := b.Functions(""); !equalViews(before, after) {
				t.Errorf("a refused plan changed %v to %v", before, after)
			}
		})
	}
}

func equalViews(a, b []Function) bool {
	return slices.EqualFunc(a, b, func(x, y Function) bool { return x.Ref == y.Ref && x.Revision == y.Revision })
}

func TestApplyNeedsTheCode(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	_, err := b.tryDeploy("default", "", spec("hello", "never uploaded"))
	wantCode(t, err, problem.NotFound)
	b.upload("one")
	s := spec("hello", "one")
	s.Size = 4
	_, err = b.tryDeploy("default", "", s)
	wantCode(t, err, problem.DigestMismatch)
	s.Size = 0 // as it was uploaded
	if _, err = b.tryDeploy("default", "", s); err != nil {
		t.Fatal(err)
	}
	if v, _, _ := b.Resolve(ref("default", "hello"), "", noRoll); v.Size != 3 {
		t.Errorf("size %d", v.Size)
	}
	if got := b.store.keys("version."); len(got) != 1 {
		t.Errorf("stored versions %v", got)
	}
}

func TestDeployingToAnotherAliasLeavesLiveAlone(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	hello := ref("default", "hello")
	v1 := b.deploy("default", "hello", "one", "/hello")
	b.upload("two")
	done, err := b.tryDeploy("default", "beta", spec("hello", "two", "/beta"))
	if err != nil {
		t.Fatal(err)
	}
	b.wantLive(hello, v1)
	if v, alias, err := b.Resolve(hello, "beta", noRoll); err != nil || v.ID != done[0].Version || alias != "beta" {
		t.Errorf("beta is %v, alias %q, error %v", v, alias, err)
	}
	if rs := b.Routes(); len(rs) != 1 || rs[0].Trigger.Path != "/hello" {
		t.Errorf("routes %v", rs)
	}
	// A function that was never live has no live version and no route.
	if _, err := b.tryDeploy("default", "beta", spec("fresh", "two", "/fresh")); err != nil {
		t.Fatal(err)
	}
	_, _, err = b.Resolve(ref("default", "fresh"), "", noRoll)
	wantCode(t, err, problem.NotFound)
	if rs := b.Routes(); len(rs) != 1 {
		t.Errorf("routes %v", rs)
	}
}

func TestCallerKeepsItsConfiguration(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.upload("one")
	s := spec("hello", "one", "/hello")
	s.Config.Environment = map[string]string{"A": "1"}
	if _, err := b.tryDeploy("default", "", s); err != nil {
		t.Fatal(err)
	}
	s.Config.Environment["A"] = "2"
	s.Config.HTTP[0].Path = "/elsewhere"
	v, _, err := b.Resolve(ref("default", "hello"), "", noRoll)
	if err != nil || v.Config.Environment["A"] != "1" || v.Config.HTTP[0].Path != "/hello" {
		t.Errorf("a deployed configuration was changed through the caller's copy: %+v, %v", v.Config, err)
	}
}

func TestApplyOfSeveralSaysHowFarItCame(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.upload("one")
	specs := []Spec{spec("a", "one"), spec("b", "one"), spec("c", "one")}
	p, err := b.Plan(ctx, "default", "", specs)
	if err != nil {
		t.Fatal(err)
	}
	b.inject(4, failBefore)
	b.faults.only = "create" // version and record of a, version of b, record of b
	_, err = b.Apply(ctx, p, specs, "x")
	var ae *ApplyError
	if !errors.As(err, &ae) {
		t.Fatalf("error %v", err)
	}
	if len(ae.Applied) != 1 || ae.Applied[0].Name != "a" || ae.Failed != "b" || !slices.Equal(ae.Skipped, []string{"c"}) || ae.Uncertain {
		t.Errorf("told %+v", ae)
	}
	if d := problem.From(err).Detail; !strings.Contains(d, "already applied: a") || !strings.Contains(d, "not begun: c") || strings.Contains(d, "injected") {
		t.Errorf("detail %q", d)
	}
	b.heal()
	for name, want := range map[string]bool{"a": true, "b": false, "c": false} {
		if _, err := b.Function(ref("default", name)); (err == nil) != want {
			t.Errorf("%s: %v", name, err)
		}
	}
	// Planning again finds the rest to do and does it.
	done, err := b.tryDeploy("default", "", specs...)
	if err != nil || done[0].Changed || !done[1].Changed || !done[2].Changed {
		t.Errorf("second go: %+v, %v", done, err)
	}
}

func TestAnotherProcessWasFaster(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.deploy("default", "hello", "one")
	b.upload("two")
	b.upload("three")
	other, err := Open(ctx, b.config())
	if err != nil {
		t.Fatal(err)
	}
	s := spec("hello", "two")
	p, err := b.Plan(ctx, "default", "", []Spec{s})
	if err != nil {
		t.Fatal(err)
	}
	meddled := false
	b.store.onWrite = func(key string) {
		if meddled || key != "function.default.hello" {
			return
		}
		meddled = true
		if _, err := other.SetAlias(ctx, ref("default", "hello"), "beta", []Weight{{p.Changes[0].Current, 100}}, 0, "other"); err != nil {
			t.Errorf("the other process: %v", err)
		}
	}
	_, err = b.Apply(ctx, p, []Spec{s}, "x")
	wantCode(t, err, problem.PlanStale)
	if !meddled {
		t.Fatal("nobody meddled")
	}
	// What the other one did is seen, and the next attempt works.
	if _, _, err := b.Resolve(ref("default", "hello"), "beta", noRoll); err != nil {
		t.Error(err)
	}
	if _, err := b.tryDeploy("default", "", s); err != nil {
		t.Error(err)
	}
}

func TestMutationWaitsNoLongerThanItsContext(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	if err := b.lock(ctx); err != nil {
		t.Fatal(err)
	}
	defer b.unlock()
	short, cancel := context.WithTimeout(ctx, time.Millisecond)
	defer cancel()
	if err := b.Delete(short, ref("default", "hello"), "x"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error %v", err)
	}
}

func TestPlanSaysWhatChangesOfNativeVersions(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	old := spec("hello", "one", "GET /a")
	old.Config.Runtime, old.Config.Entry, old.Config.Isolation = function.RuntimeHTTP, "", function.IsolationInvocation
	old.Config.Command, old.Config.Sandbox = []string{"node", "server.js"}, function.SandboxGVisor
	old.Config.Limits.Scratch, old.Config.Limits.Processes, old.Config.Limits.Calls = 64<<20, 64, 0
	b.upload("one")
	if _, err := b.tryDeploy("default", "", old); err != nil {
		t.Fatal(err)
	}
	next := old
	next.Config.Runtime, next.Config.Isolation, next.Config.Sandbox = function.RuntimeNodeJS, function.IsolationInstance, ""
	next.Config.Command, next.Config.Handler = nil, "index.handler"
	next.Config.Limits.Scratch, next.Config.Limits.Processes = 128<<20, 65
	module := spec("hello", "one", "GET /a")
	for _, c := range []struct {
		to       Spec
		diff     []Delta
		warnings []string
	}{
		{next, []Delta{
			{"command", "node server.js", ""},
			{"handler", "", "index.handler"},
			{"isolation", "invocation", "instance"},
			{"processes", "64", "65"},
			{"runtime", "http", "nodejs"},
			{"sandbox", "gvisor", ""},
			{"scratch", "64Mi", "128Mi"},
		}, []string{
			"scratch is raised from 64Mi to 128Mi", "processes is raised from 64 to 65",
			"isolation is lowered from invocation to instance", "sandbox is lowered from gvisor",
		}},
	} {
		p, err := b.Plan(ctx, "default", "", []Spec{c.to})
		if err != nil {
			t.Fatal(err)
		}
		got := p.Changes[0]
		if !slices.Equal(got.Diff, c.diff) {
			t.Errorf("differences %+v, want %+v", got.Diff, c.diff)
		}
		if len(got.Warnings) != len(c.warnings) {
			t.Errorf("warnings %q", got.Warnings)
		}
		for i, w := range c.warnings {
			if i < len(got.Warnings) && !strings.Contains(got.Warnings[i], w) {
				t.Errorf("warning %q, want %q", got.Warnings[i], w)
			}
		}
	}
	// A module that becomes a native version is a step down, of which no detail need be told.
	if _, err := b.tryDeploy("default", "", module); err != nil {
		t.Fatal(err)
	}
	p, err := b.Plan(ctx, "default", "", []Spec{next})
	if err != nil {
		t.Fatal(err)
	}
	if !slices.ContainsFunc(p.Changes[0].Warnings, func(s string) bool { return strings.Contains(s, "runtime nodejs runs as machine code") }) {
		t.Errorf("warnings %q", p.Changes[0].Warnings)
	}
}

package control

import (
	"strings"
	"testing"
	"time"

	"github.com/casemate-dev/casemate/api"
	"github.com/casemate-dev/casemate/api/problem"
	"github.com/casemate-dev/casemate/internal/audit"
	"github.com/casemate-dev/casemate/internal/function"
)

func TestDeployDescribeAndDelete(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	c, ctx := r.client(adminSecret), t.Context()
	d := string(function.DigestOf([]byte("one")))
	if has, err := c.HasArtifact(ctx, d); has || err != nil {
		t.Fatalf("before: %v %v", has, err)
	}
	first := r.deploy("default", "hello", "one", hello("GREETING", "hi"))
	if has, err := c.HasArtifact(ctx, d); !has || err != nil {
		t.Fatalf("after: %v %v", has, err)
	}
	if f := first.Functions[0]; !f.Changed || len(f.URLs) != 1 || f.URLs[0] != "https://127.0.0.1:8443/hello" {
		t.Fatalf("deployed: %+v", f)
	}
	again := r.deploy("default", "hello", "one", hello("GREETING", "hi"))
	if again.Functions[0].Changed || again.Functions[0].Version != first.Functions[0].Version {
		t.Fatalf("the same thing twice: %+v", again)
	}
	second := r.deploy("default", "hello", "two", hello())
	f, err := c.Function(ctx, "default", "hello")
	if err != nil {
		t.Fatal(err)
	}
	if f.Live.ID != second.Functions[0].Version || f.Live.Config.MemoryBytes != function.DefaultMemory || f.Live.Creator != "key:admin" || len(f.Aliases[0].History) != 2 || f.Stats == nil {
		t.Fatalf("described: %+v", f)
	}
	vs, err := c.Versions(ctx, "default", "hello")
	if err != nil || len(vs) != 2 || len(vs[0].Aliases) != 1 || vs[1].Config.Environment["GREETING"] != "hi" {
		t.Fatalf("versions: %+v %v", vs, err)
	}
	a, err := c.Rollback(ctx, "default", "hello", api.Rollback{})
	if err != nil || a.Targets[0].Version != first.Functions[0].Version {
		t.Fatalf("rollback: %+v %v", a, err)
	}
	before := len(r.prepared)
	a, err = c.SetAlias(ctx, "default", "hello", "canary", api.SetAlias{Targets: []api.Weight{{Version: vs[0].ID[7:19], Percent: 10}, {Version: vs[1].ID, Percent: 90}}})
	if err != nil || len(a.Targets) != 2 || len(r.prepared) != before+2 {
		t.Fatalf("alias: %+v %v, %d prepared", a, err, len(r.prepared)-before)
	}
	_, err = c.SetAlias(ctx, "default", "hello", "canary", api.SetAlias{Targets: []api.Weight{{Version: "ffffffffff", Percent: 100}}})
	if e := refused(t, err, problem.NotFound); e.Field != "targets[0].version" {
		t.Errorf("field %q", e.Field)
	}
	if err := c.DeleteAlias(ctx, "default", "hello", "canary"); err != nil {
		t.Fatal(err)
	}
	if err := c.DeleteFunction(ctx, "default", "hello"); err != nil {
		t.Fatal(err)
	}
	_, err = c.Function(ctx, "default", "hello")
	refused(t, err, problem.NotFound)
	for _, action := range []string{"artifact.put", "deploy", "rollback", "alias.set", "alias.delete", "function.delete"} {
		if !strings.Contains(r.log.String(), `"msg":"audit","principal":"key:admin","action":"`+action+`","object":"`) {
			t.Errorf("no audit line for %s", action)
		}
	}
}

func TestCodeThatCannotRunNeverBecomesLive(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	good := r.deploy("default", "hello", "good", hello())
	c, ctx := r.client(adminSecret), t.Context()
	bad := "bad"
	d := string(function.DigestOf([]byte(bad)))
	specs := []api.FunctionSpec{{Name: "hello", Artifact: d, Config: hello()}}
	plan, err := c.Plan(ctx, "default", api.PlanRequest{Functions: specs})
	if err != nil {
		t.Fatal(err)
	}
	_, err = c.Apply(ctx, "default", api.ApplyRequest{Plan: *plan, Functions: specs})
	if e := refused(t, err, problem.NotFound); e.Field != "functions[0].artifact" {
		t.Errorf("code that was not uploaded: %+v", e.Details)
	}
	if err := c.PutArtifact(ctx, d, int64(len(bad)), strings.NewReader(bad)); err != nil {
		t.Fatal(err)
	}
	r.prepErr = problem.New(problem.InvalidModule, "the module exports no _start")
	for _, action := range []string{"update", "none"} { // the caller's word for it does not matter
		plan.Changes[0].Action = action
		_, err = c.Apply(ctx, "default", api.ApplyRequest{Plan: *plan, Functions: specs})
		if e := refused(t, err, problem.InvalidModule); e.Field != "functions.hello" || !strings.Contains(e.Error(), "exports no _start\nhint: ") {
			t.Errorf("refusal: %v", e)
		}
	}
	f, err := c.Function(ctx, "default", "hello")
	if err != nil || f.Live.ID != good.Functions[0].Version {
		t.Fatalf("live moved to %+v (%v)", f.Live, err)
	}
	if !strings.Contains(r.log.String(), `"outcome":"invalid_module"`) {
		t.Error("the attempt is not in the audit log")
	}
}

// A script is text: what cannot be is refused before a sandbox sees it, and the
// text is left for the sandbox to judge.
func TestScriptsMustBeText(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	c, ctx := r.client(adminSecret), t.Context()
	apply := func(runtime, code string) error {
		d := string(function.DigestOf([]byte(code)))
		if err := c.PutArtifact(ctx, d, int64(len(code)), strings.NewReader(code)); err != nil {
			t.Fatal(err)
		}
		specs := []api.FunctionSpec{{Name: "hello", Artifact: d, Config: api.FunctionConfig{Runtime: runtime}}}
		plan, err := c.Plan(ctx, "default", api.PlanRequest{Functions: specs})
		if err != nil {
			t.Fatal(err)
		}
		_, err = c.Apply(ctx, "default", api.ApplyRequest{Plan: *plan, Functions: specs})
		return err
	}
	for _, runtime := range []string{"js", "ts"} {
		for _, code := range []string{"\x00asm\x01\x00\x00\x00", "export default {}\xff", "\xff\xfee\x00x\x00"} {
			if e := refused(t, apply(runtime, code), problem.InvalidModule); e.Field != "functions.hello" || e.Remedy == "" {
				t.Errorf("%s %q: %+v", runtime, code, e.Details)
			}
		}
		if len(r.prepared) != 0 {
			t.Fatalf("%s: a sandbox was troubled with %d versions", runtime, len(r.prepared))
		}
	}
	if err := apply("wasm", "\x00asm\x01\x00\x00\x00"); err != nil {
		t.Errorf("a module was taken for a script: %v", err)
	}
	if err := apply("ts", "export default { fetch: () => new Response('é') }"); err != nil {
		t.Error(err)
	}
	if n := len(r.prepared); n != 2 || r.prepared[1].Config.Entry != function.EntryHandle || r.prepared[1].Config.Limits.CPU != function.DefaultCPU ||
		r.prepared[1].Config.Limits.Calls != function.DefaultCalls {
		t.Errorf("prepared: %+v", r.prepared)
	}
}

func TestStalePlansAreRefused(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.deploy("default", "hello", "one", hello())
	c, ctx := r.client(adminSecret), t.Context()
	d := string(function.DigestOf([]byte("one")))
	specs := []api.FunctionSpec{{Name: "hello", Artifact: d, Config: hello("A", "b")}}
	plan, err := c.Plan(ctx, "default", api.PlanRequest{Functions: specs})
	if err != nil {
		t.Fatal(err)
	}
	r.deploy("default", "hello", "two", hello())
	_, err = c.Apply(ctx, "default", api.ApplyRequest{Plan: *plan, Functions: specs})
	refused(t, err, problem.PlanStale)
}

func TestListingShowsOnlyWhatTheKeyMayRead(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.deploy("default", "hello", "one", hello())
	r.deploy("default", "hidden", "one", api.FunctionConfig{Runtime: "go"})
	r.deploy("shop", "hello", "one", hello())
	got, err := r.client("read-one-key").Functions(t.Context(), "default")
	if err != nil || len(got) != 1 || got[0].Name != "hello" {
		t.Fatalf("got %+v, %v", got, err)
	}
	all, err := r.client(adminSecret).Functions(t.Context(), "default")
	if err != nil || len(all) != 2 {
		t.Fatalf("got %+v, %v", all, err)
	}
	shop, err := r.client(adminSecret).Functions(t.Context(), "shop")
	if err != nil || len(shop) != 1 || shop[0].URLs[0] != "https://127.0.0.1:8443/~shop/hello" {
		t.Fatalf("got %+v, %v", shop, err)
	}
	_, err = r.client("read-one-key").Functions(t.Context(), "shop")
	refused(t, err, problem.Forbidden)
}

func TestDeployNeedsTheScopeOnEveryFunction(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	d := string(function.DigestOf([]byte("x")))
	specs := []api.FunctionSpec{{Name: "hello", Artifact: d, Config: hello()}, {Name: "theirs", Artifact: d, Config: api.FunctionConfig{Runtime: "go"}}}
	c := r.client("deploy-fn-key")
	if _, err := c.Plan(t.Context(), "default", api.PlanRequest{Functions: specs[:1]}); err != nil {
		t.Fatal(err)
	}
	_, err := c.Plan(t.Context(), "default", api.PlanRequest{Functions: specs})
	refused(t, err, problem.Forbidden)
	_, err = c.Apply(t.Context(), "default", api.ApplyRequest{Plan: api.Plan{Namespace: "default"}, Functions: specs})
	refused(t, err, problem.Forbidden)
}

func TestReceiptsOfOthersDoNotExist(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.recorder.receipts["r1"] = audit.Receipt{ID: "r1", Namespace: "default", Function: "hello", Wall: 1500 * time.Microsecond, Outcome: "ok"}
	got, err := r.client("read-one-key").Receipt(t.Context(), "r1")
	if err != nil || got.WallMillis != 1.5 {
		t.Fatalf("got %+v, %v", got, err)
	}
	_, other := r.client("wrong-fn-key").Receipt(t.Context(), "r1")
	_, absent := r.client("wrong-fn-key").Receipt(t.Context(), "r2")
	a, b := refused(t, other, problem.NotFound), refused(t, absent, problem.NotFound)
	if strings.ReplaceAll(a.Detail, "r1", "r2") != b.Detail {
		t.Errorf("%q and %q tell them apart", a.Detail, b.Detail)
	}
}

func TestStatisticsOfReceipts(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.deploy("default", "hello", "one", hello())
	for i, id := range []string{"a", "b", "c", "d"} {
		rc := audit.Receipt{ID: id, Namespace: "default", Function: "hello", Wall: time.Duration(i+1) * time.Millisecond, CPU: time.Millisecond, Memory: int64(i), Outcome: "ok"}
		if id == "d" {
			rc.Outcome = "function_crashed"
		}
		r.recorder.receipts[id] = rc
	}
	f, err := r.client(adminSecret).Function(t.Context(), "default", "hello")
	if err != nil {
		t.Fatal(err)
	}
	if s := f.Stats; s.Count != 4 || s.Failed != 1 || s.P50Millis != 2 || s.P99Millis != 4 || s.CPUMillis != 4 || s.MemoryPeak != 3 || len(s.Last) != 4 {
		t.Fatalf("got %+v", s)
	}
}

func TestKeysAreMadeListedAndRevoked(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	c, ctx := r.client(adminSecret), t.Context()
	made, err := c.CreateKey(ctx, api.CreateKey{Name: "ci", Scopes: []string{"deploy:default/*"}, ExpiresMillis: 60_000})
	if err != nil || made.Secret != "the-new-secret" || made.Expires == nil || made.Scopes[0] != "deploy:default/*" {
		t.Fatalf("made %+v, %v", made, err)
	}
	if in := r.keys.created[0]; in.Creator != "key:admin" {
		t.Errorf("creator %q", in.Creator)
	}
	keys, err := c.Keys(ctx)
	if err != nil || len(keys) != 1 {
		t.Fatalf("keys %+v, %v", keys, err)
	}
	if err := c.RevokeKey(ctx, "k9"); err != nil {
		t.Fatal(err)
	}
	refused(t, c.RevokeKey(ctx, "k0"), problem.NotFound)
	r.keys.mu.Lock()
	r.keys.err = &plantedError{}
	r.keys.mu.Unlock()
	if e := refused(t, c.RevokeKey(ctx, "k9"), problem.Internal); !strings.Contains(e.Remedy, "restart") {
		t.Errorf("a revocation that was not stored must say so: %v", e)
	}
	for _, want := range []string{`"action":"key.create","object":"k9","outcome":"ok"`, `"action":"key.revoke","object":"k9","outcome":"ok"`, `"action":"key.revoke","object":"k0","outcome":"not_found"`} {
		if !strings.Contains(r.log.String(), want) {
			t.Errorf("no audit line with %s", want)
		}
	}
	if strings.Contains(r.log.String(), "the-new-secret") {
		t.Error("the secret is in the log")
	}
}

package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/casemate-dev/casemate/api"
	"github.com/casemate-dev/casemate/api/problem"
	"github.com/casemate-dev/casemate/test/harness"
)

type apiSpec = api.FunctionSpec

func TestDeployingTheSameTwiceChangesNothing(t *testing.T) {
	t.Parallel()
	n := harness.NewHome(t).Up()
	g := map[string]harness.Guest{"hello": {Body: "hi"}}
	first := n.MustDeploy(g, nil)
	before, err := n.Client.Function(t.Context(), "default", "hello")
	if err != nil {
		t.Fatal(err)
	}
	second := n.MustDeploy(g, nil)
	after, err := n.Client.Function(t.Context(), "default", "hello")
	if err != nil {
		t.Fatal(err)
	}
	if first["hello"] != second["hello"] || before.Revision != after.Revision {
		t.Errorf("versions %v and %v, revisions %d and %d", first, second, before.Revision, after.Revision)
	}
}

func TestReceiptsAndLogsAreThereWhenTheAnswerIs(t *testing.T) {
	t.Parallel()
	n := harness.NewHome(t).Up()
	v := n.MustDeploy(map[string]harness.Guest{"hello": {Body: "hi", Log: "a line\n"}}, nil)
	a, err := n.Call(t.Context(), n.HTTP(), n.InvokeKey(), "/hello", "12345")
	if err != nil {
		t.Fatal(err)
	}
	r, err := n.Client.Receipt(t.Context(), a.Receipt)
	if err != nil {
		t.Fatal(err)
	}
	if r.RequestID != a.Header.Get("X-Request-Id") || r.Function != "hello" || r.Version != v["hello"] || r.Trigger != "http" ||
		!strings.HasPrefix(r.Principal, "key:") || r.BytesIn != 5 || r.Status != 200 || r.Outcome != "ok" ||
		r.CPUMillis <= 0 || r.MemoryPeak < 65536 || r.WallMillis <= 0 || r.Isolation == "" {
		t.Errorf("receipt: %+v", r)
	}
	found := false
	for rec, err := range n.Client.Logs(t.Context(), "default", api.LogQuery{Function: "hello", RequestID: r.RequestID}) {
		if err != nil {
			t.Fatal(err)
		}
		found = found || rec.Text == "a line"
	}
	if !found {
		t.Error("the line is not in the log")
	}
}

// TestLimitsHaveTypedAnswers hits each limit through the gateway, and sees that
// the neighbour still answers.
func TestLimitsHaveTypedAnswers(t *testing.T) {
	t.Parallel()
	n := harness.NewHome(t).Up()
	n.MustDeploy(map[string]harness.Guest{
		"spin": {Spin: true}, "sleep": {Millis: 60_000}, "trap": {Trap: true}, "exit": {Exit: 3}, "recurse": {Recurse: true},
		"flood": {Flood: true, Body: strings.Repeat("x", 1000)}, "grow": {Grow: true}, "weird": {Status: 99}, "neighbour": {Body: "fine"},
	}, func(s *apiSpec) {
		s.Config.MemoryBytes, s.Config.OutputBytes = 4<<20, 64<<10
		if s.Name == "spin" || s.Name == "sleep" { // only they: a slow machine takes longer to start the others
			s.Config.TimeoutMillis = 500
		}
		s.Config.HTTP[0].BodyLimit = 1000
	})
	key, client := n.InvokeKey(), n.HTTP()
	for name, want := range map[string]problem.Code{
		"spin": problem.FunctionTimeout, "sleep": problem.FunctionTimeout, "trap": problem.FunctionCrashed, "exit": problem.FunctionCrashed,
		"recurse": problem.FunctionStack, "flood": problem.FunctionOutput, "grow": problem.FunctionMemory, "weird": problem.FunctionBadAnswer,
	} {
		a, err := n.Call(t.Context(), client, key, "/"+name, "")
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		d := details(t, a)
		if d.Code != want || a.Status != problem.Lookup(want).Status || d.RequestID == "" || a.Receipt == "" {
			t.Errorf("%s: %d %s, want %s", name, a.Status, a.Body, want)
		}
		for _, inner := range []string{"wasm", "goroutine", "/", "0x"} {
			if strings.Contains(d.Detail, inner) {
				t.Errorf("%s: the answer shows something internal: %q", name, d.Detail)
			}
		}
		if b, err := n.Call(t.Context(), client, key, "/neighbour", ""); err != nil || b.Body != "fine" {
			t.Errorf("the neighbour after %s: %+v, %v", name, b, err)
		}
	}
	if a, err := n.Call(t.Context(), client, key, "/neighbour", strings.Repeat("x", 1001)); err != nil || details(t, a).Code != problem.BodyTooLarge {
		t.Errorf("a body beyond the limit: %+v, %v", a, err)
	}
}

func details(t *testing.T, a harness.Answer) problem.Details {
	t.Helper()
	var d problem.Details
	if err := json.Unmarshal([]byte(a.Body), &d); err != nil || a.Header.Get("Content-Type") != problem.MediaType {
		t.Errorf("not a problem detail: %d %q %v", a.Status, a.Body, err)
	}
	return d
}

func TestConcurrencyLimitAnswers429(t *testing.T) {
	t.Parallel()
	n := harness.NewHome(t).Up()
	n.MustDeploy(map[string]harness.Guest{"short": {Body: "ok", Millis: 1500}, "long": {Body: "ok", Millis: 20_000}}, func(s *apiSpec) {
		s.Config.Concurrency.Max, s.Config.TimeoutMillis = 1, 60_000
	})
	key, client := n.InvokeKey(), n.HTTP()
	call := func(short bool) (harness.Answer, error) {
		name := "/long"
		if short {
			name = "/short"
		}
		return n.Call(t.Context(), client, key, name, "")
	}
	refusedWhileHeld(t, n, call, call)
}

// refusedWhileHeld wants a call of a function that takes one at a time to be refused with
// a hint while another is under way. hold and ask call one that takes a little while; on a
// machine so slow that it has ended before the second call is there, one that takes long.
func refusedWhileHeld(t *testing.T, n *harness.Node, hold, ask func(short bool) (harness.Answer, error)) {
	t.Helper()
	for _, short := range []bool{true, false} {
		first := make(chan error, 1)
		go func() {
			a, err := hold(short)
			if err == nil && a.Status != http.StatusOK {
				err = fmt.Errorf("answered %d", a.Status)
			}
			first <- err
		}()
		harness.Eventually(t, "the first call is under way", func() bool {
			s, err := n.Client.Status(t.Context())
			return len(first) > 0 || err == nil && s.InFlight == 1
		})
		a, err := ask(short)
		if err := <-first; err != nil {
			t.Errorf("first call: %v", err)
		}
		if short && err == nil && a.Status == http.StatusOK {
			continue
		}
		if err != nil || a.Status != http.StatusTooManyRequests || a.Header.Get("Retry-After") == "" {
			t.Errorf("second call: %+v, %v", a, err)
		}
		return
	}
}

func TestKeysAreAskedForAndRevokedAtOnce(t *testing.T) {
	t.Parallel()
	n := harness.NewHome(t).Up()
	n.MustDeploy(map[string]harness.Guest{"closed": {Body: "in"}, "open": {Body: "in"}}, func(s *apiSpec) {
		s.Config.HTTP[0].Public = s.Name == "open"
	})
	client := n.HTTP()
	call := func(key, path string) int {
		a, err := n.Call(t.Context(), client, key, path, "")
		if err != nil {
			t.Fatal(err)
		}
		return a.Status
	}
	narrow, err := n.Client.CreateKey(t.Context(), api.CreateKey{Scopes: []string{"invoke:default/open"}})
	if err != nil {
		t.Fatal(err)
	}
	wide, err := n.Client.CreateKey(t.Context(), api.CreateKey{Scopes: []string{"invoke:default/closed"}})
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		key, path string
		want      int
	}{
		{"", "/open", 200},
		{"", "/closed", 401},
		{"cm_nonsense", "/closed", 401},
		{narrow.Secret, "/closed", 403},
		{wide.Secret, "/closed", 200},
		{wide.Secret, "/nothing", 404},
	} {
		if got := call(tc.key, tc.path); got != tc.want {
			t.Errorf("%s: %d, want %d", tc.path, got, tc.want)
		}
	}
	if err := n.Client.RevokeKey(t.Context(), wide.ID); err != nil {
		t.Fatal(err)
	}
	if got := call(wide.Secret, "/closed"); got != 401 {
		t.Errorf("right after its revocation the key gives %d", got)
	}
}

// TestRollbackUnderLoad deploys and rolls back while calls come in, and wants
// each answered by one of the two versions, none lost, and the new pointer in
// force for the next request.
func TestRollbackUnderLoad(t *testing.T) {
	t.Parallel()
	n := harness.NewHome(t).Up()
	n.MustDeploy(map[string]harness.Guest{"app": {Body: "one", Millis: 2}}, nil)
	n.MustDeploy(map[string]harness.Guest{"app": {Body: "two", Millis: 2}}, nil)
	key, client := n.InvokeKey(), n.HTTP()
	var wg sync.WaitGroup
	var calls atomic.Int64
	stop := make(chan struct{})
	for range 8 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				a, err := n.Call(t.Context(), client, key, "/app", "")
				if err != nil || a.Status != 200 || (a.Body != "one" && a.Body != "two") {
					t.Errorf("under load: %+v, %v", a, err)
					return
				}
				calls.Add(1)
			}
		})
	}
	want := "two"
	for range 10 {
		if _, err := n.Client.Rollback(t.Context(), "default", "app", api.Rollback{}); err != nil {
			t.Error(err)
			break
		}
		if want == "two" {
			want = "one"
		} else {
			want = "two"
		}
		if a, err := n.Call(t.Context(), client, key, "/app", ""); err != nil || a.Body != want {
			t.Errorf("the next request after a rollback: %q, %v; want %q", a.Body, err, want)
		}
	}
	close(stop)
	wg.Wait()
	if calls.Load() < 50 {
		t.Errorf("only %d calls: the load was no load", calls.Load())
	}
}

func TestCanaryWeightsHold(t *testing.T) {
	t.Parallel()
	n := harness.NewHome(t).Up()
	one := n.MustDeploy(map[string]harness.Guest{"app": {Body: "one"}}, nil)["app"]
	two := n.MustDeploy(map[string]harness.Guest{"app": {Body: "two"}}, nil)["app"]
	if _, err := n.Client.SetAlias(t.Context(), "default", "app", "live", api.SetAlias{
		Targets: []api.Weight{{Version: one, Percent: 70}, {Version: two, Percent: 30}},
	}); err != nil {
		t.Fatal(err)
	}
	key, client := n.InvokeKey(), n.HTTP()
	const calls = 1000
	twos := 0
	for range calls {
		a, err := n.Call(t.Context(), client, key, "/app", "")
		if err != nil || a.Status != 200 {
			t.Fatalf("%+v, %v", a, err)
		}
		if a.Body == "two" {
			twos++
		}
	}
	// Six standard deviations of a binomial with p = 0.3 are 87.
	if twos < 300-87 || twos > 300+87 {
		t.Errorf("%d of %d calls went to the canary, want about 300", twos, calls)
	}
}

func TestCodeThatCannotRunIsRefusedAtDeploy(t *testing.T) {
	t.Parallel()
	n := harness.NewHome(t).Up()
	n.MustDeploy(map[string]harness.Guest{"app": {Body: "good"}}, nil)
	code := []byte("\x00asm\x01\x00\x00\x00") // a module, but one that exports nothing
	if err := n.Client.PutArtifact(t.Context(), harness.Digest(code), int64(len(code)), strings.NewReader(string(code))); err != nil {
		t.Fatal(err)
	}
	fns := []api.FunctionSpec{{Name: "app", Artifact: harness.Digest(code), Config: api.FunctionConfig{
		Runtime: "wasm", HTTP: []api.HTTPTrigger{{Method: "POST", Path: "/app"}},
	}}}
	plan, err := n.Client.Plan(t.Context(), "default", api.PlanRequest{Functions: fns})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := n.Client.Apply(t.Context(), "default", api.ApplyRequest{Plan: *plan, Functions: fns}); err == nil || !strings.Contains(err.Error(), "_start") {
		t.Errorf("got %v, want an error that says what is missing", err)
	}
	if a, err := n.Call(t.Context(), n.HTTP(), n.InvokeKey(), "/app", ""); err != nil || a.Body != "good" {
		t.Errorf("the version from before: %+v, %v", a, err)
	}
}

package invoke_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/casemate-dev/casemate/api/problem"
	"github.com/casemate-dev/casemate/internal/audit"
	"github.com/casemate-dev/casemate/internal/function"
	"github.com/casemate-dev/casemate/internal/identity"
	"github.com/casemate-dev/casemate/internal/invoke"
	"github.com/casemate-dev/casemate/internal/sandbox"
)

var hello = function.Ref{Namespace: "default", Name: "hello"}

type versions struct{ asked int }

func (v *versions) Resolve(ref function.Ref, qualifier string, roll func(int) int) (*function.Version, string, error) {
	v.asked++
	if ref != hello {
		return nil, "", problem.New(problem.NotFound, "no function %s", ref)
	}
	return &function.Version{
		Ref: ref, ID: function.DigestOf([]byte("v")), Artifact: function.DigestOf([]byte("a")),
		Config: function.Config{Limits: function.Limits{Memory: 64 << 20, Timeout: time.Second, Output: 100, Concurrency: 2}},
	}, "live", nil
}

type runner func(context.Context, *sandbox.Invocation) (sandbox.Result, error)

func (r runner) Invoke(ctx context.Context, inv *sandbox.Invocation) (sandbox.Result, error) {
	return r(ctx, inv)
}

type recorder struct {
	mu       sync.Mutex
	receipts []audit.Receipt
	lines    []audit.LogLine
	fail     error
	canceled bool
}

func (r *recorder) Record(ctx context.Context, rc *audit.Receipt) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.canceled = ctx.Err() != nil
	r.receipts = append(r.receipts, *rc)
	return r.fail
}

func (r *recorder) Log(l audit.LogLine) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lines = append(r.lines, l)
}

type fixture struct {
	*invoke.Invoker
	versions  *versions
	recorder  *recorder
	admission *invoke.Admission
}

func setup(t *testing.T, run runner) *fixture {
	t.Helper()
	adm, err := invoke.NewAdmission(8)
	if err != nil {
		t.Fatal(err)
	}
	f := &fixture{versions: &versions{}, recorder: &recorder{}, admission: adm}
	n := 0
	f.Invoker, err = invoke.New(invoke.Config{
		Versions: f.versions, Runner: run, Recorder: f.recorder, Admission: adm, Clock: time.Now,
		NewID: func() string { n++; return fmt.Sprintf("receipt-%d", n) }, Roll: func(int) int { return 0 },
	})
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func holder(scopes ...string) identity.Principal {
	p := identity.Principal{Kind: "key", ID: "abc"}
	for _, s := range scopes {
		sc, err := identity.ParseScope(s)
		if err != nil {
			panic(err)
		}
		p.Scopes = append(p.Scopes, sc)
	}
	return p
}

func ok(_ context.Context, inv *sandbox.Invocation) (sandbox.Result, error) {
	if inv.Alias != function.LiveAlias {
		return sandbox.Result{}, &sandbox.Error{Kind: sandbox.Fault, Public: "it was not told by which alias"}
	}
	inv.Log(sandbox.LogLine{Text: "one"})
	inv.Log(sandbox.LogLine{Text: "two"})
	return sandbox.Result{
		Response: sandbox.ResponseHead{Status: 201}, Body: []byte("hi"),
		Usage: sandbox.Usage{Wall: 5, CPU: 4, MemoryPeak: 3, BytesOut: 2, LogBytes: 6, Sandbox: "s1", Kind: "wasm", Cold: true},
	}, nil
}

func TestReceiptNamesWhatRanAndWhatItTook(t *testing.T) {
	t.Parallel()
	f := setup(t, ok)
	out, err := f.Invoke(t.Context(), &invoke.Call{
		Ref: hello, Principal: holder("invoke:default/hello"), Trigger: invoke.TriggerHTTP, Route: "POST /hello",
		RequestID: "req", Body: []byte("12345"), KeepLog: 1,
	})
	if err != nil {
		t.Fatal(err)
	}
	r := out.Receipt
	if r.ID != "receipt-1" || r.RequestID != "req" || r.Version != string(function.DigestOf([]byte("v"))) ||
		r.Artifact != string(function.DigestOf([]byte("a"))) || r.Principal != "key:abc" || r.Alias != "live" ||
		r.Route != "POST /hello" || r.Status != 201 || r.Outcome != "ok" || r.BytesIn != 5 || r.BytesOut != 2 ||
		r.Wall != 5 || r.CPU != 4 || r.Memory != 3 || r.Sandbox != "s1" || r.Isolation != "wasm" || !r.Cold || r.Start.IsZero() {
		t.Errorf("receipt: %+v", r)
	}
	if len(f.recorder.receipts) != 1 || f.recorder.receipts[0] != r {
		t.Errorf("recorded: %+v", f.recorder.receipts)
	}
	if len(out.Log) != 1 || out.Log[0] != "two" {
		t.Errorf("kept log: %q", out.Log)
	}
	if len(f.recorder.lines) != 2 || f.recorder.lines[0].Receipt != r.ID || f.recorder.lines[0].RequestID != "req" {
		t.Errorf("log lines: %+v", f.recorder.lines)
	}
}

func TestUnauthorizedCallersNeverReachRegistryOrCode(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name string
		who  identity.Principal
		ref  function.Ref
		want problem.Code
	}{
		{"nobody", identity.Principal{}, hello, problem.Unauthenticated},
		{"anonymous", identity.Anonymous(), hello, problem.Unauthenticated},
		{"no scopes", holder(), hello, problem.Forbidden},
		{"another function", holder("invoke:default/other"), hello, problem.Forbidden},
		{"another namespace", holder("invoke:shop/*"), hello, problem.Forbidden},
		{"reading is not invoking", holder("read:default/hello"), hello, problem.Forbidden},
		{"deploying is not invoking", holder("deploy:*/*"), hello, problem.Forbidden},
		{"missing function looks alike", holder("invoke:default/other"), function.Ref{Namespace: "default", Name: "nothing"}, problem.Forbidden},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			f := setup(t, func(context.Context, *sandbox.Invocation) (sandbox.Result, error) {
				t.Error("the function ran")
				return sandbox.Result{}, nil
			})
			_, err := f.Invoke(t.Context(), &invoke.Call{Ref: tc.ref, Principal: tc.who})
			if !problem.HasCode(err, tc.want) {
				t.Errorf("got %v, want %s", err, tc.want)
			}
			if f.versions.asked != 0 {
				t.Error("the registry was asked before the caller was authorized")
			}
		})
	}
}

// What helps whose module cannot be run helps nobody who writes JavaScript.
func TestTheRemedyForCodeThatDoesNotStartIsThatOfItsRuntime(t *testing.T) {
	t.Parallel()
	f := setup(t, ok)
	for runtime, want := range map[function.Runtime]string{
		function.RuntimeTypeScript: "module scope", function.RuntimePython: "runtime python", function.RuntimeWasm: "_start",
	} {
		err := f.Explain(&sandbox.Error{Kind: sandbox.BadModule, Public: "it threw"}, &function.Version{Ref: hello, Config: function.Config{Runtime: runtime}})
		if said := problem.Render(problem.From(err), "req").Remedy; !strings.Contains(said, want) {
			t.Errorf("%s: %q", runtime, said)
		}
	}
}

func TestEveryWayToFailHasItsCodeAndAReceiptAndLeaksNothing(t *testing.T) {
	t.Parallel()
	const inner = "/secret/path at 0xdeadbeef"
	for kind, want := range map[sandbox.Kind]problem.Code{
		sandbox.Timeout: problem.FunctionTimeout, sandbox.CPU: problem.FunctionCPU, sandbox.Calls: problem.FunctionCalls,
		sandbox.Canceled: problem.ClientGone, sandbox.Memory: problem.FunctionMemory,
		sandbox.Stack: problem.FunctionStack, sandbox.Output: problem.FunctionOutput, sandbox.Trap: problem.FunctionCrashed,
		sandbox.Exit: problem.FunctionCrashed, sandbox.BadAnswer: problem.FunctionBadAnswer, sandbox.BadModule: problem.FunctionCrashed,
		sandbox.Tampered: problem.ArtifactTampered, sandbox.Lost: problem.SandboxLost, sandbox.Unavailable: problem.Overloaded,
		"something new": problem.Internal,
	} {
		t.Run(string(kind), func(t *testing.T) {
			t.Parallel()
			f := setup(t, func(context.Context, *sandbox.Invocation) (sandbox.Result, error) {
				return sandbox.Result{Usage: sandbox.Usage{Wall: 7, Fuel: 8, Calls: 9}}, &sandbox.Error{Kind: kind, Public: "fit to be seen", Cause: errors.New(inner)}
			})
			out, err := f.Invoke(t.Context(), &invoke.Call{Ref: hello, Principal: holder("admin"), RequestID: "req"})
			if !problem.HasCode(err, want) {
				t.Fatalf("got %v, want %s", err, want)
			}
			shown, _ := json.Marshal(problem.Render(problem.From(err), "req"))
			if strings.Contains(string(shown), inner) {
				t.Errorf("the cause leaks: %s", shown)
			}
			if out == nil || out.Receipt.Outcome != string(want) || out.Receipt.Status != problem.Lookup(want).Status || out.Receipt.Wall != 7 || out.Receipt.Fuel != 8 || out.Receipt.Calls != 9 {
				t.Errorf("outcome: %+v", out)
			}
			if len(f.recorder.receipts) != 1 {
				t.Errorf("%d receipts", len(f.recorder.receipts))
			}
		})
	}
}

func TestAnswerIsWithheldWhenItsReceiptCannotBeRecorded(t *testing.T) {
	t.Parallel()
	f := setup(t, ok)
	f.recorder.fail = errors.New("disk on fire")
	out, err := f.Invoke(t.Context(), &invoke.Call{Ref: hello, Principal: holder("admin")})
	if out != nil || !problem.HasCode(err, problem.StorageFull) {
		t.Errorf("got %+v, %v", out, err)
	}
}

func TestReceiptIsRecordedThoughTheCallerIsGone(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	f := setup(t, func(context.Context, *sandbox.Invocation) (sandbox.Result, error) {
		cancel()
		return sandbox.Result{}, &sandbox.Error{Kind: sandbox.Canceled}
	})
	if _, err := f.Invoke(ctx, &invoke.Call{Ref: hello, Principal: holder("admin")}); !problem.HasCode(err, problem.ClientGone) {
		t.Errorf("got %v", err)
	}
	if len(f.recorder.receipts) != 1 || f.recorder.canceled {
		t.Errorf("receipts %d, recorder saw the cancellation: %v", len(f.recorder.receipts), f.recorder.canceled)
	}
}

func TestConcurrencyBeyondTheLimitIsTurnedAwayAndComesBack(t *testing.T) {
	t.Parallel()
	entered, leave := make(chan struct{}), make(chan struct{})
	f := setup(t, func(context.Context, *sandbox.Invocation) (sandbox.Result, error) {
		entered <- struct{}{}
		<-leave
		return sandbox.Result{Response: sandbox.ResponseHead{Status: 200}}, nil
	})
	call := func() error {
		_, err := f.Invoke(context.Background(), &invoke.Call{Ref: hello, Principal: holder("admin")})
		return err
	}
	done := make(chan error, 2)
	for range 2 {
		go func() { done <- call() }()
		<-entered
	}
	err := call()
	if !problem.HasCode(err, problem.TooManyRequests) || problem.From(err).RetryAfter <= 0 {
		t.Errorf("third call: %v", err)
	}
	close(leave)
	for range 2 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	go func() { <-entered }()
	if err := call(); err != nil {
		t.Errorf("after the others left: %v", err)
	}
}

func TestNewNamesWhatIsMissing(t *testing.T) {
	t.Parallel()
	if _, err := invoke.New(invoke.Config{}); err == nil || !strings.Contains(err.Error(), "Config.Versions") {
		t.Errorf("got %v", err)
	}
}

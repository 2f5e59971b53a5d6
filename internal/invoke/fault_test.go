package invoke_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/casemate-dev/casemate/api/problem"
	"github.com/casemate-dev/casemate/internal/function"
	"github.com/casemate-dev/casemate/internal/invoke"
	"github.com/casemate-dev/casemate/internal/sandbox"
)

// runtimes answers with one version of the runtime.
type runtimes struct {
	versions
	runtime function.Runtime
}

func (r *runtimes) Resolve(ref function.Ref, qualifier string, roll func(int) int) (*function.Version, string, error) {
	v, alias, err := r.versions.Resolve(ref, qualifier, roll)
	if err == nil {
		v.Config.Runtime = r.runtime
	}
	return v, alias, err
}

func lambdaCall(trigger string) *invoke.Call {
	return &invoke.Call{Ref: hello, Principal: holder("admin"), Trigger: trigger, RequestID: "req", KeepLog: 10}
}

func setupRuntime(t *testing.T, rt function.Runtime, run runner) *fixture {
	t.Helper()
	f := setup(t, run)
	n := 0
	var err error
	f.Invoker, err = invoke.New(invoke.Config{
		Versions: &runtimes{runtime: rt}, Runner: run, Recorder: f.recorder, Admission: f.admission, Clock: time.Now,
		NewID: func() string { n++; return fmt.Sprintf("receipt-%d", n) }, Roll: func(int) int { return 0 },
	})
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func TestWhatAFunctionSaysOfItsFailureIsForItsLogAndItsOwnCallers(t *testing.T) {
	t.Parallel()
	said := `{"errorType":"Secretive","errorMessage":"at /inner/path"}`
	fails := func(context.Context, *sandbox.Invocation) (sandbox.Result, error) {
		return sandbox.Result{}, &sandbox.Error{Kind: sandbox.Fault, Fault: []byte(said)}
	}
	for _, trigger := range []string{invoke.TriggerHTTP, invoke.TriggerInvoke, invoke.TriggerLambda} {
		f := setupRuntime(t, function.RuntimeNodeJS, fails)
		out, err := f.Invoke(t.Context(), lambdaCall(trigger))
		if !problem.HasCode(err, problem.FunctionCrashed) || out == nil || out.Receipt.Outcome != "function_crashed" {
			t.Fatalf("%s: %+v, %v", trigger, out, err)
		}
		shown, _ := json.Marshal(problem.Render(problem.From(err), "req"))
		if strings.Contains(string(shown), "inner") {
			t.Errorf("%s: shown: %s", trigger, shown)
		}
		want := ""
		if trigger == invoke.TriggerLambda {
			want = said
		}
		if string(out.Fault) != want {
			t.Errorf("%s: fault %s", trigger, out.Fault)
		}
		if len(f.recorder.lines) != 1 || f.recorder.lines[0].Text != said || f.recorder.lines[0].Receipt != out.Receipt.ID || len(out.Log) != 1 {
			t.Errorf("%s: log %+v, %q", trigger, f.recorder.lines, out.Log)
		}
	}
}

func TestFaultsAreInTheWordsOfAWS(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		kind sandbox.Kind
		said string
		want string // "" for none: the caller sees an error of the service
	}{
		{sandbox.Timeout, "", `{"errorType":"Sandbox.Timedout","errorMessage":"RequestId: req Error: Task timed out after 1.00 seconds"}`},
		{sandbox.Exit, "", `{"errorType":"Runtime.ExitError","errorMessage":"RequestId: req Error: the function ended without an answer"}`},
		{sandbox.Lost, "", `{"errorType":"Runtime.ExitError","errorMessage":"RequestId: req Error: the sandbox ended before the function answered"}`},
		{sandbox.Memory, "", `{"errorType":"Runtime.OutOfMemory","errorMessage":"RequestId: req Error: the function needed more than its 64 MiB"}`},
		{sandbox.Output, "", `{"errorType":"Function.ResponseSizeTooLarge","errorMessage":"RequestId: req Error: the function answered with more than 100 bytes"}`},
		{sandbox.Fault, "not JSON", `{"errorType":"Runtime.ExitError","errorMessage":"RequestId: req Error: the function reported that it failed"}`},
		{sandbox.Unavailable, "", ""},
		{sandbox.Tampered, "", ""},
		{sandbox.BadModule, "", `{"errorType":"Runtime.ExitError","errorMessage":"RequestId: req Error: the function could not be started"}`},
		{sandbox.BadModule, `{"errorType":"Runtime.ImportModuleError"}`, `{"errorType":"Runtime.ImportModuleError"}`},
		{sandbox.Exit, `{"errorType":"Runtime.ExitError","errorMessage":"exit status 3"}`, `{"errorType":"Runtime.ExitError","errorMessage":"exit status 3"}`},
		{sandbox.Canceled, "", ""},
		{"something new", "", ""},
	} {
		f := setupRuntime(t, function.RuntimePython, func(context.Context, *sandbox.Invocation) (sandbox.Result, error) {
			return sandbox.Result{}, &sandbox.Error{Kind: c.kind, Fault: []byte(c.said), Cause: errors.New("/inner/path")}
		})
		out, err := f.Invoke(t.Context(), lambdaCall(invoke.TriggerLambda))
		if err == nil || string(out.Fault) != c.want {
			t.Errorf("%s: %s, %v", c.kind, out.Fault, err)
		}
	}
}

// Code that started when it was deployed, and does not now: what it said is for its log.
func TestWhyAFunctionDoesNotStartIsForItsLog(t *testing.T) {
	t.Parallel()
	fails := func(context.Context, *sandbox.Invocation) (sandbox.Result, error) {
		return sandbox.Result{}, &sandbox.Error{Kind: sandbox.BadModule, Public: "the code could not be initialised: no key; it printed:\ntoken=hunter2"}
	}
	for _, trigger := range []string{invoke.TriggerHTTP, invoke.TriggerLambda} {
		f := setupRuntime(t, function.RuntimePython, fails)
		out, err := f.Invoke(t.Context(), lambdaCall(trigger))
		if !problem.HasCode(err, problem.FunctionCrashed) || out == nil || out.Receipt.Status != 502 {
			t.Fatalf("%s: %+v, %v", trigger, out, err)
		}
		shown, _ := json.Marshal(problem.Render(problem.From(err), "req"))
		if s := string(shown) + string(out.Fault); strings.Contains(s, "no key") || strings.Contains(s, "hunter2") {
			t.Errorf("%s: shown: %s", trigger, s)
		}
		if n := len(f.recorder.lines); n != 2 || f.recorder.lines[1].Text != "token=hunter2" {
			t.Errorf("%s: log %+v", trigger, f.recorder.lines)
		}
	}
}

func TestStatusOfAnHTTPFunctionIsAFaultOfALambda(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		runtime function.Runtime
		trigger string
		status  int
		body    string
		want    string
	}{
		{function.RuntimeGo, invoke.TriggerLambda, 404, "no such order", `{"errorType":"Function.Status404","errorMessage":"no such order"}`},
		{function.RuntimeHTTP, invoke.TriggerLambda, 500, "", `{"errorType":"Function.Status500","errorMessage":"the function answered with the status 500"}`},
		{function.RuntimeGo, invoke.TriggerLambda, 500, "\xff", `{"errorType":"Function.Status500","errorMessage":"the function answered with the status 500"}`},
		{function.RuntimeGo, invoke.TriggerLambda, 302, "", ""},
		{function.RuntimeGo, invoke.TriggerHTTP, 500, "x", ""},
		{function.RuntimeNodeJS, invoke.TriggerLambda, 500, "x", ""}, // its own payload; the status is not its word
	} {
		f := setupRuntime(t, c.runtime, func(context.Context, *sandbox.Invocation) (sandbox.Result, error) {
			return sandbox.Result{Response: sandbox.ResponseHead{Status: c.status}, Body: []byte(c.body)}, nil
		})
		out, err := f.Invoke(t.Context(), lambdaCall(c.trigger))
		if err != nil || string(out.Fault) != c.want || out.Receipt.Outcome != "ok" || out.Receipt.Status != c.status {
			t.Errorf("%+v: %s, %v", c, out.Fault, err)
		}
	}
}

func TestTailOfALogIsBoundedInBytes(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		lines, length, bytes int
		want                 int
	}{
		{lines: 1000, length: 9, bytes: 100, want: 10},
		{lines: 5, length: 9, bytes: 100, want: 5},
		{lines: 3, length: 500, bytes: 100, want: 1},
		{lines: 1000, length: 0, bytes: 100, want: 100},
		{lines: 1000, length: 0, bytes: 0, want: 200},
	} {
		f := setup(t, func(_ context.Context, inv *sandbox.Invocation) (sandbox.Result, error) {
			for range c.lines {
				inv.Log(sandbox.LogLine{Text: strings.Repeat("x", c.length)})
			}
			return sandbox.Result{Response: sandbox.ResponseHead{Status: 200}}, nil
		})
		call := lambdaCall(invoke.TriggerLambda)
		call.KeepLog, call.KeepLogBytes = 200, c.bytes
		out, err := f.Invoke(t.Context(), call)
		if err != nil || len(out.Log) != c.want {
			t.Errorf("%+v: %d lines, %v", c, len(out.Log), err)
		}
	}
}

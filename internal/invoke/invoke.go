// Package invoke carries one invocation from a verified caller to its receipt,
// in this order: resolve the version, authorize the caller, admit within the
// concurrency limits, run in a sandbox, record. It is the only way to guest code:
// each door builds a Call and hands it over here.
//
// Doors import it. It decides; the mechanisms it uses come in as interfaces. An
// Invoker may be used from many goroutines. An Outcome is returned only after its
// receipt has been recorded.
package invoke

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/casemate-dev/casemate/api/problem"
	"github.com/casemate-dev/casemate/internal/audit"
	"github.com/casemate-dev/casemate/internal/function"
	"github.com/casemate-dev/casemate/internal/identity"
	"github.com/casemate-dev/casemate/internal/sandbox"
)

// Versions finds what a call means. Resolve fails with a *problem.Error.
type Versions interface {
	Resolve(ref function.Ref, qualifier string, roll func(n int) int) (v *function.Version, alias string, err error)
}

// Runner runs a version once; see sandbox.Runner.
type Runner interface {
	Invoke(ctx context.Context, inv *sandbox.Invocation) (sandbox.Result, error)
}

// Recorder keeps receipts and log lines; see audit.Recorder.
type Recorder interface {
	Record(ctx context.Context, r *audit.Receipt) error
	Log(line audit.LogLine)
}

// Config is what an Invoker is made of. Every field but Logger is needed.
type Config struct {
	Versions  Versions
	Runner    Runner
	Recorder  Recorder
	Admission *Admission
	Clock     func() time.Time
	NewID     func() string   // receipt ids: UUIDv7, so that they sort by time
	Roll      func(n int) int // uniform in [0, n), for weighted aliases
	Logger    *slog.Logger
}

// Invoker runs Calls.
type Invoker struct {
	cfg Config
}

// New checks that the configuration is complete.
func New(cfg Config) (*Invoker, error) {
	missing := ""
	switch {
	case cfg.Versions == nil:
		missing = "Versions"
	case cfg.Runner == nil:
		missing = "Runner"
	case cfg.Recorder == nil:
		missing = "Recorder"
	case cfg.Admission == nil:
		missing = "Admission"
	case cfg.Clock == nil:
		missing = "Clock"
	case cfg.NewID == nil:
		missing = "NewID"
	case cfg.Roll == nil:
		missing = "Roll"
	}
	if missing != "" {
		return nil, fmt.Errorf("making the invoker: Config.%s is not set", missing)
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	return &Invoker{cfg: cfg}, nil
}

// Invoke runs the call. It fails with a *problem.Error; where the function was
// reached all the same, the Outcome is not nil and carries the receipt.
func (i *Invoker) Invoke(ctx context.Context, c *Call) (*Outcome, error) {
	// Who may not call a function must not learn whether it exists, so the scope
	// is looked at before the registry is.
	if err := authorize(c); err != nil {
		return nil, err
	}
	v, alias, err := i.cfg.Versions.Resolve(c.Ref, c.Qualifier, i.cfg.Roll)
	if err != nil {
		return nil, problem.From(err)
	}
	release, err := i.cfg.Admission.enter(c.Ref, &v.Config.Limits)
	if err != nil {
		return nil, err
	}
	defer release()
	return i.run(ctx, c, v, alias)
}

func authorize(c *Call) error {
	if c.Public || c.Principal.May(identity.Invoke, c.Ref) {
		return nil
	}
	if c.Principal.ID == "" {
		return problem.New(problem.Unauthenticated, "this route asks for a credential and none was given")
	}
	return problem.New(problem.Forbidden, "the credential has no scope that allows invoking %s", c.Ref).
		Fix("Use a key with the scope invoke:%s.", c.Ref)
}

// running is one invocation on its way, in one piece since each piece costs.
type running struct {
	out  Outcome
	tail tail
	inv  sandbox.Invocation
	by   *Invoker
}

func (i *Invoker) run(ctx context.Context, c *Call, v *function.Version, alias string) (*Outcome, error) {
	start, principal := i.cfg.Clock(), c.Principal.String()
	run := &running{by: i, tail: tail{max: c.KeepLog, maxBytes: c.KeepLogBytes}}
	out, r := &run.out, &run.out.Receipt
	*r = audit.Receipt{
		ID: i.cfg.NewID(), RequestID: c.RequestID,
		Namespace: c.Ref.Namespace, Function: c.Ref.Name,
		Version: string(v.ID), Artifact: string(v.Artifact), Alias: alias,
		Trigger: c.Trigger, Route: c.Route, Principal: principal,
		Event: c.Event.ID, Events: c.Event.Count, Members: c.Event.Members, Source: c.Event.Source, Attempt: c.Event.Attempt, Replay: c.Event.Replay,
		Chain: c.Event.Chain, Depth: c.Event.Depth,
		Start: start, BytesIn: int64(len(c.Body)),
	}
	run.inv = sandbox.Invocation{
		ID: r.ID, Version: v, Alias: alias, Body: c.Body,
		Head: sandbox.Head{
			ID: c.RequestID, Method: c.Method, Path: c.Path, Query: c.Query, Headers: c.Headers, Params: c.Params,
			Trigger: c.Trigger, Caller: principal, Deadline: start.Add(v.Config.Limits.Timeout).UnixMilli(),
		},
		Log: run.log,
	}
	res, runErr := i.cfg.Runner.Invoke(ctx, &run.inv)
	u := &res.Usage
	r.Wall, r.CPU, r.Memory = u.Wall, u.CPU, u.MemoryPeak
	r.Fuel, r.Calls = u.Fuel, u.Calls
	r.BytesOut, r.LogBytes = u.BytesOut, u.LogBytes
	r.Sandbox, r.Isolation, r.Cold = u.Sandbox, u.Kind, u.Cold
	if r.Wall == 0 {
		r.Wall = i.cfg.Clock().Sub(start)
	}
	for _, text := range toldInLog(runErr) { // a caller by HTTP never sees it
		run.log(sandbox.LogLine{Time: i.cfg.Clock(), Text: text})
	}
	out.Log = run.tail.lines

	var answer error
	if runErr == nil {
		r.Status, r.Outcome = res.Response.Status, "ok"
		out.Status, out.Headers, out.Body = res.Response.Status, res.Response.Headers, res.Body
	} else {
		p := i.explain(runErr, v)
		if p.Code == problem.InvalidModule {
			// It started when it was deployed. Why it does not now, with what it printed, is for
			// its log: whoever calls, anybody perhaps, did not write it.
			p = problem.New(problem.FunctionCrashed, "the function could not be started").Because(runErr)
		}
		r.Status, r.Outcome = problem.Lookup(p.Code).Status, string(p.Code)
		answer = p
	}
	if c.Trigger == TriggerLambda {
		out.Fault = fault(c, v, out, runErr, answer)
	}
	// The caller may be gone, but what ran is on record: its cancellation must not
	// reach the recorder.
	if err := i.cfg.Recorder.Record(context.WithoutCancel(ctx), r); err != nil {
		i.cfg.Logger.LogAttrs(ctx, slog.LevelError, "receipt not recorded; the answer is withheld",
			slog.String("receipt", r.ID), slog.String("function", c.Ref.String()), slog.Any("error", err))
		return nil, problem.New(problem.StorageFull, "the invocation could not be put on record, so its answer is withheld").Because(err)
	}
	return out, answer
}

// log puts a line of the function on record.
func (x *running) log(l sandbox.LogLine) {
	r := &x.out.Receipt
	x.by.cfg.Recorder.Log(audit.LogLine{
		Time: l.Time, Namespace: r.Namespace, Function: r.Function, Version: r.Version,
		RequestID: r.RequestID, Receipt: r.ID, Text: l.Text,
	})
	x.tail.add(l.Text)
}

// explain turns how a sandbox failed into what its caller may know.
func (i *Invoker) explain(err error, v *function.Version) *problem.Error {
	var se *sandbox.Error
	if !errors.As(err, &se) {
		return problem.From(err)
	}
	lim := &v.Config.Limits
	var p *problem.Error
	switch se.Kind {
	case sandbox.Timeout:
		p = problem.New(problem.FunctionTimeout, "the function did not finish within %s", lim.Timeout)
	case sandbox.CPU:
		p = problem.New(problem.FunctionCPU, "the function did more work than its %s of CPU time", lim.ComputeTime())
	case sandbox.Calls:
		p = problem.New(problem.FunctionCalls, "the function made more than its %d host calls", lim.HostCalls())
	case sandbox.Canceled:
		p = problem.New(problem.ClientGone, "the caller went away before the function finished")
	case sandbox.Memory:
		p = problem.New(problem.FunctionMemory, "the function needed more than its %d MiB", lim.Memory>>20)
	case sandbox.Stack:
		p = problem.New(problem.FunctionStack, "the function's calls went too deep")
	case sandbox.Output:
		p = problem.New(problem.FunctionOutput, "the function answered with more than %d bytes", lim.Output)
	case sandbox.BadAnswer:
		p = problem.New(problem.FunctionBadAnswer, "the function's answer has no valid head")
		if se.Public != "" { // it names what is wrong, and has nothing of the answer but names
			p = problem.New(problem.FunctionBadAnswer, "%s", se.Public).Fix("Give what the runtime takes for an answer.")
		}
	case sandbox.Fault:
		p = problem.New(problem.FunctionCrashed, "the function reported that it failed")
	case sandbox.Trap, sandbox.Exit:
		p = problem.New(problem.FunctionCrashed, "the function ended without an answer")
	case sandbox.BadModule:
		p = problem.New(problem.InvalidModule, "%s", se.Public)
		switch r := v.Config.Runtime; {
		case r.Script():
			p = p.Fix("Have the bundle's default export be an object with a fetch method, and what runs at module scope end without an error.")
		case r.Native():
			p = p.Fix("Have the code start, and wait for work as the runtime %s does, with nothing but what is in its archive and no network.", r)
		}
	case sandbox.Tampered:
		p = problem.New(problem.ArtifactTampered, "the code of %s does not match its digest", v.Ref)
		i.cfg.Logger.Error("tampered artifact refused", "function", v.Ref.String(), "version", v.ID, "artifact", v.Artifact, "error", se)
	case sandbox.Lost:
		p = problem.New(problem.SandboxLost, "the sandbox ended before the function answered")
	case sandbox.Refused:
		p = problem.New(problem.NotImplemented, "%s", se.Public)
	case sandbox.Unavailable:
		p = problem.New(problem.Overloaded, "no sandbox could be had").After(time.Second)
	default:
		p = problem.New(problem.Internal, "something went wrong on our side")
	}
	return p.Because(se)
}

// Explain is explain for those who prepare a version before it is deployed.
func (i *Invoker) Explain(err error, v *function.Version) error {
	if err == nil {
		return nil
	}
	return i.explain(err, v)
}

package control

import (
	"strings"
	"time"

	"github.com/casemate-dev/casemate/api"
	"github.com/casemate-dev/casemate/api/manifest"
	"github.com/casemate-dev/casemate/api/problem"
	"github.com/casemate-dev/casemate/internal/audit"
	"github.com/casemate-dev/casemate/internal/function"
	"github.com/casemate-dev/casemate/internal/identity"
	"github.com/casemate-dev/casemate/internal/registry"
)

// This file turns wire types into the platform's own and back, and decides nothing.

func millis(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// configIn completes the configuration with the defaults.
func configIn(c api.FunctionConfig) function.Config {
	c = manifest.WithDefaults(c)
	out := function.Config{
		Runtime: function.Runtime(c.Runtime), Entry: function.Entry(c.Entry), Isolation: function.Isolation(c.Isolation),
		Sandbox: function.SandboxKind(c.Sandbox), Handler: c.Handler,
		Limits: function.Limits{
			Memory: c.MemoryBytes, Timeout: time.Duration(c.TimeoutMillis) * time.Millisecond,
			CPU: time.Duration(c.CPUMillis) * time.Millisecond, Calls: c.Calls, Output: c.OutputBytes, Log: c.LogBytes,
			Concurrency: c.Concurrency.Max, Reserved: c.Concurrency.Reserved,
			Scratch: c.ScratchBytes, Processes: c.Processes,
		},
	}
	if len(c.Command) > 0 { // an empty list is another digest than none
		out.Command = c.Command
	}
	if len(c.Environment) > 0 { // an empty map is another digest than none
		out.Environment = c.Environment
	}
	for _, t := range c.HTTP {
		trigger := function.HTTPTrigger{Method: t.Method, Path: t.Path, Public: t.Public, BodyLimit: t.BodyLimit}
		if t.CORS != nil {
			trigger.CORS = &function.CORS{
				Origins: t.CORS.Origins, Methods: t.CORS.Methods, Headers: t.CORS.Headers, Expose: t.CORS.Expose,
				Credentials: t.CORS.Credentials, MaxAge: time.Duration(t.CORS.MaxAgeMillis) * time.Millisecond,
			}
		}
		out.HTTP = append(out.HTTP, trigger)
	}
	out.Triggers = triggersIn(c.Triggers)
	return out
}

func configOut(c *function.Config) api.FunctionConfig {
	out := api.FunctionConfig{
		Runtime: string(c.Runtime), Entry: string(c.Entry), Isolation: string(c.Isolation),
		Handler: c.Handler, Command: c.Command, Sandbox: string(c.Sandbox), ScratchBytes: c.Limits.Scratch, Processes: c.Limits.Processes,
		MemoryBytes: c.Limits.Memory, TimeoutMillis: c.Limits.Timeout.Milliseconds(),
		CPUMillis: c.Limits.ComputeTime().Milliseconds(), Calls: c.Limits.HostCalls(), OutputBytes: c.Limits.Output, LogBytes: c.Limits.Log,
		Concurrency: api.Concurrency{Max: c.Limits.Concurrency, Reserved: c.Limits.Reserved}, Environment: c.Environment,
	}
	if c.Runtime.Native() {
		out.Calls = 0 // it has no host to call
	}
	for _, t := range c.HTTP {
		trigger := api.HTTPTrigger{Method: t.Method, Path: t.Path, Public: t.Public, BodyLimit: t.BodyLimit}
		if t.CORS != nil {
			trigger.CORS = &api.CORS{
				Origins: t.CORS.Origins, Methods: t.CORS.Methods, Headers: t.CORS.Headers, Expose: t.CORS.Expose,
				Credentials: t.CORS.Credentials, MaxAgeMillis: t.CORS.MaxAge.Milliseconds(),
			}
		}
		out.HTTP = append(out.HTTP, trigger)
	}
	out.Triggers = triggersOut(c.Triggers)
	return out
}

func planOut(p registry.Plan) api.Plan {
	out := api.Plan{Namespace: p.Namespace, Alias: p.Alias, Changes: []api.Change{}}
	for _, c := range p.Changes {
		change := api.Change{
			Function: c.Function, Action: string(c.Action), Version: string(c.Version), Current: string(c.Current),
			Revision: c.Revision, Warnings: c.Warnings,
		}
		for _, d := range c.Diff {
			change.Diff = append(change.Diff, api.FieldDelta{Field: d.Field, From: d.From, To: d.To})
		}
		out.Changes = append(out.Changes, change)
	}
	return out
}

// planIn reads a plan back. Differences and warnings are for people; nothing is
// decided by them.
func planIn(p api.Plan) (registry.Plan, error) {
	out := registry.Plan{Namespace: p.Namespace, Alias: p.Alias}
	for _, c := range p.Changes {
		for _, d := range []string{c.Version, c.Current} {
			if _, err := function.ParseDigest(d); d != "" && err != nil {
				return out, problem.New(problem.BadRequest, "%.90q is not a digest", d).At("plan.changes")
			}
		}
		out.Changes = append(out.Changes, registry.Change{
			Function: c.Function, Action: registry.Action(c.Action), Version: function.Digest(c.Version),
			Current: function.Digest(c.Current), Revision: c.Revision,
		})
	}
	return out, nil
}

func weightsOut(ws []registry.Weight) []api.Weight {
	out := make([]api.Weight, 0, len(ws))
	for _, w := range ws {
		out = append(out, api.Weight{Version: string(w.Version), Percent: w.Percent})
	}
	return out
}

// aliasOut leaves the history out unless it is asked for.
func aliasOut(a registry.Alias, history bool) api.Alias {
	out := api.Alias{Name: a.Name, Targets: weightsOut(a.Targets)}
	if history {
		for _, m := range a.History {
			out.History = append(out.History, api.AliasMove{Targets: weightsOut(m.Targets), At: m.At.UTC(), By: m.By, Why: m.Why})
		}
	}
	return out
}

func versionOut(v *function.Version, aliases []registry.Alias) api.Version {
	out := api.Version{
		ID: string(v.ID), Artifact: string(v.Artifact), Size: v.Size, Created: v.Created.UTC(), Creator: v.Creator, Config: configOut(&v.Config),
	}
	for _, a := range aliases {
		for _, t := range a.Targets {
			if t.Version == v.ID {
				out.Aliases = append(out.Aliases, a.Name)
			}
		}
	}
	return out
}

func functionOut(f *registry.Function, history bool, urls []string) api.Function {
	out := api.Function{Namespace: f.Namespace, Name: f.Name, Revision: f.Revision, Aliases: []api.Alias{}, URLs: urls}
	for _, a := range f.Aliases {
		out.Aliases = append(out.Aliases, aliasOut(a, history))
	}
	if f.Live != nil {
		v := versionOut(f.Live, f.Aliases)
		out.Live = &v
	}
	return out
}

func receiptOut(r *audit.Receipt) api.Receipt {
	out := api.Receipt{
		ID: r.ID, RequestID: r.RequestID, Namespace: r.Namespace, Function: r.Function, Version: r.Version, Artifact: r.Artifact,
		Alias: r.Alias, Trigger: r.Trigger, Route: r.Route, Principal: r.Principal,
		Event: r.Event, Events: r.Events, Source: r.Source, Attempt: r.Attempt, Replay: r.Replay, Chain: r.Chain, Depth: r.Depth,
		Sandbox: r.Sandbox, Isolation: r.Isolation,
		Cold: r.Cold, Start: r.Start.UTC(), WallMillis: millis(r.Wall), CPUMillis: millis(r.CPU), Fuel: r.Fuel, Calls: r.Calls, MemoryPeak: r.Memory,
		BytesIn: r.BytesIn, BytesOut: r.BytesOut, LogBytes: r.LogBytes, Status: r.Status, Outcome: r.Outcome,
	}
	if r.Members != "" {
		out.Members = strings.Split(r.Members, "\n")
	}
	return out
}

func keyOut(k *identity.Key) api.Key {
	out := api.Key{ID: k.ID, Kind: string(k.Kind), AccessKeyID: k.AccessKeyID(), Name: k.Name, Scopes: []string{}, Created: k.Created.UTC(), Creator: k.Creator}
	for _, s := range k.Scopes {
		out.Scopes = append(out.Scopes, s.String())
	}
	if !k.Expires.IsZero() {
		t := k.Expires.UTC()
		out.Expires = &t
	}
	if !k.Revoked.IsZero() {
		t := k.Revoked.UTC()
		out.Revoked = &t
	}
	return out
}

func recordOut(r *audit.Record) api.LogRecord {
	if r.Receipt != nil {
		receipt := receiptOut(r.Receipt)
		receipt.Members = nil // a line of a log is short
		return api.LogRecord{
			Time: r.Receipt.Start.Add(r.Receipt.Wall).UTC(), Function: r.Receipt.Function, Version: r.Receipt.Version,
			RequestID: r.Receipt.RequestID, Receipt: &receipt,
		}
	}
	return api.LogRecord{
		Time: r.Line.Time.UTC(), Function: r.Line.Function, Version: r.Line.Version, RequestID: r.Line.RequestID, Text: r.Line.Text,
	}
}

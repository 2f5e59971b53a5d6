package control

import (
	"archive/zip"
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"unicode/utf8"

	"github.com/danielgtaylor/huma/v2"

	"github.com/casemate-dev/casemate/api"
	"github.com/casemate-dev/casemate/api/manifest"
	"github.com/casemate-dev/casemate/api/problem"
	"github.com/casemate-dev/casemate/internal/function"
	"github.com/casemate-dev/casemate/internal/identity"
	"github.com/casemate-dev/casemate/internal/registry"
)

type planInput struct {
	NS   string `path:"ns"`
	Body api.PlanRequest
}

type applyInput struct {
	NS   string `path:"ns"`
	Body api.ApplyRequest
}

// mayDeploy asks for the scope on every function named.
func mayDeploy(who identity.Principal, ns string, specs []api.FunctionSpec) error {
	if len(specs) == 0 {
		return problem.New(problem.BadRequest, "no function is named").At("functions")
	}
	for _, s := range specs {
		if err := may(who, identity.Deploy, ns, s.Name); err != nil {
			return err
		}
	}
	return nil
}

func (h *Handler) registerDeployments() {
	register(h, huma.Operation{
		OperationID: "plan", Method: http.MethodPost, Path: "/v1/namespaces/{ns}/plan", Tags: []string{"deployments"},
		Summary: "What a deployment would change", MaxBodyBytes: maxDeployBody,
	}, func(who identity.Principal, in *planInput) error { return mayDeploy(who, in.NS, in.Body.Functions) },
		func(ctx context.Context, x *exchange, in *planInput) (*body[api.Plan], error) {
			specs, err := specsOf(in.Body.Functions)
			if err != nil {
				return nil, err
			}
			if err := h.checkSpecs(ctx, x, in.NS, specs); err != nil {
				return nil, err
			}
			p, err := h.cfg.Registry.Plan(ctx, in.NS, in.Body.Alias, specs)
			if err != nil {
				return nil, err
			}
			return &body[api.Plan]{planOut(p)}, nil
		})
	register(h, huma.Operation{
		OperationID: "apply", Method: http.MethodPost, Path: "/v1/namespaces/{ns}/apply", Tags: []string{"deployments"},
		Summary: "Carry out a plan, or fail with plan_stale", MaxBodyBytes: maxDeployBody,
	}, func(who identity.Principal, in *applyInput) error { return mayDeploy(who, in.NS, in.Body.Functions) },
		func(ctx context.Context, x *exchange, in *applyInput) (*body[api.Applied], error) {
			done, err := h.apply(ctx, x, in)
			if err != nil {
				return nil, err
			}
			out := api.Applied{Namespace: in.NS}
			for _, d := range done {
				out.Functions = append(out.Functions, api.Deployed{
					Name: d.Name, Version: string(d.Version), Changed: d.Changed,
					URLs: h.urls(ctx, function.Ref{Namespace: in.NS, Name: d.Name}),
				})
			}
			return &body[api.Applied]{out}, nil
		})
}

// apply checks, prepares and then moves the alias, in this order: code that
// cannot run never becomes live, and the first request after a deployment finds
// it compiled.
func (h *Handler) apply(ctx context.Context, x *exchange, in *applyInput) (done []registry.Deployed, err error) {
	object := in.NS + "/*"
	defer func() {
		var part *registry.ApplyError
		if errors.As(err, &part) {
			done = part.Applied
		}
		for _, d := range done {
			if d.Changed {
				h.audit(x, "deploy", in.NS+"/"+d.Name, nil, slog.String("alias", in.Body.Plan.Alias), slog.String("version", string(d.Version)))
			}
		}
		if err != nil {
			h.audit(x, "deploy", object, err, slog.String("alias", in.Body.Plan.Alias))
			done = nil
		}
	}()
	if in.Body.Plan.Namespace != in.NS {
		return nil, problem.New(problem.BadRequest, "the plan is for another namespace").At("plan.namespace")
	}
	specs, err := specsOf(in.Body.Functions)
	if err != nil {
		return nil, err
	}
	// All of them, whatever the plan says of them: it comes from the caller.
	if err := h.checkSpecs(ctx, x, in.NS, specs); err != nil {
		return nil, err
	}
	plan, err := planIn(in.Body.Plan)
	if err != nil {
		return nil, err
	}
	// Planned again, not taken from the caller, who could leave out what does not
	// stand up to being prepared. Apply compares the two.
	now, err := h.cfg.Registry.Plan(ctx, in.NS, plan.Alias, specs)
	if err != nil {
		return nil, err
	}
	versions := make([]*function.Version, len(specs))
	for i, s := range specs {
		id, err := function.VersionID(s.Artifact, s.Config)
		if err != nil {
			return nil, err
		}
		versions[i] = &function.Version{
			Ref: function.Ref{Namespace: in.NS, Name: s.Name}, ID: id, Artifact: s.Artifact, Size: s.Size, Config: s.Config, Created: h.cfg.Clock(),
		}
	}
	if err := h.cfg.Reserve(versions); err != nil {
		return nil, err
	}
	for i, v := range versions {
		if i >= len(now.Changes) || now.Changes[i].Action == registry.ActionNone {
			continue
		}
		object = v.Ref.String()
		if err := h.prepare(ctx, v, i); err != nil {
			return nil, err
		}
	}
	object = in.NS + "/*"
	return h.cfg.Registry.Apply(ctx, plan, specs, x.who.String())
}

func (h *Handler) prepare(ctx context.Context, v *function.Version, i int) error {
	ok, err := h.cfg.Registry.HasArtifact(ctx, v.Artifact)
	if err != nil {
		return err
	}
	if !ok {
		return problem.New(problem.NotFound, "the artifact %s of %s has not been uploaded", v.Artifact.Short(), v.Ref).
			At(fmt.Sprintf("functions[%d].artifact", i)).Fix("Upload it first; `casemate deploy` does.")
	}
	if err := h.checkScript(ctx, v); err != nil {
		return err
	}
	if err := h.checkArchive(ctx, v); err != nil {
		return err
	}
	err = h.cfg.Prepare(ctx, v)
	if err == nil {
		return nil
	}
	e := *problem.From(err)
	if e.Field == "" {
		e.Field = "functions." + v.Name
	}
	return &e
}

// checkScript refuses for js and ts what is no text, before a sandbox is troubled
// with it: somebody else's client may have sent a WebAssembly module. Nothing empty
// is ever uploaded, nor anything above MaxArtifact.
func (h *Handler) checkScript(ctx context.Context, v *function.Version) error {
	if !v.Config.Runtime.Script() {
		return nil
	}
	code, err := h.cfg.Registry.Artifact(ctx, v.Artifact)
	if err != nil {
		return err
	}
	why := ""
	switch {
	case !utf8.Valid(code):
		why = "is not text in UTF-8"
	case bytes.IndexByte(code, 0) >= 0:
		why = "holds a zero byte, so it is no text"
	default:
		return nil
	}
	return problem.New(problem.InvalidModule, "the code of %s %s", v.Ref, why).At("functions."+v.Name).
		Fix("Upload one bundled ES module for the runtime %s; `casemate deploy` makes it.", v.Config.Runtime)
}

// checkArchive refuses for native runtimes what is no zip archive. What is in it, the
// sandbox judges when it unpacks.
func (h *Handler) checkArchive(ctx context.Context, v *function.Version) error {
	if !v.Config.Runtime.Native() {
		return nil
	}
	code, err := h.cfg.Registry.Artifact(ctx, v.Artifact)
	if err != nil {
		return err
	}
	if _, err := zip.NewReader(bytes.NewReader(code), int64(len(code))); err == nil {
		return nil
	}
	return problem.New(problem.InvalidModule, "the code of %s is not a zip archive", v.Ref).At("functions." + v.Name).
		Fix("Upload the function's files in one zip archive; `casemate deploy` makes it.")
}

// specsOf checks and completes what is asked for: the rules of the manifest hold
// here too, whoever wrote the request.
func specsOf(in []api.FunctionSpec) ([]registry.Spec, error) {
	out := make([]registry.Spec, 0, len(in))
	for i, s := range in {
		d, err := function.ParseDigest(s.Artifact)
		if err != nil {
			return nil, problem.New(problem.BadRequest, "%.90q is not a digest", s.Artifact).At(fmt.Sprintf("functions[%d].artifact", i))
		}
		if issues := manifest.Check(s.Name, s.Config); len(issues) > 0 {
			return nil, configProblem(s.Name, issues)
		}
		out = append(out, registry.Spec{Name: s.Name, Artifact: d, Config: configIn(s.Config)})
	}
	return out, nil
}

// configProblem reports the first issue, secrets before all others.
func configProblem(name string, issues []manifest.FieldIssue) error {
	first := issues[0]
	for _, i := range issues {
		if i.Code == problem.SecretInConfig {
			first = i
			break
		}
	}
	field := "functions." + name
	if first.Field != "" {
		field += "." + first.Field
	}
	e := problem.New(first.Code, "%s", first.Message).At(field).Fix("%s", first.Remedy)
	if n := len(issues) - 1; n > 0 {
		e.Detail += fmt.Sprintf(" (and %d more)", n)
	}
	return e
}

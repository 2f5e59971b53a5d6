package cli

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"

	"github.com/casemate-dev/casemate/api"
	"github.com/casemate-dev/casemate/api/manifest"
	"github.com/casemate-dev/casemate/internal/cli/build"
	"github.com/casemate-dev/casemate/internal/cli/output"
)

// project is a manifest and the folder it governs.
type project struct {
	*manifest.Manifest
	dir      string
	prebuilt map[string]string // function → its artifact, in place of a build
}

func (a *app) loadProject(args []string) (*project, error) {
	path, err := a.manifestPath(args)
	if err != nil {
		return nil, err
	}
	m, err := manifest.Load(path)
	if err != nil {
		return nil, err
	}
	m.Namespace = cmp.Or(a.global.namespace, m.Namespace)
	if !label.MatchString(m.Namespace) {
		return nil, usagef("%.80q cannot name a namespace", m.Namespace)
	}
	return &project{Manifest: m, dir: filepath.Dir(path)}, nil
}

// only keeps the functions of those names; none means all.
func (pr *project) only(names []string) error {
	for _, n := range names {
		if !slices.ContainsFunc(pr.Functions, func(f manifest.Function) bool { return f.Name == n }) {
			return (&failure{Exit: exitNotFound, Message: fmt.Sprintf("the manifest has no function %q", n)}).hint("it has %s", pr.names())
		}
	}
	if len(names) > 0 {
		pr.Functions = slices.DeleteFunc(pr.Functions, func(f manifest.Function) bool { return !slices.Contains(names, f.Name) })
	}
	return nil
}

func (pr *project) names() string {
	out := make([]string, len(pr.Functions))
	for i, f := range pr.Functions {
		out[i] = f.Name
	}
	return strings.Join(out, ", ")
}

// usePrebuilt reads NAME=FILE, or FILE alone where there is one function.
func (pr *project) usePrebuilt(args []string, abs func(string) string) error {
	pr.prebuilt = map[string]string{}
	for _, arg := range args {
		name, file, ok := strings.Cut(arg, "=")
		if !ok {
			if len(pr.Functions) != 1 {
				return usagef("--prebuilt %s does not say which function it is", arg).hint("write --prebuilt NAME=%s, with one of %s", arg, pr.names())
			}
			name, file = pr.Functions[0].Name, arg
		}
		if !slices.ContainsFunc(pr.Functions, func(f manifest.Function) bool { return f.Name == name }) {
			return (&failure{Exit: exitNotFound, Message: fmt.Sprintf("--prebuilt names %q, which is not a function here", name)}).hint("use one of %s", pr.names())
		}
		pr.prebuilt[name] = abs(file)
	}
	return nil
}

// built is a function with its code.
type built struct {
	fn       manifest.Function
	artifact build.Artifact
}

func (b built) spec() api.FunctionSpec {
	cfg := b.fn.Config
	cfg.Entry = cmp.Or(b.artifact.Entry, cfg.Entry)
	return api.FunctionSpec{Name: b.fn.Name, Artifact: b.artifact.Digest, Config: cfg}
}

func specs(bs []built) []api.FunctionSpec {
	out := make([]api.FunctionSpec, len(bs))
	for i, b := range bs {
		out[i] = b.spec()
	}
	return out
}

// buildAll builds functions side by side, as many as there are processors, and
// stops them all at the first failure. What a compiler says is printed when it
// refuses.
func (a *app) buildAll(ctx context.Context, pr *project, fns []manifest.Function, steps *output.Steps) ([]built, error) {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	var (
		wg    sync.WaitGroup
		mu    sync.Mutex
		first error
		said  []byte
		out   = make([]built, len(fns))
		slots = make(chan struct{}, runtime.GOMAXPROCS(0))
	)
	for i, f := range fns {
		wg.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			if ctx.Err() != nil {
				return
			}
			var tool bytes.Buffer
			b, err := a.buildOne(ctx, pr, f, &tool, steps)
			out[i] = b
			mu.Lock()
			defer mu.Unlock()
			if err != nil && first == nil {
				first, said = err, tool.Bytes()
				stop()
			}
		})
	}
	wg.Wait()
	if first != nil {
		return nil, &buildFailure{first, said}
	}
	return out, nil
}

// buildFailure is a failed build with what its tools printed.
type buildFailure struct {
	cause  error
	output []byte
}

func (e *buildFailure) Error() string { return e.cause.Error() }
func (e *buildFailure) Unwrap() error { return e.cause }

func (a *app) buildOne(ctx context.Context, pr *project, f manifest.Function, tool *bytes.Buffer, steps *output.Steps) (built, error) {
	req := build.Request{
		Name: f.Name, Dir: pr.dir, Source: filepath.FromSlash(f.Source), Runtime: f.Config.Runtime, Entry: f.Config.Entry,
		Handler: f.Config.Handler, Command: f.Config.Command, Out: tool, Clock: a.env.Clock,
	}
	title := "build " + f.Name + " (" + f.Config.Runtime + ")"
	if file, ok := pr.prebuilt[f.Name]; ok {
		req.Source, req.Prebuilt = file, true
		if f.Config.Runtime != build.JavaScript && f.Config.Runtime != build.TypeScript && !manifest.Native(f.Config.Runtime) {
			req.Runtime = build.Wasm
		}
		title = "read " + f.Name + " (prebuilt)"
	}
	step := steps.Start(title)
	art, err := a.env.Build(ctx, req)
	if err != nil {
		step.Fail("")
		return built{}, err
	}
	step.Done(output.Bytes(int64(len(art.Bytes))))
	return built{f, art}, nil
}

// upload sends the artifacts that the node does not have.
func (a *app) upload(ctx context.Context, client *api.Client, bs []built, steps *output.Steps) error {
	sent := map[string]bool{}
	for _, b := range bs {
		d := b.artifact.Digest
		if sent[d] {
			continue
		}
		sent[d] = true
		has, err := client.HasArtifact(ctx, d)
		if err != nil {
			return err
		}
		if has {
			continue
		}
		step := steps.Start("upload " + b.fn.Name)
		if err := client.PutArtifact(ctx, d, int64(len(b.artifact.Bytes)), bytes.NewReader(b.artifact.Bytes)); err != nil {
			step.Fail("")
			return err
		}
		step.Done(output.ShortID(d))
	}
	return nil
}

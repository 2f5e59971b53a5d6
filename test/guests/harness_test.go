package guests

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/imports/wasi_snapshot_preview1"
	"github.com/tetratelabs/wazero/sys"

	"github.com/casemate-dev/casemate/internal/cli/build"
	"github.com/casemate-dev/casemate/internal/cli/scaffold"
)

// requireToolchains is the variable under which a missing compiler fails a test
// instead of skipping it.
const requireToolchains = "CASEMATE_REQUIRE_TOOLCHAINS"

// compilers is where fetchedCompiler fetches to; TestMain makes and removes it.
var compilers string

func TestMain(m *testing.M) {
	var err error
	if compilers, err = os.MkdirTemp("", "casemate-guests-"); err != nil {
		panic(err)
	}
	code := m.Run()
	if err := os.RemoveAll(compilers); err != nil && code == 0 {
		panic(err)
	}
	os.Exit(code)
}

// fetchedCompiler gives a node_modules that holds AssemblyScript's compiler, as
// the template's lock file pins it.
var fetchedCompiler = sync.OnceValues(func() (string, error) {
	if _, err := scaffold.Write(compilers, "compiler", build.AssemblyScript); err != nil {
		return "", err
	}
	_, err := build.Build(context.Background(), build.Request{Dir: compilers, Runtime: build.AssemblyScript})
	return filepath.Join(compilers, "node_modules"), err
})

// notShort keeps compilers out of a run that is to be quick.
func notShort(t *testing.T) {
	t.Helper()
	if testing.Short() {
		t.Skip("runs a compiler; not with -short")
	}
}

// mustBuild builds, or skips the test when the compiler is not there.
func mustBuild(t *testing.T, req build.Request) build.Artifact {
	t.Helper()
	notShort(t)
	var said bytes.Buffer
	req.Out, req.Clock, req.CacheDir = &said, time.Now, t.TempDir()
	a, err := build.Build(t.Context(), req)
	var missing *build.ToolchainError
	if errors.As(err, &missing) && os.Getenv(requireToolchains) == "" {
		t.Skipf("%v", err)
	}
	if err != nil {
		t.Fatalf("%v\n%s", err, said.Bytes())
	}
	return a
}

// guest is a module under a bare interpreter: what works here works by the guest's
// contract alone. The interpreter starts a Go module sooner than a compiler does,
// under the race detector by far.
type guest struct {
	runtime wazero.Runtime
	module  wazero.CompiledModule
	entry   string
	compile time.Duration
}

func newGuest(t *testing.T, module []byte, entry string) *guest {
	t.Helper()
	ctx := t.Context()
	g := &guest{runtime: wazero.NewRuntimeWithConfig(ctx, wazero.NewRuntimeConfigInterpreter().WithMemoryLimitPages(4096)), entry: entry}
	t.Cleanup(func() { _ = g.runtime.Close(context.WithoutCancel(ctx)) })
	if _, err := wasi_snapshot_preview1.Instantiate(ctx, g.runtime); err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	compiled, err := g.runtime.CompileModule(ctx, module)
	if err != nil {
		t.Fatal(err)
	}
	g.module, g.compile = compiled, time.Since(start)
	return g
}

// head is the line in front of a body, as a node writes it.
func head(t *testing.T, r Request) []byte {
	t.Helper()
	headers := map[string][]string{}
	for name, value := range r.Headers {
		headers[strings.ToLower(name)] = []string{value}
	}
	b, err := json.Marshal(map[string]any{
		"id": "0190-test", "method": r.Method, "path": r.Path, "query": r.Query, "headers": headers,
		"params": map[string]string{"part": "valué \"quoted\"\n"}, "trigger": "http", "caller": "key:test",
		"deadline": time.Now().Add(time.Minute).UnixMilli(), "later": []any{nil, true, 1.5, map[string]any{"x": "y"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return append(b, '\n')
}

// call runs the module once, from a state that nobody used before. What the guest
// logged comes back with how it failed. A handler is called twice, on the same state,
// as a node does it; it must give the same answer.
func (g *guest) call(ctx context.Context, input []byte) (output []byte, log string, took time.Duration, err error) {
	var in bytes.Reader
	var out, logged bytes.Buffer
	config := wazero.NewModuleConfig().WithName("").WithStdin(&in).WithStdout(&out).WithStderr(&logged).
		WithSysWalltime().WithSysNanotime().WithRandSource(rand.Reader).WithStartFunctions()
	instance, err := g.runtime.InstantiateModule(ctx, g.module, config)
	if err != nil {
		return nil, "", 0, err
	}
	defer func() { _ = instance.Close(context.WithoutCancel(ctx)) }()
	if g.entry == build.EntryCommand {
		in.Reset(input)
		start := time.Now()
		_, err = instance.ExportedFunction("_start").Call(ctx)
		if exit := (*sys.ExitError)(nil); errors.As(err, &exit) && exit.ExitCode() == 0 {
			err = nil
		}
		return out.Bytes(), logged.String(), time.Since(start), err
	}
	for _, name := range []string{"_initialize", "prepare"} {
		if err := phase(ctx, instance, name); err != nil {
			return nil, logged.String(), 0, fmt.Errorf("%s: %w", name, err)
		}
	}
	whole, _ := instance.Memory().Read(0, instance.Memory().Size())
	ready := bytes.Clone(whole)

	in.Reset(input)
	start := time.Now()
	err = phase(ctx, instance, "handle")
	took = time.Since(start)
	if output = bytes.Clone(out.Bytes()); err != nil {
		return output, logged.String(), took, err
	}
	whole, _ = instance.Memory().Read(0, instance.Memory().Size())
	clear(whole[copy(whole, ready):])
	in.Reset(input)
	out.Reset()
	if err := phase(ctx, instance, "handle"); err != nil || !bytes.Equal(out.Bytes(), output) {
		return output, logged.String(), took, fmt.Errorf("the second call: %v, %.200q after %.200q", err, out.Bytes(), output)
	}
	return output, logged.String(), took, nil
}

// phase calls an export if there is one. A result that is not zero is a failure.
func phase(ctx context.Context, instance api.Module, name string) error {
	f := instance.ExportedFunction(name)
	if f == nil {
		return nil
	}
	results, err := f.Call(ctx)
	if err == nil && len(results) == 1 && results[0] != 0 {
		err = fmt.Errorf("result %d", results[0])
	}
	return err
}

// ask calls the module and reads its answer.
func (g *guest) ask(t *testing.T, r Request) (Answer, time.Duration) {
	t.Helper()
	out, log, took, err := g.call(t.Context(), append(head(t, r), r.Body...))
	if err != nil {
		t.Fatalf("%s: %v\nlog: %s", r.Name, err, log)
	}
	first, body, ok := bytes.Cut(out, []byte("\n"))
	var answer struct {
		Status  int            `json:"status"`
		Headers map[string]any `json:"headers"`
	}
	if err := json.Unmarshal(first, &answer); err != nil || !ok {
		t.Fatalf("%s: the answer has no head: %.200q", r.Name, out)
	}
	a := Answer{Status: answer.Status, Headers: map[string]string{}, Body: body}
	for name, value := range answer.Headers {
		switch v := value.(type) {
		case string:
			a.Headers[strings.ToLower(name)] = v
		default:
			t.Fatalf("%s: header %s is %v", r.Name, name, v)
		}
	}
	return a, took
}

// answerer is what can be asked: a module, or a script.
type answerer interface {
	ask(t *testing.T, r Request) (Answer, time.Duration)
}

// script reports whether functions of that runtime are text and no module.
func script(runtime string) bool { return runtime == build.JavaScript || runtime == build.TypeScript }

func newAnswerer(t *testing.T, runtime string, a build.Artifact, env map[string]string) answerer {
	t.Helper()
	if script(runtime) {
		return newScript(t, a.Bytes, env)
	}
	return newGuest(t, a.Bytes, a.Entry)
}

func examplesDir(t *testing.T) string {
	t.Helper()
	dir, err := filepath.Abs(filepath.Join("..", "..", "examples"))
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

package guests

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/casemate-dev/casemate/api/manifest"
	"github.com/casemate-dev/casemate/internal/cli/build"
	"github.com/casemate-dev/casemate/internal/cli/scaffold"
)

func (e Example) request() build.Request {
	return build.Request{
		Name: e.Function.Name, Dir: e.Dir, Source: e.Function.Source,
		Runtime: e.Function.Config.Runtime, Entry: e.Function.Config.Entry,
	}
}

// modules are the examples that become modules, or run on one. The others are called in
// test/lambdas, by a node.
func modules(t *testing.T) []Example {
	t.Helper()
	examples, err := Load(examplesDir(t))
	if err != nil {
		t.Fatal(err)
	}
	return slices.DeleteFunc(examples, func(e Example) bool { return manifest.Native(e.Function.Config.Runtime) })
}

func TestExamplesAnswerAsPromised(t *testing.T) {
	t.Parallel()
	examples := modules(t)
	for _, e := range examples {
		t.Run(e.Function.Name, func(t *testing.T) {
			t.Parallel()
			if filepath.Base(e.Dir) != e.Function.Name {
				t.Errorf("the function %s lives in the folder %s", e.Function.Name, filepath.Base(e.Dir))
			}
			a := mustBuild(t, e.request())
			if home, err := os.UserHomeDir(); err == nil && bytes.Contains(a.Bytes, []byte(home+"/")) {
				t.Errorf("the module tells a path below %s", home)
			}
			g := newAnswerer(t, e.Function.Config.Runtime, a, e.Function.Config.Environment)
			fastest := time.Hour
			for _, r := range e.Requests {
				answer, took := g.ask(t, r)
				if err := r.Want.Check(answer); err != nil {
					t.Errorf("%s: %v", r.Name, err)
				}
				fastest = min(fastest, took)
			}
			t.Logf("%d KiB, built in %v, fastest call %v", len(a.Bytes)>>10, a.Duration.Round(time.Millisecond), fastest.Round(time.Microsecond))
		})
	}
}

func TestExamplesCoverEveryRuntimeAndEntry(t *testing.T) {
	t.Parallel()
	examples, err := Load(examplesDir(t))
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, e := range examples {
		seen[e.Function.Config.Runtime] = true
		seen[e.Function.Config.Entry] = true
	}
	for _, want := range append(scaffold.Runtimes(), build.EntryHandle) {
		if want == build.JavaScript {
			want = build.TypeScript // the same, with types; the template is run besides
		}
		if !seen[want] {
			t.Errorf("no example for %s", want)
		}
	}
}

// The glue of an example is the template's, byte for byte, so that a correction in
// one place cannot be forgotten in the other.
func TestExamplesGlueDoesNotDrift(t *testing.T) {
	t.Parallel()
	glue := []string{"casemate.go", "casemate.c", "casemate.h", "src/casemate.rs", "assembly/casemate.ts", "src/casemate.d.ts"}
	examples := modules(t)
	type copied struct{ dir, name, runtime string }
	var copies []copied
	for _, e := range examples {
		copies = append(copies, copied{e.Dir, e.Function.Name, e.Function.Config.Runtime})
	}
	for _, e := range ofEvents(t) {
		if slices.Contains([]string{build.Go, build.Rust, build.C, build.TypeScript}, e.Function.Config.Runtime) {
			copies = append(copies, copied{e.Dir, e.Function.Name, e.Function.Config.Runtime})
		}
	}
	measured := filepath.Join(filepath.Dir(examplesDir(t)), "bench", "functions")
	copies = append(copies, copied{filepath.Join(measured, "hello-go"), "hello-go", "go"}, copied{filepath.Join(measured, "hello-c"), "hello-c", "c"},
		copied{filepath.Join(measured, "hello-rust"), "hello-rust", "rust"})
	for _, e := range copies {
		fresh := t.TempDir()
		files, err := scaffold.Write(fresh, e.name, e.runtime)
		if err != nil {
			t.Fatal(err)
		}
		compared := 0
		for _, name := range files {
			if !slices.Contains(glue, filepath.ToSlash(name)) {
				continue
			}
			compared++
			want, err := os.ReadFile(filepath.Join(fresh, name))
			if err != nil {
				t.Fatal(err)
			}
			got, err := os.ReadFile(filepath.Join(e.dir, name))
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got, want) {
				t.Errorf("%s of %s differs from the template", name, e.name)
			}
		}
		if compared == 0 {
			t.Errorf("%s: no glue was compared", e.name)
		}
	}
}

func TestExamplesOwnTestsPass(t *testing.T) {
	t.Parallel()
	examples, err := Load(examplesDir(t))
	if err != nil {
		t.Fatal(err)
	}
	examples = append(examples, ofEvents(t)...)
	for _, e := range examples {
		if !hasOwnTests(e.Dir, e.Function.Config.Runtime) {
			continue
		}
		t.Run(e.Function.Name, func(t *testing.T) {
			t.Parallel()
			ownTests(t, e.Dir, e.Function.Config.Runtime)
		})
	}
}

// ofEvents are the examples that take events. What is sent to them, and that they take it,
// is shown with what is on the far side (package farside).
func ofEvents(t *testing.T) []Example {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(examplesDir(t), "events", "*", manifest.FileName))
	if err != nil || len(files) == 0 {
		t.Fatalf("no examples of events: %v", err)
	}
	var all []Example
	for _, file := range files {
		m, err := manifest.Load(file)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, Example{Dir: filepath.Dir(file), Manifest: file, Function: m.Functions[0]})
	}
	return all
}

// Every example of events can be built.
func TestExamplesOfEventsBuild(t *testing.T) {
	t.Parallel()
	for _, e := range ofEvents(t) {
		t.Run(e.Function.Name, func(t *testing.T) {
			t.Parallel()
			if filepath.Base(e.Dir) != e.Function.Name {
				t.Errorf("the function %s lives in the folder %s", e.Function.Name, filepath.Base(e.Dir))
			}
			r := e.request()
			r.Handler, r.Command = e.Function.Config.Handler, e.Function.Config.Command
			a := mustBuild(t, r)
			t.Logf("%d KiB, built in %v", len(a.Bytes)>>10, a.Duration.Round(time.Millisecond))
		})
	}
}

// hasOwnTests reports whether a function of that runtime comes with unit tests in its own
// language. Scripts have them where there is a file of them.
func hasOwnTests(dir, runtime string) bool {
	if runtime == build.JavaScript {
		found, _ := filepath.Glob(filepath.Join(dir, "src", "*.test.js"))
		return len(found) > 0
	}
	return runtime == build.Go || runtime == build.Rust || runtime == build.Provided
}

// ownTests runs the unit tests of a function's folder.
func ownTests(t *testing.T, dir, runtime string) {
	t.Helper()
	notShort(t)
	cmd := exec.CommandContext(t.Context(), "go", "test", "./...")
	cmd.Env = append(os.Environ(), "GOWORK=off", "GOFLAGS=-buildvcs=false -trimpath") // as the library was compiled already
	if runtime == build.Rust {
		cmd = exec.CommandContext(t.Context(), "cargo", "test", "--quiet")
		cmd.Env = append(os.Environ(), "CARGO_TARGET_DIR="+t.TempDir())
	}
	if runtime == build.JavaScript {
		cmd = exec.CommandContext(t.Context(), "node", "--test")
	}
	if _, err := exec.LookPath(cmd.Args[0]); err != nil && os.Getenv(requireToolchains) == "" {
		t.Skipf("%s is not installed", cmd.Args[0])
	}
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v: %v\n%s", cmd.Args, err, out)
	}
}

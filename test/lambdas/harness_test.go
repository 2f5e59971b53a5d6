package lambdas

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/casemate-dev/casemate/api/manifest"
	"github.com/casemate-dev/casemate/internal/cli/build"
	"github.com/casemate-dev/casemate/test/guests"
	"github.com/casemate-dev/casemate/test/harness"
)

func TestMain(m *testing.M) { os.Exit(harness.Main(m)) }

// functions reads all folders, and the examples that belong here.
func functions(t *testing.T) []guests.Example {
	t.Helper()
	if testing.Short() {
		t.Skip("runs compilers, npm and pip; not with -short")
	}
	var all []guests.Example
	for _, root := range []string{"testdata", filepath.Join("..", "..", "examples")} {
		fns, err := guests.Load(root)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range fns {
			if manifest.Native(f.Function.Config.Runtime) {
				all = append(all, f)
			}
		}
	}
	return all
}

func request(f *guests.Example, dir string) build.Request {
	c := f.Function.Config
	return build.Request{Name: f.Function.Name, Dir: dir, Source: f.Function.Source, Runtime: c.Runtime, Handler: c.Handler, Command: c.Command}
}

// available skips a test whose tools are not on this machine.
func available(t *testing.T, f *guests.Example) {
	t.Helper()
	err := build.Check(t.Context(), request(f, f.Dir))
	var missing *build.ToolchainError
	switch {
	case errors.As(err, &missing) && os.Getenv(harness.RequireToolchains) == "":
		t.Skip(err)
	case err != nil:
		t.Fatal(err)
	}
}

// pack builds a function of which a copy lies in dir. What a compiler keeps for the next
// build is kept with the user's, since a first build of the Rust function takes minutes.
func pack(ctx context.Context, t *testing.T, f *guests.Example, dir string) build.Artifact {
	t.Helper()
	var said bytes.Buffer
	req := request(f, dir)
	req.Out = &said
	a, err := build.Build(ctx, req)
	if err != nil {
		t.Fatalf("%v\n%s", err, strings.TrimSpace(said.String()))
	}
	return a
}

// homes keeps the caches of compilers and installers where they are for the user who
// runs the tests: a command of the harness has a home folder of its own.
func homes() []string {
	home, err := os.UserHomeDir()
	if err != nil {
		return nil
	}
	out := []string{"HOME=" + home}
	for _, name := range []string{"XDG_CACHE_HOME", "XDG_CONFIG_HOME"} {
		if v := os.Getenv(name); v != "" {
			out = append(out, name+"="+v)
		}
	}
	return out
}

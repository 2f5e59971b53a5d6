package build

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"
)

// startOnly is the smallest command: one function, exported as _start.
var startOnly = []byte("\x00asm\x01\x00\x00\x00" +
	"\x01\x04\x01\x60\x00\x00" + // type: () -> ()
	"\x03\x02\x01\x00" + // function
	"\x07\x0a\x01\x06_start\x00\x00" + // export
	"\x0a\x04\x01\x02\x00\x0b") // code

// write puts files into a new folder; names that start with bin/ can be executed.
func write(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, content := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		mode := os.FileMode(0o600)
		if strings.HasPrefix(name, "bin/") {
			mode = 0o700
		}
		if err := os.WriteFile(path, []byte(content), mode); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// fakeGo is a compiler that tells what it sees and gives a module.
func fakeGo(t *testing.T, script string) string {
	t.Helper()
	if runtime.GOOS == "windows" {
		t.Skip("the fake compiler is a shell script")
	}
	return write(t, map[string]string{
		"bin/go":        "#!/bin/sh\n" + script + "\n",
		"module.wasm":   string(startOnly),
		"source/go.mod": "module a\n",
	})
}

// copyModule is the part of a fake compiler that writes its output.
const copyModule = `while [ "$1" != -o ]; do shift; done; cp ../module.wasm "$2"`

func request(dir string, env ...string) Request {
	return Request{
		Name: "a", Dir: dir, Source: "source", Runtime: Go,
		Env: append(env, "PATH="+filepath.Join(dir, "bin")+":/usr/bin:/bin", "HOME="+dir),
	}
}

func TestBuildPassesOnWhatTheCompilerMade(t *testing.T) {
	t.Parallel()
	dir := fakeGo(t, `echo compiling "$@"; `+copyModule)
	req := request(dir)
	var out bytes.Buffer
	req.Out = &out
	clock := time.Unix(0, 0)
	req.Clock = func() time.Time { clock = clock.Add(time.Second); return clock }
	a, err := Build(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(a.Bytes, startOnly) || a.Entry != EntryCommand || a.Duration != time.Second ||
		a.Digest != fmt.Sprintf("sha256:%x", sha256.Sum256(startOnly)) {
		t.Errorf("got %+v", a)
	}
	for _, want := range []string{"compiling build", "-trimpath", "-buildvcs=false", "-ldflags -s -w"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the compiler's output %q lacks %q", out.String(), want)
		}
	}
	if strings.Contains(out.String(), "c-shared") {
		t.Error("a command was built as a library")
	}
}

// A credential in the developer's shell must not reach a compiler, whose build
// scripts come from dependencies.
func TestSecretsInTheEnvironmentDoNotReachTheCompiler(t *testing.T) {
	t.Parallel()
	dir := fakeGo(t, "env; "+copyModule)
	var out bytes.Buffer
	req := request(dir, "AWS_SECRET_ACCESS_KEY=planted-1", "NPM_TOKEN=planted-2", "CARGO_REGISTRY_TOKEN=planted-3",
		"GOFLAGS=-toolexec=planted-4", "LD_PRELOAD=planted-5", "CASEMATE_KEY=planted-6", "GIT_CONFIG_PARAMETERS=planted-7",
		"RUSTFLAGS=planted-8", "GOPROXY=https://proxy.example", "HTTPS_PROXY=http://10.0.0.1:3128")
	req.Out = &out
	if _, err := Build(t.Context(), req); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(out.String(), "planted") {
		t.Errorf("the compiler saw a planted variable:\n%s", out.String())
	}
	for _, want := range []string{"GOOS=wasip1", "GOARCH=wasm", "CGO_ENABLED=0", "GOWORK=off", "GOFLAGS=-buildvcs=false", "GOPROXY=https://proxy.example", "HTTPS_PROXY=http://10.0.0.1:3128", "HOME=" + dir} {
		if !strings.Contains(out.String(), want+"\n") {
			t.Errorf("the compiler did not see %s:\n%s", want, out.String())
		}
	}
}

// Nothing in a request is ever read by a shell.
func TestShellWordsInAPathAreOnlyAPath(t *testing.T) {
	t.Parallel()
	dir := fakeGo(t, strings.ReplaceAll(copyModule, "..", "$HOME"))
	name := "source; touch planted $(touch planted) `touch planted`"
	if err := os.Rename(filepath.Join(dir, "source"), filepath.Join(dir, name)); err != nil {
		t.Fatal(err)
	}
	req := request(dir)
	req.Source = name
	if _, err := Build(t.Context(), req); err != nil {
		t.Fatal(err)
	}
	for _, where := range []string{dir, filepath.Join(dir, name)} {
		if _, err := os.Stat(filepath.Join(where, "planted")); err == nil {
			t.Errorf("a shell ran in %s", where)
		}
	}
}

// A compiler in the function's own folder is not taken, even when PATH says so.
func TestARelativePathEntryDoesNotSupplyTheCompiler(t *testing.T) {
	dir := fakeGo(t, copyModule)
	t.Chdir(filepath.Join(dir, "source")) // where `casemate deploy` would be run
	if err := os.Symlink("../bin", "bin"); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("bin/go", "go"); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{".", "bin", "", "./bin:."} {
		req := Request{Name: "a", Dir: ".", Runtime: Go, Env: []string{"PATH=" + path, "HOME=" + dir}}
		var missing *ToolchainError
		if _, err := Build(t.Context(), req); !errors.As(err, &missing) {
			t.Errorf("PATH=%q: got %v, want a *ToolchainError", path, err)
		}
	}
}

func TestAMissingToolchainSaysWhatToInstall(t *testing.T) {
	t.Parallel()
	for _, name := range []string{Go, C, AssemblyScript} {
		req := Request{Name: "a", Dir: t.TempDir(), Runtime: name, Env: []string{"PATH=" + t.TempDir()}}
		for what, run := range map[string]func() error{
			"build": func() error { _, err := Build(t.Context(), req); return err },
			"check": func() error { return Check(t.Context(), req) },
		} {
			var missing *ToolchainError
			if err := run(); !errors.As(err, &missing) || missing.Runtime != name || missing.Missing == "" || missing.Install == "" {
				t.Errorf("%s %s: got %v, want a *ToolchainError with a remedy", what, name, err)
			}
		}
	}
}

// A clang without its WASI parts is a missing toolchain, not a broken function.
func TestAClangThatCannotLinkIsAMissingToolchain(t *testing.T) {
	t.Parallel()
	dir := fakeGo(t, "")
	if err := os.WriteFile(filepath.Join(dir, "bin", "clang"), []byte("#!/bin/sh\necho noise; exit 1\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	req := request(dir)
	req.Runtime, req.Out = C, &out
	var missing *ToolchainError
	if _, err := Build(t.Context(), req); !errors.As(err, &missing) || !strings.Contains(missing.Install, "wasi-libc") {
		t.Errorf("got %v, want a *ToolchainError naming wasi-libc", err)
	}
	if out.Len() > 0 {
		t.Errorf("the probe's noise was shown: %q", out.String())
	}
}

func TestAnOldNodeIsAMissingToolchain(t *testing.T) {
	t.Parallel()
	dir := fakeGo(t, "")
	if err := os.WriteFile(filepath.Join(dir, "bin", "node"), []byte("#!/bin/sh\necho v16.20.2\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	req := request(dir)
	req.Runtime = AssemblyScript
	var missing *ToolchainError
	if err := Check(t.Context(), req); !errors.As(err, &missing) || !strings.Contains(err.Error(), "v16.20.2") {
		t.Errorf("got %v, want a *ToolchainError naming the version found", err)
	}
}

func TestACompilersRefusalIsTyped(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	req := request(fakeGo(t, `echo "main.go:3: broken" >&2; exit 2`))
	req.Out = &out
	var failed *CompileError
	if _, err := Build(t.Context(), req); !errors.As(err, &failed) || failed.ExitCode != 2 || failed.Tool != "go" || failed.TimedOut {
		t.Errorf("got %+v, want exit code 2 of go", failed)
	}
	if out.String() != "main.go:3: broken\n" {
		t.Errorf("the compiler's words were %q", out.String())
	}
}

func TestTheEndOfTheCallersContextCanBeMatched(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := Build(ctx, request(fakeGo(t, "sleep 600")))
	var failed *CompileError
	if !errors.Is(err, context.Canceled) || !errors.As(err, &failed) || failed.TimedOut {
		t.Errorf("got %v, want a *CompileError matching context.Canceled", err)
	}
}

func TestBadRequestsNameFieldAndRemedy(t *testing.T) {
	t.Parallel()
	dir := fakeGo(t, copyModule)
	file := filepath.Join(dir, "module.wasm")
	tests := map[string]struct {
		change func(*Request)
		field  string
	}{
		"runtime":         {func(r *Request) { r.Runtime = "cobol" }, "runtime"},
		"entry":           {func(r *Request) { r.Entry = "main" }, "entry"},
		"no such folder":  {func(r *Request) { r.Source = "nowhere" }, "source"},
		"a file":          {func(r *Request) { r.Source = "module.wasm" }, "source"},
		"a folder":        {func(r *Request) { r.Runtime = Wasm }, "source"},
		"no go.mod":       {func(r *Request) { r.Source = "bin" }, "source"},
		"not a reactor":   {func(r *Request) { r.Entry = EntryHandle }, "entry"},
		"wasm as handle":  {func(r *Request) { r.Runtime, r.Source, r.Entry = Wasm, file, EntryHandle }, "entry"},
		"not WebAssembly": {func(r *Request) { r.Runtime, r.Source = Wasm, "source/go.mod" }, "source"},
	}
	for name, tt := range tests {
		req := request(dir)
		tt.change(&req)
		var bad *InputError
		_, err := Build(t.Context(), req)
		if !errors.As(err, &bad) || bad.Field != tt.field || bad.Remedy == "" || bad.Function != "a" {
			t.Errorf("%s: got %v, want an *InputError on %s", name, err, tt.field)
		}
	}
}

func TestPrebuiltModulesAreTakenAsTheyAre(t *testing.T) {
	t.Parallel()
	dir := fakeGo(t, "")
	a, err := Build(t.Context(), Request{Dir: dir, Source: "module.wasm", Runtime: Wasm})
	if err != nil || !bytes.Equal(a.Bytes, startOnly) {
		t.Errorf("got %+v, %v", a, err)
	}
}

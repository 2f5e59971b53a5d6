package wasi_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/tetratelabs/wazero"
	builtin "github.com/tetratelabs/wazero/imports/wasi_snapshot_preview1"
	"github.com/tetratelabs/wazero/sys"

	"github.com/casemate-dev/casemate/internal/sandbox/wasm/wasi"
)

// world is a guest in the real world.
type world struct {
	in        *bytes.Reader
	out, logs bytes.Buffer
	began     time.Time
	files     wasi.Files
}

func (*world) Called()                                                      {}
func (*world) Observe(context.Context, wasi.Sight, []uint64, wasi.Function) {}

func (w *world) Read(p []byte) int {
	n, _ := w.in.Read(p)
	return n
}
func (w *world) Write(p []byte)      { w.out.Write(p) }
func (w *world) Log(p []byte)        { w.logs.Write(p) }
func (*world) Random(p []byte)       { _, _ = rand.Read(p) }
func (*world) Realtime() int64       { return time.Now().UnixNano() }
func (w *world) Monotonic() int64    { return int64(time.Since(w.began)) + 1 }
func (*world) Sleep(d time.Duration) { <-time.After(d) }
func (*world) Exit(code uint32)      { panic(sys.NewExitError(code)) }
func (w *world) Files() *wasi.Files  { return &w.files }
func (*world) Strings() (args, environ []string) {
	return []string{"judge"}, []string{"GREETING=hello"}
}

const input = "the first line\n\nthe third, without an end"

type seen struct {
	out, logs string
	code      uint32
}

// ours runs a program under the package's functions, engines' under the engine's.
func ours(ctx context.Context, t *testing.T, r wazero.Runtime, m wazero.CompiledModule) seen {
	t.Helper()
	if err := wasi.Instantiate(ctx, r); err != nil {
		t.Fatal(err)
	}
	w := &world{in: bytes.NewReader([]byte(input)), began: time.Now()}
	_, err := r.InstantiateModule(wasi.NewContext(ctx, w), m, wazero.NewModuleConfig())
	return seen{w.out.String(), w.logs.String(), exitCode(t, err)}
}

func engines(ctx context.Context, t *testing.T, r wazero.Runtime, m wazero.CompiledModule) seen {
	t.Helper()
	builtin.MustInstantiate(ctx, r)
	var out, logs bytes.Buffer
	_, err := r.InstantiateModule(ctx, m, wazero.NewModuleConfig().WithArgs("judge").WithEnv("GREETING", "hello").
		WithStdin(bytes.NewReader([]byte(input))).WithStdout(&out).WithStderr(&logs).
		WithRandSource(rand.Reader).WithSysWalltime().WithSysNanotime().WithSysNanosleep())
	return seen{out.String(), logs.String(), exitCode(t, err)}
}

func exitCode(t *testing.T, err error) uint32 {
	t.Helper()
	var exit *sys.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Errorf("the program failed: %v", err)
	}
	if exit == nil {
		return 0
	}
	return exit.ExitCode()
}

// TestLibrariesSeeTheSame runs programs of three languages, each with its library,
// under the engine's preview 1 and under ours.
func TestLibrariesSeeTheSame(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("compiling guests takes seconds")
	}
	here, err := filepath.Abs("testdata")
	if err != nil {
		t.Fatal(err)
	}
	for name, tool := range map[string][]string{
		"C":    {"clang", "--target=wasm32-wasi", "-O1", "judge.c", "-o"},
		"Rust": {"rustc", "--target=wasm32-wasip1", "-O", "judge.rs", "-o"},
		"Go":   {"go", "build", "-C", "gojudge", "-o"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if _, err := exec.LookPath(tool[0]); err != nil {
				t.Skipf("NOT TESTED: %v", err)
			}
			file := filepath.Join(t.TempDir(), "judge.wasm")
			cmd := exec.Command(tool[0], append(tool[1:], file)...)
			cmd.Dir = here
			cmd.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm")
			if name != "Go" {
				cmd.Env = os.Environ()
			}
			if said, err := cmd.CombinedOutput(); err != nil {
				t.Skipf("NOT TESTED: this machine's %s cannot build for WASI: %v: %s", tool[0], err, said)
			}
			code, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			results := map[string]seen{}
			for host, run := range map[string]func(context.Context, *testing.T, wazero.Runtime, wazero.CompiledModule) seen{
				"ours": ours, "the engine's": engines,
			} {
				ctx := context.Background()
				r := wazero.NewRuntime(ctx)
				defer func() { _ = r.Close(ctx) }()
				m, err := r.CompileModule(ctx, code)
				if err != nil {
					t.Fatal(err)
				}
				results[host] = run(ctx, t, r, m)
			}
			if results["ours"] != results["the engine's"] || results["ours"].code != 3 || len(results["ours"].out) < 50 {
				t.Errorf("ours:\n%+v\nthe engine's:\n%+v", results["ours"], results["the engine's"])
			}
		})
	}
}

package sandboxtest

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/casemate-dev/casemate/internal/function"
	"github.com/casemate-dev/casemate/internal/sandbox"
)

// GoGuests are the same program in Go, entered in both ways.
type GoGuests struct{ Command, Handle []byte }

// BuildGo compiles the guests in Go, once for each run of the tests.
var BuildGo = sync.OnceValues(func() (GoGuests, error) {
	// Not runtime.Caller: with -trimpath that names no place on this machine.
	here, err := exec.Command("go", "list", "-f", "{{.Dir}}", "github.com/casemate-dev/casemate/internal/sandbox/sandboxtest").Output()
	if err != nil {
		return GoGuests{}, fmt.Errorf("finding the Go guest: %v", err)
	}
	dir, err := os.MkdirTemp("", "casemate-guest")
	if err != nil {
		return GoGuests{}, fmt.Errorf("building the Go guest: %v", err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	build := func(mode string) ([]byte, error) {
		out := filepath.Join(dir, mode+".wasm")
		cmd := exec.Command("go", "build", "-ldflags=-s -w", "-buildmode="+mode, "-o", out, ".")
		cmd.Dir = filepath.Join(strings.TrimSpace(string(here)), "testdata", "goguest")
		cmd.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm", "CGO_ENABLED=0")
		if said, err := cmd.CombinedOutput(); err != nil {
			return nil, fmt.Errorf("building the Go guest as %s: %v: %s", mode, err, said)
		}
		return os.ReadFile(out)
	}
	var g GoGuests
	if g.Command, err = build("exe"); err != nil {
		return g, err
	}
	g.Handle, err = build("c-shared")
	return g, err
})

// at invokes a version with a path.
func (b *Bench) at(v *function.Version, path, body string) Outcome {
	b.T.Helper()
	var o Outcome
	res, err := b.Runner.Invoke(context.Background(), &sandbox.Invocation{
		ID: "id-2", Version: v, Body: []byte(body),
		Head: sandbox.Head{ID: "id-2", Method: "POST", Path: path, Trigger: "http"},
		Log:  func(l sandbox.LogLine) { o.Log = append(o.Log, l) },
	})
	o.Result = res
	if e, ok := err.(*sandbox.Error); ok { //nolint:errorlint // the type itself is the promise
		o.Err = e
	} else if err != nil {
		b.T.Fatalf("Invoke failed with %T", err)
	}
	return o
}

// testGo runs programs as people write them, with a runtime of their own between
// them and the sandbox.
func testGo(t *testing.T, h Harness) {
	if testing.Short() {
		t.Skip("compiling guests takes seconds")
	}
	guests, err := BuildGo()
	if err != nil {
		t.Fatal(err)
	}
	store := &Store{}
	r := h.New(t, store)
	for name, form := range map[string]struct {
		code  []byte
		entry Option
	}{"Command": {guests.Command, func(*function.Version) {}}, "Handle": {guests.Handle, Handle}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := &Bench{T: t, Runner: r, Store: store}
			v := b.Version(form.code, form.entry)
			if o := b.at(v, "/", "hello, Go"); o.Err != nil || string(o.Body) != "hello, Go" {
				t.Fatalf("got %q, %v", o.Body, o.Err)
			}
			for range 2 {
				if o := b.at(v, "/kept", ""); o.Err != nil || string(o.Body) != "1" {
					t.Errorf("a variable of the program says %q, %v, want 1 each time", o.Body, o.Err)
				}
			}
			if o := b.at(v, "/reach", ""); o.Err != nil || len(o.Body) > 0 {
				t.Errorf("the guest reached %q, %v", o.Body, o.Err)
			}
			// Go ends a command by its exit code and a reactor by a trap.
			if o := b.at(v, "/panic", ""); o.Err == nil || o.Err.Kind != sandbox.Exit && o.Err.Kind != sandbox.Trap || len(o.Log) == 0 || o.Log[0].Text != "panic: as told" {
				t.Errorf("a panic gave %v with the log %v", o.Err, o.Log)
			}
			b.WantKind(b.at(v, "/fail", ""), sandbox.Exit)
			b.WantKind(b.at(v, "/hoard", ""), sandbox.Memory)
			if o := b.at(v, "/recurse", ""); o.Err == nil {
				t.Error("endless recursion succeeded")
			}
			quick := b.Version(form.code, form.entry, Within(500*time.Millisecond))
			b.WantKind(b.at(quick, "/spin", ""), sandbox.Timeout)
			b.WantKind(b.at(quick, "/sleep", ""), sandbox.Timeout)
		})
	}
}

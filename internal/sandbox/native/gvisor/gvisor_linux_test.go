package gvisor_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/casemate-dev/casemate/internal/sandbox/box"
	"github.com/casemate-dev/casemate/internal/sandbox/native"
	"github.com/casemate-dev/casemate/internal/sandbox/native/gvisor"
	"github.com/casemate-dev/casemate/internal/sandbox/native/nativetest"
)

// runsc builds gVisor's runtime, which takes minutes, and keeps it in the user's cache.
func runsc(t testing.TB) string {
	t.Helper()
	if testing.Short() {
		t.Skip("runsc takes minutes to build")
	}
	if os.Geteuid() != 0 {
		t.Skip("only root can put gVisor into boxes")
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Skipf("there is no place for runsc: %v", err)
	}
	sum := sha256.New()
	for _, name := range []string{"go.mod", "go.sum", "main.go"} {
		b, err := os.ReadFile(filepath.Join("testdata", "runsc", name))
		if err != nil {
			t.Fatal(err)
		}
		sum.Write(b)
	}
	dir := filepath.Join(cache, "casemate-test", "runsc-"+runtime.Version()+"-"+hex.EncodeToString(sum.Sum(nil))[:16])
	out := filepath.Join(dir, "runsc")
	if _, err := os.Stat(out); err == nil {
		return out
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Skipf("there is no place for runsc: %v", err)
	}
	made := filepath.Join(t.TempDir(), "runsc")
	cmd := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-ldflags=-s -w", "-o", made, ".")
	cmd.Dir = filepath.Join("testdata", "runsc")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=-mod=readonly", "GOWORK=off")
	if said, err := cmd.CombinedOutput(); err != nil {
		t.Skipf("runsc cannot be built here: %v\n%s", err, said)
	}
	code, err := os.ReadFile(made)
	if err == nil {
		err = os.WriteFile(out+".new", code, 0o755)
	}
	if err == nil {
		err = os.Rename(out+".new", out)
	}
	if err != nil {
		t.Fatalf("keeping runsc: %v", err)
	}
	return out
}

func launcher(t testing.TB, program, stub string) native.Launcher {
	t.Helper()
	b, err := box.Open(context.Background(), box.Config{Program: stub, Logger: slog.New(slog.NewTextHandler(t.Output(), nil))})
	if err != nil {
		t.Fatalf("opening the broker: %v", err)
	}
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Errorf("closing the broker: %v", err)
		}
	})
	l, err := gvisor.New(gvisor.Config{Broker: b, Program: program, Logger: slog.New(slog.NewTextHandler(t.Output(), nil))})
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func TestVersionsInGVisor(t *testing.T) {
	t.Parallel()
	program, stub := runsc(t), nativetest.Stub(t)
	nativetest.Run(t, nativetest.Harness{Launcher: func(t *testing.T) native.Launcher { return launcher(t, program, stub) }, Confined: true, Kernel: true})
}

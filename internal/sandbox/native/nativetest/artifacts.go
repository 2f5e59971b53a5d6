package nativetest

import (
	"archive/zip"
	"bytes"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"testing"
)

// Archive packs files, all executable, as the client does.
func Archive(t testing.TB, files map[string][]byte) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := zip.NewWriter(&buf)
	for _, name := range slices.Sorted(maps.Keys(files)) {
		h := &zip.FileHeader{Name: name, Method: zip.Deflate}
		h.SetMode(fs.FileMode(0o755))
		f, err := w.CreateHeader(h)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.Write(files[name]); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// Guest builds the guest and gives its bytes.
func Guest(t testing.TB) []byte {
	t.Helper()
	b, err := os.ReadFile(Build(t, "internal/sandbox/native/nativetest/testdata/guest"))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// Stub builds the small program that boxes are started with, and gives its path. A
// test's own program cannot play it: with the race detector it is built with C.
func Stub(t testing.TB) string {
	t.Helper()
	return Build(t, "cmd/casemate-box")
}

// Build builds a command of this module, for as long as the test runs, and gives its
// path.
func Build(t testing.TB, command string) string {
	t.Helper()
	out := filepath.Join(t.TempDir(), path.Base(command))
	// The toolchain's cache makes the second build a copy.
	cmd := exec.CommandContext(t.Context(), "go", "build", "-ldflags=-s -w", "-o", out, "github.com/casemate-dev/casemate/"+command)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=")
	if said, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("building %s: %v\n%s", command, err, said)
	}
	return out
}

package nativetest

import (
	"archive/zip"
	"bytes"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"sync"
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
	return compiled(t, "internal/sandbox/native/nativetest/testdata/guest")
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
	// Another process writes it: were it this one, a program started meanwhile might still hold
	// it open for writing when it is to be executed, which Linux refuses ("text file busy").
	write := exec.Command("sh", "-c", `cat >"$0" && chmod 755 "$0"`, out)
	write.Stdin = bytes.NewReader(compiled(t, command))
	if said, err := write.CombinedOutput(); err != nil {
		t.Fatalf("writing %s: %v\n%s", out, err, said)
	}
	return out
}

// builds holds what was built for this process, by command: functions that give []byte and
// an error. The toolchain keeps no program that it linked.
var builds sync.Map

// compiled builds a command of this module once and gives its bytes.
func compiled(t testing.TB, command string) []byte {
	t.Helper()
	once, _ := builds.LoadOrStore(command, sync.OnceValues(func() ([]byte, error) {
		dir, err := os.MkdirTemp("", "casemate-built-")
		if err != nil {
			return nil, err
		}
		defer func() { _ = os.RemoveAll(dir) }()
		out := filepath.Join(dir, path.Base(command))
		// With the flags of the build that ships, so that what it compiled serves here.
		cmd := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", out, "github.com/casemate-dev/casemate/"+command)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=")
		if said, err := cmd.CombinedOutput(); err != nil {
			return nil, fmt.Errorf("building %s: %w\n%s", command, err, said)
		}
		return os.ReadFile(out)
	}))
	b, err := once.(func() ([]byte, error))()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

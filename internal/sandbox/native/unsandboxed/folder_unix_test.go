//go:build unix

package unsandboxed

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// What a killed Launcher left goes with the next start; what another one uses stays, and
// so does what a name there leads to.
func TestAbandonedFoldersAreRemoved(t *testing.T) {
	t.Parallel()
	base, elsewhere := t.TempDir(), t.TempDir()
	used, lock, err := newFolder(base)
	if err != nil {
		t.Fatal(err)
	}
	abandoned, other, err := newFolder(base)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.WriteFile(filepath.Join(abandoned, "code"), []byte("x"), 0o600), other.Close()); err != nil {
		t.Fatal(err)
	}
	precious := filepath.Join(elsewhere, "precious")
	if err := errors.Join(os.WriteFile(precious, []byte("x"), 0o600), os.Symlink(elsewhere, filepath.Join(base, prefix+"link"))); err != nil {
		t.Fatal(err)
	}
	removed(t, base, abandoned)
	if _, err := os.Stat(used); err != nil {
		t.Errorf("one in use: %v", err)
	}
	if _, err := os.Stat(precious); err != nil {
		t.Errorf("what a link leads to: %v", err)
	}
	if err := lock.Close(); err != nil {
		t.Fatal(err)
	}
	removed(t, base, used)
}

// removed waits until a folder that nobody holds is removed: a process that another test
// starts holds copies of this one's locks until it executes its program.
func removed(t *testing.T, base, dir string) {
	t.Helper()
	for end := time.Now().Add(2 * time.Minute); ; <-time.After(time.Millisecond) {
		removeAbandoned(base)
		_, err := os.Stat(dir)
		if errors.Is(err, fs.ErrNotExist) {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%s is still there: %v", dir, err)
		}
	}
}

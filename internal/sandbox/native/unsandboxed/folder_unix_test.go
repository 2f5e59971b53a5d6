//go:build unix

package unsandboxed

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
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
	removeAbandoned(base)
	if _, err := os.Stat(used); err != nil {
		t.Errorf("one in use: %v", err)
	}
	if _, err := os.Stat(abandoned); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("an abandoned one: %v", err)
	}
	if _, err := os.Stat(precious); err != nil {
		t.Errorf("what a link leads to: %v", err)
	}
	if err := lock.Close(); err != nil {
		t.Fatal(err)
	}
	removeAbandoned(base)
	if _, err := os.Stat(used); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("one that was let go: %v", err)
	}
}

package durable_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/casemate-dev/casemate/internal/durable"
)

func TestWriteFileReplacesTheWholeAndFollowsNoLeftover(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file, elsewhere := filepath.Join(dir, "id"), filepath.Join(dir, "elsewhere")
	if err := os.Symlink(elsewhere, filepath.Join(dir, ".id.new")); err != nil {
		t.Fatal(err)
	}
	for _, content := range []string{"a longer first content", "short"} {
		if err := durable.WriteFile(file, []byte(content)); err != nil {
			t.Fatal(err)
		}
		if b, err := os.ReadFile(file); err != nil || string(b) != content {
			t.Errorf("%q, %v", b, err)
		}
	}
	info, err := os.Lstat(file)
	if err != nil || info.Mode() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 {
		t.Errorf("left behind: %v, %v", entries, err)
	}
}

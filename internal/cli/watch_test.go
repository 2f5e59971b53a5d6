package cli

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

// Of many files that change, only those that something is built from are reported.
func TestWatcherReportsSourceOnly(t *testing.T) {
	t.Parallel()
	root, elsewhere := t.TempDir(), t.TempDir()
	write := func(path string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte("x"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	module := filepath.Join(elsewhere, "ready.wasm")
	w, err := newWatcher([]string{root}, []string{module})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = w.close() }()
	ctx, cancel := context.WithCancel(context.Background())
	changes, ended := make(chan change), make(chan error, 1)
	go func() { ended <- w.run(ctx, time.Now, changes) }()

	for _, name := range []string{".main.go.swp", "main.go~", "out.wasm", "4913", "#main.go#", ".env", "target/a.rs", "node_modules/a/b.js", ".git/index", "app.map"} {
		write(filepath.Join(root, name))
	}
	write(filepath.Join(elsewhere, "beside.wasm"))
	write(module)
	last := filepath.Join(root, "main.go")
	write(last)
	var seen []string
	for !slices.Contains(seen, last) {
		select {
		case c := <-changes:
			seen = append(seen, c.paths...)
		case <-time.After(2 * time.Minute):
			t.Fatalf("saw only %q", seen)
		}
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	slices.Sort(seen)
	want := []string{last, module}
	slices.Sort(want)
	if !slices.Equal(slices.Compact(seen), want) {
		t.Errorf("saw %q, want %q", seen, want)
	}
}

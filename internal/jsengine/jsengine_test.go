package jsengine

import (
	"encoding/json"
	"errors"
	"os"
	"testing"
	"testing/fstest"
)

func TestModule(t *testing.T) {
	if _, err := module(fstest.MapFS{"dist/README.md": {}}); !errors.Is(err, ErrMissing) {
		t.Errorf("without the module: %v, want %v", err, ErrMissing)
	}
	code, err := module(fstest.MapFS{"dist/engine.wasm": {Data: []byte("code")}})
	if err != nil || string(code) != "code" {
		t.Errorf("with the module: %q, %v", code, err)
	}
}

// TestVersion holds the version that receipts show to what is built.
func TestVersion(t *testing.T) {
	text, err := os.ReadFile("../../engine/js/sources.lock.json")
	if err != nil {
		t.Fatal(err)
	}
	var lock struct {
		Sources []struct{ Name, Version string }
	}
	if err := json.Unmarshal(text, &lock); err != nil {
		t.Fatal(err)
	}
	if s := lock.Sources[0]; s.Name+" "+s.Version != Version() {
		t.Errorf("Version is %q, the lock file has %s %s", Version(), s.Name, s.Version)
	}
}

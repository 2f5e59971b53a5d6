package build

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// oldRust puts a cargo and a rustc 1.60 with a WASI library on the PATH.
func oldRust(t *testing.T) Request {
	t.Helper()
	dir := fakeGo(t, "")
	library := filepath.Join(dir, "library")
	for path, script := range map[string]string{
		"bin/cargo":                "exit 1",
		"bin/rustc":                `if [ "$1" = --version ]; then echo "rustc 1.60.0 (x)"; else echo ` + library + "; fi",
		"library/libstd-1234.rlib": "",
	} {
		path = filepath.Join(dir, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte("#!/bin/sh\n"+script+"\n"), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	req := request(dir)
	req.Runtime, req.CacheDir = Rust, t.TempDir()
	return req
}

func TestARustThatIsTooOldIsAMissingToolchain(t *testing.T) {
	t.Parallel()
	req := oldRust(t)
	if err := Check(t.Context(), req); err != nil {
		t.Fatalf("without a demand: %v", err)
	}
	demand := filepath.Join(req.Dir, "source", "Cargo.toml")
	if err := os.WriteFile(demand, []byte("[package]\nrust-version = \"9999.1\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	var missing *ToolchainError
	if err := Check(t.Context(), req); !errors.As(err, &missing) || !strings.Contains(err.Error(), "9999.1") {
		t.Errorf("got %v, want a *ToolchainError naming 9999.1", err)
	}
}

func TestCargoOutputTakesThisPackagesModuleAlone(t *testing.T) {
	t.Parallel()
	dir := write(t, map[string]string{"Cargo.toml": "", "other/Cargo.toml": ""})
	const mine, theirs = "/Cargo.toml", "/other/Cargo.toml"
	line := func(manifest, kind, file string) string {
		return `{"reason":"compiler-artifact","manifest_path":"` + dir + manifest + `","target":{"kind":["` + kind + `"]},"filenames":["` + file + `"]}` + "\n"
	}
	tests := map[string]struct {
		messages, entry, want string
	}{
		"one program":  {line(theirs, "lib", "/x.rlib") + "noise\n" + line(mine, "bin", "/a.wasm"), EntryCommand, "/a.wasm"},
		"a dependency": {line(theirs, "bin", "/evil.wasm") + line(mine, "bin", "/a.wasm"), EntryCommand, "/a.wasm"},
		"a library":    {line(mine, "cdylib", "/a.wasm"), EntryHandle, "/a.wasm"},
		"none":         {line(mine, "lib", "/a.rlib"), EntryCommand, ""},
		"two programs": {line(mine, "bin", "/a.wasm") + line(mine, "bin", "/b.wasm"), EntryCommand, ""},
		"wrong entry":  {line(mine, "bin", "/a.wasm"), EntryHandle, ""},
	}
	for name, tt := range tests {
		j := &job{source: dir, Request: Request{Entry: tt.entry}}
		got, err := cargoOutput(j, []byte(tt.messages))
		var bad *InputError
		if got != tt.want || tt.want == "" && !errors.As(err, &bad) {
			t.Errorf("%s: got %q, %v, want %q", name, got, err, tt.want)
		}
	}
}

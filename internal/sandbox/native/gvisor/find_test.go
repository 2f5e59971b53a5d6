package gvisor

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

func TestFindingRunsc(t *testing.T) {
	t.Parallel()
	if runtime.GOOS == "windows" {
		t.Skip("there are no scripts")
	}
	with := func(script string, mode os.FileMode) string {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "runsc"), []byte(script), mode); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	good := with("#!/bin/sh\necho runsc version release-1\necho spec: 1.1\n", 0o755)
	for name, c := range map[string]struct{ list, want string }{
		"nowhere":        {t.TempDir(), "not on the node's PATH"},
		"no list":        {"", "not on the node's PATH"},
		"relative":       {".", "not on the node's PATH"},
		"not executable": {with("#!/bin/sh\necho runsc version 1\n", 0o644), "not on the node's PATH"},
		"broken":         {with("#!/bin/sh\nexit 1\n", 0o755), "does not say its version"},
		"another":        {with("#!/bin/sh\necho hello\n", 0o755), "does not say its version"},
	} {
		_, _, err := Find(t.Context(), c.list)
		var missing *MissingError
		if !errors.As(err, &missing) || !strings.Contains(missing.Reason, c.want) || !strings.Contains(missing.Remedy, "install") {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
	program, version, err := Find(t.Context(), t.TempDir()+string(filepath.ListSeparator)+good)
	if err != nil || program != filepath.Join(good, "runsc") || version != "runsc version release-1" {
		t.Errorf("found %q, %q, %v", program, version, err)
	}
}

package scaffold

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestWriteGivesACompleteFunction(t *testing.T) {
	t.Parallel()
	for _, runtime := range Runtimes() {
		dir := filepath.Join(t.TempDir(), "new", "folder")
		files, err := Write(dir, "hello-2", runtime)
		if err != nil {
			t.Fatalf("%s: %v", runtime, err)
		}
		have := map[string]string{}
		for _, name := range files {
			b, err := os.ReadFile(filepath.Join(dir, name))
			if err != nil {
				t.Fatalf("%s: listed but not written: %v", runtime, err)
			}
			have[name] = string(b)
			if strings.Contains(string(b), "{{name}}") {
				t.Errorf("%s: %s still holds a placeholder", runtime, name)
			}
		}
		for _, name := range []string{"casemate.yaml", "README.md", ".gitignore"} {
			if have[name] == "" {
				t.Errorf("%s: no %s among %v", runtime, name, files)
			}
		}
		if !strings.Contains(have["casemate.yaml"], "hello-2:\n    runtime: "+runtime+"\n") {
			t.Errorf("%s: casemate.yaml does not name the function and its runtime:\n%s", runtime, have["casemate.yaml"])
		}
	}
}

func TestRuntimesMatchTheTemplates(t *testing.T) {
	t.Parallel()
	entries, err := templates.ReadDir("templates")
	if err != nil {
		t.Fatal(err)
	}
	if len(entries) != len(Runtimes()) {
		t.Errorf("%d folders of templates, %d runtimes", len(entries), len(Runtimes()))
	}
}

func TestWriteRefusesNamesThatAreNoLabel(t *testing.T) {
	t.Parallel()
	for _, name := range []string{
		"", "Hello", "1st", "-a", "a-", "a b", "a/b", "../a", "a\n", "ä", "a_b", "a.b", `a"b`, strings.Repeat("a", 64),
	} {
		dir := t.TempDir()
		_, err := Write(dir, name, "go")
		var refused *Error
		if !errors.As(err, &refused) || refused.Remedy == "" {
			t.Errorf("%q: got %v, want an *Error with a remedy", name, err)
		}
		if left, _ := os.ReadDir(dir); len(left) > 0 {
			t.Errorf("%q: files were written", name)
		}
	}
}

func TestWriteRefusesAnUnknownRuntime(t *testing.T) {
	t.Parallel()
	for _, runtime := range []string{"", "cobol", "../go", "go/.."} {
		var refused *Error
		if _, err := Write(t.TempDir(), "a", runtime); !errors.As(err, &refused) {
			t.Errorf("%q: got %v, want an *Error", runtime, err)
		}
	}
}

func TestWriteNeverOverwrites(t *testing.T) {
	t.Parallel()
	for _, inTheWay := range []string{"main.go", "casemate.yaml", ".gitignore"} {
		dir := t.TempDir()
		mine := filepath.Join(dir, inTheWay)
		if err := os.WriteFile(mine, []byte("mine"), 0o600); err != nil {
			t.Fatal(err)
		}
		var refused *Error
		if _, err := Write(dir, "a", "go"); !errors.As(err, &refused) || !strings.Contains(err.Error(), inTheWay) {
			t.Errorf("got %v, want an *Error that names %s", err, inTheWay)
		}
		if b, _ := os.ReadFile(mine); string(b) != "mine" {
			t.Errorf("%s was overwritten", inTheWay)
		}
		if left, _ := os.ReadDir(dir); len(left) != 1 {
			t.Errorf("%d files in the folder, want the one that was there", len(left))
		}
	}
}

func TestWriteDoesNotFollowADanglingLink(t *testing.T) {
	t.Parallel()
	dir, elsewhere := t.TempDir(), filepath.Join(t.TempDir(), "elsewhere")
	if err := os.Symlink(elsewhere, filepath.Join(dir, "main.go")); err != nil {
		t.Fatal(err)
	}
	if _, err := Write(dir, "a", "go"); err == nil {
		t.Error("a file was written through a link")
	}
	if err := create(filepath.Join(dir, "main.go"), []byte("x")); err == nil {
		t.Error("create went through a link")
	}
	if _, err := os.Stat(elsewhere); err == nil {
		t.Error("the link's target came into being")
	}
}

func TestWriteTakesBackAHalfWrittenFunction(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	// The second file needs a folder where there is a file.
	if err := os.WriteFile(filepath.Join(dir, "src"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	files, err := writeAll(dir, []file{{name: "first"}, {name: filepath.Join("src", "second")}})
	if err == nil || len(files) > 0 {
		t.Fatalf("got %v, %v, want an error", files, err)
	}
	if left, _ := os.ReadDir(dir); len(left) != 1 {
		t.Errorf("%d files are left, want only the one that was there", len(left))
	}
}

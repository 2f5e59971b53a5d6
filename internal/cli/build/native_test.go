package build

import (
	"archive/zip"
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const fakeELF = "\x7fELF, in all but what follows"

// packed builds a function of a native runtime, without any compiler or installer.
func packed(t *testing.T, req Request, files map[string]string) (map[string]*zip.File, error) {
	t.Helper()
	if req.Dir == "" {
		req.Dir = write(t, files)
	}
	req.Name, req.Source, req.CacheDir = "f", ".", t.TempDir()
	if req.Env == nil {
		req.Env = []string{"PATH="}
	}
	a, err := Build(t.Context(), req)
	if err != nil {
		return nil, err
	}
	if a.Entry != "" {
		t.Errorf("the entry is %q", a.Entry)
	}
	return unzip(t, a.Bytes), nil
}

func unzip(t *testing.T, archive []byte) map[string]*zip.File {
	t.Helper()
	r, err := zip.NewReader(bytes.NewReader(archive), int64(len(archive)))
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]*zip.File{}
	last := ""
	for _, f := range r.File {
		if f.Name <= last {
			t.Errorf("%s comes after %s", f.Name, last)
		}
		if last = f.Name; f.ModifiedDate != 0 || f.ModifiedTime != 0 || len(f.Extra) > 0 {
			t.Errorf("%s has a time", f.Name)
		}
		out[f.Name] = f
	}
	return out
}

func text(t *testing.T, f *zip.File) string {
	t.Helper()
	r, err := f.Open()
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestArchivesHoldTheFolder(t *testing.T) {
	t.Parallel()
	files, err := packed(t, Request{Runtime: NodeJS}, map[string]string{
		"index.mjs": "export const handler = 1", "lib/a.js": "1", "data/table.csv": "a,b",
		".env": "SECRET=1", ".env.local": "SECRET=2", ".git/config": "x", ".npmrc": "token", "casemate.yaml": "functions: {}",
		"sub/.env": "SECRET=3", "__pycache__/a.pyc": "x", "node_modules/own/index.js": "1", ".aws/credentials": "x", "local.settings.json": "{}",
	})
	if err != nil {
		t.Fatal(err)
	}
	// Without a package.json, node_modules is the developer's own.
	for _, want := range []string{"index.mjs", "lib/a.js", "data/table.csv", "node_modules/own/index.js"} {
		if files[want] == nil {
			t.Errorf("%s is missing", want)
			continue
		}
		if files[want].Mode() != 0o644 {
			t.Errorf("%s has the mode %v", want, files[want].Mode())
		}
	}
	if len(files) != 4 {
		t.Errorf("the archive holds %d files", len(files))
	}
}

func TestIgnoreFile(t *testing.T) {
	t.Parallel()
	files, err := packed(t, Request{Runtime: Python}, map[string]string{
		ignoreFile:           "# what stays here\n*.md\n/top.txt\ndocs/\nsrc/**/gen-?.py\n!keep.md\n!.env\n\n[ab].dat\n",
		"lambda_function.py": "", "a.md": "", "sub/b.md": "", "keep.md": "", "top.txt": "", "sub/top.txt": "", "docs/x.py": "", "sub/docs/y.py": "",
		"src/gen-1.py": "", "src/deep/er/gen-2.py": "", "src/gen-10.py": "", "gen-1.py": "", ".env": "A=1", "a.dat": "", "c.dat": "",
	})
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]bool{
		"lambda_function.py": true, "a.md": false, "sub/b.md": false, "keep.md": true, "top.txt": false, "sub/top.txt": true, "docs/x.py": false,
		"sub/docs/y.py": false, "src/gen-1.py": false, "src/deep/er/gen-2.py": false, "src/gen-10.py": true, "gen-1.py": true, ".env": true,
		"a.dat": false, "c.dat": true, ignoreFile: false,
	} {
		if got := files[name] != nil; got != want {
			t.Errorf("%s: packed %v, want %v", name, got, want)
		}
	}
	for _, bad := range []string{"[", "a//b", "../x", "."} {
		refused(t, Request{Runtime: Python}, map[string]string{"lambda_function.py": "", ignoreFile: bad}, "source", "line 1")
	}
}

// refused builds what must fail with an *InputError that names the field and holds a
// piece of text.
func refused(t *testing.T, req Request, files map[string]string, field, holds string) {
	t.Helper()
	_, err := packed(t, req, files)
	var input *InputError
	if !errors.As(err, &input) || input.Field != field || input.Remedy == "" || !strings.Contains(input.Error(), holds) {
		t.Errorf("%s %v: got %v, want an *InputError at %s with %q", req.Runtime, files, err, field, holds)
	}
}

func TestFoldersThatCannotBePackedSayWhatToDo(t *testing.T) {
	t.Parallel()
	host := func(path string) string {
		return `{"customHandler": {"description": {"defaultExecutablePath": "` + path + `"}}}`
	}
	const function = "hello/function.json"
	for _, c := range []struct {
		req          Request
		files        map[string]string
		field, holds string
	}{
		{Request{Runtime: NodeJS}, map[string]string{"main.js": ""}, "handler", "no index.js"},
		{Request{Runtime: NodeJS, Handler: "src/app.v2.handler"}, map[string]string{"app.js": ""}, "handler", "no src/app.js"},
		{Request{Runtime: Python}, map[string]string{"app.py": ""}, "handler", "no lambda_function.py"},
		{Request{Runtime: Python, Handler: "pkg.mod.handler"}, map[string]string{"pkg/other.py": ""}, "handler", "no pkg/mod.py"},
		{Request{Runtime: Provided}, map[string]string{"main.c": ""}, "source", "no bootstrap"},
		{Request{Runtime: Provided}, map[string]string{"bootstrap": "#!/usr/bin/perl\n"}, "source", "does not have"},
		{Request{Runtime: Provided}, map[string]string{"bootstrap": "#!/usr/bin/env fish\n"}, "source", "does not have"},
		{Request{Runtime: Provided}, map[string]string{"bootstrap": "\xcf\xfa\xed\xfe"}, "source", "not a program for Linux"},
		{Request{Runtime: Provided}, map[string]string{"go.mod": "module a\n", "a.go": "package a\n"}, "source", "package main"},
		{Request{Runtime: HTTP}, map[string]string{"server.js": ""}, "command", "nothing says"},
		{Request{Runtime: HTTP, Command: []string{"./server"}}, map[string]string{"server.js": ""}, "source", "no server"},
		{Request{Runtime: HTTP, Command: []string{"node", "--enable-source-maps", "app.js"}}, map[string]string{"server.js": ""}, "command", "no app.js"},
		{Request{Runtime: Azure}, map[string]string{"server.js": ""}, "source", "no host.json"},
		{Request{Runtime: Azure}, map[string]string{"host.json": "{"}, "source", "cannot be read"},
		{Request{Runtime: Azure}, map[string]string{"host.json": "{}"}, "source", "defaultExecutablePath"},
		{Request{Runtime: Azure}, map[string]string{"host.json": host("handler.exe"), function: "{}"}, "source", "for Windows"},
		{Request{Runtime: Azure}, map[string]string{"host.json": host("../handler"), function: "{}"}, "source", "does not lie"},
		{Request{Runtime: Azure}, map[string]string{"host.json": host("handler"), "handler": fakeELF}, "source", "function.json"},
		{Request{Runtime: Azure}, map[string]string{"host.json": host("handler"), function: "{}"}, "source", "no handler"},
		{Request{Runtime: NodeJS, Entry: EntryHandle}, map[string]string{"index.js": ""}, "entry", "nodejs"},
		{Request{Runtime: NodeJS}, map[string]string{"index.js": "", "A.js": "", "a.js": ""}, "source", "case alone"},
	} {
		refused(t, c.req, c.files, c.field, c.holds)
	}
}

func TestProgramsCanBeExecuted(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		req   Request
		files map[string]string
		name  string
	}{
		{Request{Runtime: Provided}, map[string]string{"bootstrap": fakeELF}, "bootstrap"},
		{Request{Runtime: HTTP, Command: []string{"bin/serve"}}, map[string]string{"bin/serve": "#!/usr/bin/env node\n"}, "bin/serve"},
		{Request{Runtime: HTTP, Command: []string{"bin/serve"}}, map[string]string{"bin/serve": "#!/usr/local/bin/python3 -u\n"}, "bin/serve"},
		{Request{Runtime: HTTP, Command: []string{"./bin/server", "-q"}}, map[string]string{"bin/server": fakeELF}, "bin/server"},
		{Request{Runtime: Azure}, map[string]string{
			"host.json":       `{"customHandler": {"description": {"defaultExecutablePath": "handler", "arguments": []}}}`,
			"f/function.json": "{}", "handler": fakeELF,
		}, "handler"},
	} {
		files, err := packed(t, c.req, c.files)
		if err != nil {
			t.Errorf("%s: %v", c.req.Runtime, err)
			continue
		}
		if got := files[c.name]; got == nil || got.Mode() != 0o755 {
			t.Errorf("%s: %v", c.req.Runtime, got)
		}
	}
}

func TestLinksStayInTheArchive(t *testing.T) {
	t.Parallel()
	dir := write(t, map[string]string{"index.js": "1", "lib/a.js": "2"})
	if err := os.Symlink("../index.js", filepath.Join(dir, "lib", "up.js")); err != nil {
		t.Skip(err)
	}
	files, err := packed(t, Request{Runtime: NodeJS, Dir: dir}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if l := files["lib/up.js"]; l == nil || l.Mode().Type() != fs.ModeSymlink || text(t, l) != "../index.js" {
		t.Errorf("the link became %v", l)
	}
	for _, target := range []string{"/etc/passwd", "../secret", "lib/../../secret", dir} {
		out := write(t, map[string]string{"index.js": "1"})
		if err := os.Symlink(target, filepath.Join(out, "link")); err != nil {
			t.Fatal(err)
		}
		refused(t, Request{Runtime: NodeJS, Dir: out}, nil, "source", "leads out")
	}
}

func TestLargeFoldersAreRefusedWithTheirLargestFiles(t *testing.T) {
	t.Parallel()
	dir := write(t, map[string]string{"index.js": "1"})
	for _, name := range []string{"model-a.bin", "model-b.bin"} { // holes: no disk is filled
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(filepath.Join(dir, name), MaxUnpacked/2+1); err != nil {
			t.Fatal(err)
		}
	}
	if testing.Short() {
		t.Skip("copies 256 MiB of zeros; not with -short")
	}
	refused(t, Request{Runtime: NodeJS, Dir: dir}, nil, "source", "larger than 256 MiB; the largest are model-a.bin (128.0 MiB), model-b.bin (128.0 MiB), index.js")
}

func TestTooManyFilesAreRefused(t *testing.T) {
	t.Parallel()
	c := &tally{pack: &pack{job: &job{}}}
	for range MaxFiles {
		if err := c.count("a", 0); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.count("a", 0); err == nil || !strings.Contains(err.Error(), "more than 20000 files") {
		t.Errorf("one too many: %v", err)
	}
}

func TestTypeScriptHandlersAreBundled(t *testing.T) {
	t.Parallel()
	source := map[string]string{
		"src/app.ts":   `import { hi } from "./hi"; import { join } from "node:path"; export const handler = async (e: { n: string }): Promise<string> => join(hi, e.n);`,
		"src/hi.ts":    `export const hi: string = "hé";`,
		"data.json":    `{}`,
		"package.json": `{"type": "module"}`, "tsconfig.json": `{}`,
	}
	files, err := packed(t, Request{Runtime: NodeJS, Handler: "src/app.handler"}, source)
	if err != nil {
		t.Fatal(err)
	}
	if len(files) != 2 || files["data.json"] == nil || files["src/app.js"] == nil {
		t.Fatalf("the archive holds %v", files)
	}
	code := text(t, files["src/app.js"])
	if !strings.Contains(code, "hé") || !strings.Contains(code, `require("node:path")`) || strings.Contains(code, "casemate-build-") {
		t.Errorf("the bundle is %s", code)
	}
	source["src/app.ts"] = "export const handler = ("
	var failed *CompileError
	if _, err := packed(t, Request{Runtime: NodeJS, Handler: "src/app.handler"}, source); !errors.As(err, &failed) || failed.Found != 1 {
		t.Errorf("a syntax error gives %v", err)
	}
}

func TestPackagesNeedALockFile(t *testing.T) {
	t.Parallel()
	npm := write(t, map[string]string{"bin/npm": "#!/bin/sh\nexit 9\n"})
	req := Request{Runtime: NodeJS, Env: []string{"PATH=" + filepath.Join(npm, "bin")}}
	files := map[string]string{"index.js": "", "package.json": `{"dependencies": {"a": "1"}}`}
	refused(t, req, files, "source", "no package-lock.json")
	var failed *CompileError
	files["package-lock.json"] = `{}`
	if _, err := packed(t, req, files); !errors.As(err, &failed) || failed.ExitCode != 9 {
		t.Errorf("npm's failure gives %v", err)
	}
	var missing *ToolchainError
	req.Env = []string{"PATH="}
	if _, err := packed(t, req, files); !errors.As(err, &missing) || missing.Missing != "npm" {
		t.Errorf("without npm: %v", err)
	}
}

// What npm gets and what it leaves: the lock file's packages go along, notes and
// registries do not, and the developer's folder stays as it was.
func TestPackagesAreInstalledIntoTheArchive(t *testing.T) {
	t.Parallel()
	npm := write(t, map[string]string{"bin/npm": `#!/bin/sh
echo "$@" > /dev/null
[ "$1 $2 $3" = "ci --omit=dev --ignore-scripts" ] || exit 8
[ -z "$NPM_TOKEN" ] && [ -f package-lock.json ] && [ -f .npmrc ] && [ ! -d node_modules ] || exit 7
mkdir -p node_modules/a/bin node_modules/.bin node_modules/.cache
echo 1 > node_modules/a/index.js; echo 1 > node_modules/a/bin/cli.js; chmod 755 node_modules/a/bin/cli.js
ln -s ../a/bin/cli.js node_modules/.bin/a; echo 1 > node_modules/.package-lock.json; echo 1 > node_modules/.cache/x
`})
	dir := write(t, map[string]string{
		"index.js": "", "package.json": `{"dependencies": {"a": "1"}}`, "package-lock.json": "{}", ".npmrc": "registry=x", "node_modules/old/index.js": "",
	})
	files, err := packed(t, Request{Runtime: NodeJS, Dir: dir, Env: []string{"PATH=" + filepath.Join(npm, "bin") + ":/usr/bin:/bin", "NPM_TOKEN=x"}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, mode := range map[string]fs.FileMode{"node_modules/a/index.js": 0o644, "node_modules/a/bin/cli.js": 0o755, "node_modules/.bin/a": fs.ModeSymlink | 0o777} {
		if files[name] == nil || files[name].Mode() != mode {
			t.Errorf("%s: %v", name, files[name])
		}
	}
	if len(files) != 6 {
		t.Errorf("the archive holds %v", files)
	}
	if _, err := os.Stat(filepath.Join(dir, "node_modules", "a")); err == nil {
		t.Error("npm wrote into the developer's folder")
	}
}

func TestRequirementsAreBuiltPackagesOnly(t *testing.T) {
	t.Parallel()
	for _, line := range []string{
		"-e .", "--editable=.", "git+https://example.com/a.git", "a @ git+ssh://example.com/a", "./local", "../local", "/abs/a.whl", "a @ file:///x",
		"--no-binary :all:", "--no-binary=a", "--trusted-host example.com", "-r missing.txt", "-rmore.txt",
	} {
		refused(t, Request{Runtime: Python}, map[string]string{
			"lambda_function.py": "", "requirements.txt": "# fine\nflask==3.1.3 # web\n" + line + "\n", "more.txt": "-e .\n",
		}, "source", ".txt ")
	}
}

func TestRequirementsIncludeWhatLiesInTheFolder(t *testing.T) {
	t.Parallel()
	dir := write(t, map[string]string{"other.txt": "flask==3.1.3\n", "f/lambda_function.py": "", "f/requirements.txt": "-r ../other.txt\n"})
	refused(t, Request{Runtime: Python, Dir: filepath.Join(dir, "f")}, nil, "source", "does not lie in the folder: ../other.txt")
}

func TestPythonPackagesLieBesideTheFunction(t *testing.T) {
	t.Parallel()
	python := write(t, map[string]string{"bin/python3": `#!/bin/sh
[ "$3" = --version ] && exit 0
case "$*" in *"--only-binary=:all:"*"-r requirements.txt") ;; *) exit 8 ;; esac
while [ "$1" != --target ]; do shift; done
mkdir -p "$2/flask" "$2/bin" "$2/flask-3.dist-info" "$2/__pycache__"
echo 1 > "$2/flask/__init__.py"; echo '#!/here/python' > "$2/bin/flask"; echo x > "$2/flask-3.dist-info/RECORD"; echo y > "$2/flask-3.dist-info/METADATA"
`})
	req := Request{Runtime: Python, Env: []string{"PATH=" + filepath.Join(python, "bin") + ":/usr/bin:/bin"}}
	source := map[string]string{"lambda_function.py": "", "requirements.txt": "flask==3\n"}
	files, err := packed(t, req, source)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"lambda_function.py", "requirements.txt", "flask/__init__.py", "flask-3.dist-info/METADATA"} {
		if files[want] == nil {
			t.Errorf("%s is missing", want)
		}
	}
	if len(files) != 4 {
		t.Errorf("the archive holds %v", files)
	}
	source["flask/mine.py"] = ""
	refused(t, req, source, "source", "flask is in the folder")
}

func TestPrebuiltArchivesAreChecked(t *testing.T) {
	t.Parallel()
	build := func(code []byte) error {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "f.zip"), code, 0o600); err != nil {
			t.Fatal(err)
		}
		a, err := Build(t.Context(), Request{Name: "f", Dir: dir, Source: "f.zip", Runtime: Python, Prebuilt: true, CacheDir: t.TempDir()})
		if err == nil && !bytes.Equal(a.Bytes, code) {
			t.Error("the archive was changed")
		}
		return err
	}
	var good, empty bytes.Buffer
	w := zip.NewWriter(&good)
	if _, err := w.Create("lambda_function.py"); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(w.Close(), zip.NewWriter(&empty).Close()); err != nil {
		t.Fatal(err)
	}
	if err := build(good.Bytes()); err != nil {
		t.Error(err)
	}
	for name, code := range map[string][]byte{"no archive": []byte("x"), "an empty archive": empty.Bytes(), "half an archive": good.Bytes()[:good.Len()/2]} {
		var input *InputError
		if err := build(code); !errors.As(err, &input) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestGoMainIsFound(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		files map[string]string
		want  string
	}{
		{map[string]string{"a.go": "package main\n"}, "."},
		{map[string]string{"a.go": "package a\n", "cmd/main.go": "package main\n"}, "./cmd"},
		{map[string]string{"a.go": "package a\n", "cmd/serve/main.go": "package main\n"}, "./cmd/serve"},
		{map[string]string{"a.go": "package a\n", "cmd/b/main.go": "package main\n", "cmd/c/main.go": "package main\n"}, ""},
		{map[string]string{"a_test.go": "package main\n"}, ""},
	} {
		if got := goMain(write(t, c.files)); got != c.want {
			t.Errorf("%v: %q, want %q", c.files, got, c.want)
		}
	}
}

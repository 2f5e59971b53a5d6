package build

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	esbuild "github.com/evanw/esbuild/pkg/api"
)

// scriptRequest is for a folder with those files; no tool is on its PATH.
func scriptRequest(t *testing.T, runtime string, files map[string]string) (Request, *bytes.Buffer) {
	t.Helper()
	var out bytes.Buffer
	return Request{Name: "a", Dir: write(t, files), Runtime: runtime, Out: &out, Env: []string{"PATH="}}, &out
}

const handler = "export default { fetch: () => new Response('hi') }\n"

func TestScriptsAreBundledIntoOneModule(t *testing.T) {
	t.Parallel()
	req, out := scriptRequest(t, TypeScript, map[string]string{
		"src/index.ts": `import { greet, type Name } from "./greet";
import page from "./page.html";
import data from "../data.json";
import { used } from "lib";
import shim from "map";
interface Env { readonly A: string }
export default {
	async fetch(request: Request, env: Env): Promise<Response> {
		using _ = { [Symbol.dispose]() {} };
		return new Response(greet("é" as Name) + page + data.answer + used() + shim + process.env.NODE_ENV + (typeof global));
	},
};`,
		"src/greet.ts":                    "export type Name = string;\nexport const greet = (n: Name) => `hello ${n}`;\nexport const unused = 'shaken-off';\n",
		"src/page.html":                   "<p>page-text</p>",
		"data.json":                       `{"answer": 42}`,
		"node_modules/lib/package.json":   `{"name":"lib","exports":{".":{"types":"./none.d.ts","workerd":"./worker.js","node":"./node.js","default":"./default.js"}}}`,
		"node_modules/lib/worker.js":      "/*! licence of lib */ export const used = () => 'for-workers'; export const other = 'other-shaken-off';",
		"node_modules/lib/node.js":        "import 'node:fs'; export const used = () => 'for-node';",
		"node_modules/map/package.json":   `{"name":"map","main":"./main.js","browser":{"./server.js":"./web.js"}}`,
		"node_modules/map/main.js":        "module.exports = require('./server.js');",
		"node_modules/map/server.js":      "module.exports = require('fs').name;",
		"node_modules/map/web.js":         "module.exports = 'of-the-web';",
		"node_modules/lib/default.js":     "export const used = () => 'for-everybody';",
		"tsconfig.json":                   `{"compilerOptions": {"target": "es5", "sourceMap": true, "inlineSourceMap": true}}`,
		"node_modules/.package-lock.json": "ignored: there is no lock file beside package.json",
	})
	a, err := Build(t.Context(), req)
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	code := string(a.Bytes)
	for _, want := range []string{"page-text", "42", "for-workers", "of-the-web", `"production"`, "globalThis", "licence of lib", "é", "index_default as default"} {
		if !strings.Contains(code, want) {
			t.Errorf("the bundle lacks %q", want)
		}
	}
	for _, not := range []string{"shaken-off", "for-node", "for-everybody", "sourceMappingURL", "interface", ": Promise<", "using _", req.Dir, "import "} {
		if strings.Contains(code, not) {
			t.Errorf("the bundle holds %q", not)
		}
	}
	if a.Entry != EntryHandle {
		t.Errorf("entry %q", a.Entry)
	}
	if t.Failed() {
		t.Log(code)
	}
}

// Two folders, one bundle, also where one is reached by a link.
func TestBundlesTellNothingOfTheirFolder(t *testing.T) {
	t.Parallel()
	files := map[string]string{"src/index.js": "import './b.js';\n" + handler, "src/b.js": "console.log('b')"}
	var digests []string
	for _, linked := range []bool{false, true} {
		req, out := scriptRequest(t, JavaScript, files)
		if linked {
			link := filepath.Join(t.TempDir(), "link")
			if err := os.Symlink(req.Dir, link); err != nil {
				t.Skip("links cannot be made here")
			}
			req.Dir = link
		}
		a, err := Build(t.Context(), req)
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		digests = append(digests, a.Digest)
	}
	if digests[0] != digests[1] {
		t.Error("the same files gave two bundles")
	}
}

func TestBundlingErrorsNameTheirPlace(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		files map[string]string
		want  []string
		not   []string
	}{
		"a node: module": {
			map[string]string{"src/index.js": "\nimport { readFile } from \"node:fs/promises\";\n" + handler},
			[]string{"src/index.js:2:26: error: \"node:fs/promises\" is a module of Node.js", "native tier", "  2 | import { readFile } from \"node:fs/promises\";\n    |                          ^~~~~~~~~~~~~~~~~~\n"},
			[]string{"external", "Platform"},
		},
		"one without the prefix, in a package": {
			map[string]string{"src/index.js": "import 'lib';\n" + handler, "node_modules/lib/index.js": "const path = require('path');\n"},
			[]string{"node_modules/lib/index.js:1:22: error: \"path\" is a module of Node.js", "native tier"},
			[]string{"external", "Platform"},
		},
		"a package that is not there": {
			map[string]string{"src/index.js": "import x from '@scope/lib/deep/file.js';\n" + handler},
			[]string{`src/index.js:1:15: error: Could not resolve "@scope/lib/deep/file.js"`, "npm install @scope/lib`"},
			[]string{"external"},
		},
		"a file that is not there": {
			map[string]string{"src/index.js": "import x from './nowhere.js';\n" + handler},
			[]string{`src/index.js:1:15: error: Could not resolve "./nowhere.js"`},
			[]string{"npm install"},
		},
		"an address": {
			map[string]string{"src/index.js": "import x from 'https://esm.example/x';\n" + handler},
			[]string{"src/index.js:1:15: error: \"https://esm.example/x\" is an address", "install the package with npm"},
			nil,
		},
		"a module": {
			map[string]string{"src/index.js": "import x from './x.wasm';\n" + handler, "src/x.wasm": string(startOnly)},
			[]string{"src/index.js:1:15: error: src/x.wasm cannot be imported: JSON can, and text", "runtime: wasm"},
			nil,
		},
		"a picture": {
			map[string]string{"src/index.js": "import x from './x.png';\n" + handler, "src/x.png": "png"},
			[]string{"src/index.js:1:15: error: src/x.png cannot be imported"},
			[]string{"runtime: wasm"},
		},
		"a syntax error": {
			map[string]string{"src/index.js": "export default {\n\tfetch( {\n};\n"},
			[]string{"src/index.js:3:2: error: ", "  3 | };\n    |  ^"},
			nil,
		},
		"a broken JSON file": {
			map[string]string{"src/index.js": "import x from './x.json';\nconsole.log(x);" + handler, "src/x.json": "{\"a\": }"},
			[]string{"src/x.json:1:7: error: "},
			nil,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			req, out := scriptRequest(t, JavaScript, tt.files)
			_, err := Build(t.Context(), req)
			var refused *CompileError
			if !errors.As(err, &refused) || refused.Found == 0 || !strings.Contains(err.Error(), "building a: esbuild found ") {
				t.Fatalf("got %v", err)
			}
			for _, want := range tt.want {
				if !strings.Contains(out.String(), want) {
					t.Errorf("the output lacks %q", want)
				}
			}
			for _, not := range tt.not {
				if strings.Contains(out.String(), not) {
					t.Errorf("the output holds %q", not)
				}
			}
			if t.Failed() {
				t.Log(out)
			}
		})
	}
}

// A package may probe for Node.js where it can do without.
func TestProbingForNodeIsNoError(t *testing.T) {
	t.Parallel()
	req, out := scriptRequest(t, JavaScript, map[string]string{
		"src/index.js": "let fs; try { fs = require('fs') } catch { fs = null }\nexport default { fetch: () => new Response(String(fs)) }",
	})
	if _, err := Build(t.Context(), req); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

func TestWhatIsNoScriptFunctionIsNamed(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		runtime string
		files   map[string]string
		want    string
	}{
		"no file":           {JavaScript, map[string]string{"src/main.js": ""}, "has no src/index.js"},
		"the other one":     {TypeScript, map[string]string{"src/index.js": handler}, "has no src/index.ts"},
		"no default export": {JavaScript, map[string]string{"index.js": "export const fetch = () => new Response('x')"}, "index.js has no default export"},
		"nothing":           {TypeScript, map[string]string{"index.ts": ""}, "index.ts has no default export"},
		"a broken package.json": {
			JavaScript, map[string]string{"index.js": handler, "package.json": "{"}, "package.json cannot be read",
		},
	} {
		req, _ := scriptRequest(t, tt.runtime, tt.files)
		var bad *InputError
		if _, err := Build(t.Context(), req); !errors.As(err, &bad) || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want %q", name, err, tt.want)
		}
	}
	req, _ := scriptRequest(t, JavaScript, map[string]string{"index.js": handler})
	req.Entry = EntryCommand
	var bad *InputError
	if _, err := Build(t.Context(), req); !errors.As(err, &bad) || bad.Field != "entry" {
		t.Errorf("entry command: %v", err)
	}
}

func TestAPrebuiltScriptIsTakenAsItIs(t *testing.T) {
	t.Parallel()
	const code = "export default { fetch() { return new Response('ä') } }"
	for name, tt := range map[string]struct{ code, want string }{
		"text":          {code, ""},
		"empty":         {"", "is empty"},
		"not UTF-8":     {"\xff\xfe", "not text in UTF-8"},
		"a wasm module": {string(startOnly), "not text in UTF-8"},
		"UTF-16":        {"e\x00x\x00", "not text in UTF-8"},
	} {
		req, _ := scriptRequest(t, TypeScript, map[string]string{"out.js": tt.code})
		req.Source, req.Prebuilt = "out.js", true
		a, err := Build(t.Context(), req)
		var bad *InputError
		switch {
		case tt.want == "" && (err != nil || string(a.Bytes) != tt.code || a.Entry != EntryHandle):
			t.Errorf("%s: %v", name, err)
		case tt.want != "" && (!errors.As(err, &bad) || !strings.Contains(err.Error(), tt.want)):
			t.Errorf("%s: got %v, want %q", name, err, tt.want)
		}
	}
}

func TestABundleIsBounded(t *testing.T) {
	t.Parallel()
	j := &job{Request: Request{Runtime: JavaScript, Entry: EntryHandle}}
	code := bytes.Repeat([]byte(" "), MaxArtifact+1)
	var bad *InputError
	if err := checkScriptArtifact(j, code); !errors.As(err, &bad) || !strings.Contains(err.Error(), "larger than 64 MiB") {
		t.Errorf("got %v", err)
	}
	if err := checkScriptArtifact(j, code[1:]); err != nil {
		t.Error(err)
	}
}

func TestBundlingEndsWithItsContext(t *testing.T) {
	t.Parallel()
	gone := errors.New("gone")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(gone)
	req, _ := scriptRequest(t, JavaScript, map[string]string{"index.js": handler})
	if _, err := Build(ctx, req); !errors.Is(err, gone) {
		t.Errorf("got %v", err)
	}
}

// lockfile is npm's, with lib at one version.
func lockfile(version, integrity string) string {
	b, _ := json.Marshal(map[string]any{"lockfileVersion": 3, "packages": map[string]any{
		"":                      map[string]any{"dependencies": map[string]string{"lib": "^1.0.0"}},
		"node_modules/lib":      map[string]any{"version": version, "integrity": integrity},
		"node_modules/tool":     map[string]any{"version": "3.0.0", "dev": true},
		"node_modules/platform": map[string]any{"version": "3.0.0", "optional": true},
	}})
	return string(b)
}

const dependsOnLib = `{"dependencies": {"lib": "^1.0.0"}, "devDependencies": {"tool": "3.0.0"}}`

func TestPackagesAreThoseOfTheLockFile(t *testing.T) {
	t.Parallel()
	installed := func(more map[string]string) map[string]string {
		files := map[string]string{
			"src/index.js": "import 'lib';\n" + handler, "package.json": dependsOnLib, "package-lock.json": lockfile("1.2.3", "sha512-x"),
			"node_modules/lib/index.js": "console.log('lib')", "node_modules/.package-lock.json": lockfile("1.2.3", "sha512-x"),
		}
		for k, v := range more {
			files[k] = v
		}
		return files
	}
	for name, tt := range map[string]struct {
		files map[string]string
		want  string
	}{
		"as pinned":              {installed(nil), ""},
		"no note of npm's":       {installed(map[string]string{"node_modules/.package-lock.json": "{"}), ""},
		"without tools":          {installed(map[string]string{"node_modules/.package-lock.json": `{"packages":{"node_modules/lib":{"version":"1.2.3","integrity":"sha512-x"}}}`}), ""},
		"an older one":           {installed(map[string]string{"node_modules/.package-lock.json": lockfile("1.2.2", "sha512-x")}), "lib 1.2.2 is installed, and package-lock.json pins 1.2.3"},
		"other content":          {installed(map[string]string{"node_modules/.package-lock.json": lockfile("1.2.3", "sha512-y")}), "another content"},
		"less than pinned":       {installed(map[string]string{"node_modules/.package-lock.json": `{"packages":{}}`}), "pins lib, which is not installed"},
		"more than pinned":       {installed(map[string]string{"package-lock.json": `{"packages":{"node_modules/lib":{"version":"1.2.3"}}}`}), "package-lock.json does not pin it"},
		"a broken lock":          {installed(map[string]string{"package-lock.json": "{"}), "package-lock.json cannot be read"},
		"nothing and no lock":    {map[string]string{"src/index.js": handler, "package.json": dependsOnLib}, "run `npm install`"},
		"nothing, pnpm's lock":   {map[string]string{"src/index.js": handler, "package.json": dependsOnLib, "pnpm-lock.yaml": ""}, "run `pnpm install --frozen-lockfile`"},
		"nothing, yarn's lock":   {map[string]string{"src/index.js": handler, "package.json": dependsOnLib, "yarn.lock": ""}, "run `yarn install --immutable`"},
		"nothing, bun's lock":    {map[string]string{"src/index.js": handler, "package.json": dependsOnLib, "bun.lock": ""}, "run `bun install --frozen-lockfile`"},
		"only tools are missing": {map[string]string{"src/index.js": handler, "package.json": `{"devDependencies": {"tool": "1"}}`}, ""},
	} {
		req, out := scriptRequest(t, JavaScript, tt.files)
		_, err := Build(t.Context(), req)
		var bad *InputError
		switch {
		case tt.want == "" && err != nil:
			t.Errorf("%s: %v\n%s", name, err, out)
		case tt.want != "" && (!errors.As(err, &bad) || !strings.Contains(err.Error(), tt.want)):
			t.Errorf("%s: got %v, want %q", name, err, tt.want)
		}
	}
}

// Packages of a workspace lie above the function's folder.
func TestPackagesAreFoundAbove(t *testing.T) {
	t.Parallel()
	req, out := scriptRequest(t, JavaScript, map[string]string{
		"functions/a/src/index.js": "import 'lib';\n" + handler, "functions/a/package.json": dependsOnLib,
		"node_modules/lib/index.js": "console.log('from-above')",
	})
	req.Source = "functions/a"
	a, err := Build(t.Context(), req)
	if err != nil || !bytes.Contains(a.Bytes, []byte("from-above")) {
		t.Errorf("%v\n%s", err, out)
	}
}

func TestMissingPackagesAreFetchedByTheLockWithoutScripts(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("sh"); err != nil {
		t.Skip("the fake npm is a shell script")
	}
	req, out := scriptRequest(t, JavaScript, map[string]string{
		"src/index.js": "import 'lib';\n" + handler, "package.json": dependsOnLib, "package-lock.json": lockfile("1.2.3", ""),
		"bin/npm": "#!/bin/sh\necho npm \"$@\"\n/usr/bin/env\n/bin/mkdir -p node_modules/lib && echo 'console.log(\"fetched\")' > node_modules/lib/index.js\n",
	})
	var missing *ToolchainError
	if err := Check(t.Context(), req); !errors.As(err, &missing) || missing.Missing != "npm" {
		t.Errorf("without npm: %v", err)
	}
	if _, err := Build(t.Context(), req); !errors.As(err, &missing) || !strings.Contains(err.Error(), "npm ci") {
		t.Errorf("without npm: %v", err)
	}
	req.Env = []string{"PATH=" + filepath.Join(req.Dir, "bin"), "NPM_TOKEN=planted", "NODE_OPTIONS=planted"}
	if err := Check(t.Context(), req); err != nil {
		t.Error(err)
	}
	a, err := Build(t.Context(), req)
	if err != nil || !bytes.Contains(a.Bytes, []byte("fetched")) {
		t.Fatalf("%v\n%s", err, out)
	}
	if !strings.Contains(out.String(), "npm ci --omit=dev --ignore-scripts --no-audit --no-fund\n") || strings.Contains(out.String(), "planted") {
		t.Errorf("npm was run so:\n%s", out)
	}
	out.Reset()
	if _, err := Build(t.Context(), req); err != nil || strings.Contains(out.String(), "npm") {
		t.Errorf("packages that are there were fetched again: %v\n%s", err, out)
	}
}

// A message about a line of a megabyte shows the part that matters.
func TestLongLinesAreCutAroundThePlace(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	line := strings.Repeat("é", 100_000)
	at := strings.Index(line, "é") + 60_001*2 + 1 // within a character: cuts must not be
	writeMessage(&out, "error", esbuild.Message{Text: "x", Location: &esbuild.Location{File: "a.js", Line: 1, Column: at - 1, Length: 4, LineText: line}})
	if out.Len() > 1000 || strings.Contains(out.String(), "\uFFFD") || !strings.Contains(out.String(), "^~\n") {
		t.Errorf("%d bytes: %.300s", out.Len(), out.String())
	}
}

func FuzzWriteMessage(f *testing.F) {
	f.Add("line of text", 3, 4)
	f.Add("\t\xff\xfe", 1, 100)
	f.Add(strings.Repeat("ä", 300), 299, 7)
	f.Fuzz(func(t *testing.T, line string, column, length int) {
		if column < 0 || length < 0 || column > len(line) || length > len(line) { // what no bundler says
			return
		}
		var out bytes.Buffer
		writeMessage(&out, "error", esbuild.Message{Location: &esbuild.Location{File: "f", Line: 1, Column: column, Length: length, LineText: line}})
		if out.Len() > 4*maxSnippet*4+100 {
			t.Errorf("%d bytes for one line", out.Len())
		}
	})
}

// Package architecture holds the house to its plan: which room may know which,
// that every room says what it is, and that the list of foreign modules in the
// binary changes only on purpose. It looks at the import graph and runs nothing
// of the project.
package architecture

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/casemate-dev/casemate"

var update = flag.Bool("update", false, "rewrite deps.txt")

// A rule forbids what lies at or below From to depend on what lies at or below
// To, directly or through others, but for the packages at or below Except.
// Direct rules look at import statements alone.
type rule struct {
	From   []string
	To     []string
	Except []string // members of From to which it does not apply
	Direct bool
	Reason string
}

var (
	leaves     = []string{"internal/function", "internal/state", "internal/event", "internal/durable", "internal/jsontext"}
	mechanisms = []string{
		"internal/sandbox", "internal/bus", "internal/vault", "internal/registry", "internal/audit", "internal/identity",
		"internal/intake", "internal/delivery", "internal/connection", "internal/outcome", "internal/objects", "internal/keyvalue",
	}
	doors = []string{"internal/gateway", "internal/control"}
	// The kinds of sources, and what they share, beside their contract (internal/source).
	kinds = []string{
		"internal/source/bucket", "internal/source/connector", "internal/source/database", "internal/source/folder",
		"internal/source/keyvalue", "internal/source/outbox", "internal/source/postgres", "internal/source/queue",
		"internal/source/schedule", "internal/source/seen", "internal/source/servertest", "internal/source/webhook",
	}
)

func rules() []rule {
	rs := []rule{
		{
			From: []string{"internal/cli", "cmd/casemate"}, To: []string{"internal"},
			Except: []string{"cmd/casemate"}, Direct: true,
			Reason: "the command line is a client: it knows the public contract (api) and nothing of the node's inside",
		},
		{
			From: []string{"api"}, To: []string{"internal"},
			Reason: "the public contract must be usable by anybody, and anybody cannot import internal",
		},
		{
			From: leaves, To: []string{"."}, Direct: true,
			Except: []string{"internal/event/lambdashape"}, Reason: "leaves import the standard library alone, so that everybody may import them",
		},
		{
			From: []string{"internal/event/lambdashape"}, To: slices.Concat(mechanisms, doors, []string{"internal/invoke", "internal/source", "internal/state", "api"}), Direct: true,
			Reason: "the form that AWS gives an event needs the words of an event and of a function, and nobody else's",
		},
		{
			From: doors, To: []string{"internal/sandbox", "internal/vault"}, Direct: true,
			Reason: "a door reaches guest code through invoke, and keys through whoever wires it",
		},
		{
			From: append(slices.Clone(mechanisms), "internal/invoke"), To: append(slices.Clone(doors), "internal/node", "internal/cli"),
			Reason: "imports point inwards: doors, deciders, mechanisms, leaves",
		},
		{
			From: mechanisms, To: []string{"internal/invoke"},
			Reason: "imports point inwards: a mechanism does not know who decides",
		},
		{
			From: append(append(slices.Clone(mechanisms), doors...), append(slices.Clone(leaves), "internal/invoke", "internal/cli", "api")...),
			To:   []string{"internal/node"}, Direct: true,
			Reason: "node is the composition root: it names everybody and nobody names it but cmd",
		},
		{
			From: []string{"."}, Except: []string{"internal/bus", "internal/source/queue/nats", "internal/source/servertest"}, Direct: true,
			To:     []string{"github.com/nats-io"},
			Reason: "NATS is how the bus works, and a far side like others; the rest of the house does not rely on it",
		},
		{
			From: []string{"internal/source"}, To: slices.Concat(mechanisms, doors, []string{"internal/invoke", "internal/node", "internal/cli"}), Direct: true,
			Reason: "a source knows its contract and leaves: what it needs of the node is handed in with its trigger",
		},
		{
			From: slices.Concat(mechanisms, doors, []string{"internal/invoke"}), To: kinds, Direct: true,
			Reason: "which kinds of sources there are is for node to say; others know the contract at the most",
		},
		{
			From: mechanisms, Except: []string{"internal/intake"}, To: []string{"internal/source"}, Direct: true,
			Reason: "the contract of the sources is for them and for who takes their events in",
		},
		{
			From: []string{"internal/gateway", "internal/invoke"}, Direct: true,
			To:     []string{"internal/intake", "internal/delivery", "internal/connection", "internal/outcome", "internal/objects", "internal/source"},
			Reason: "who takes requests in, and who runs functions, knows an event when it sees one and not where it goes",
		},
		{
			From: []string{"internal", "api", "cmd"}, Except: []string{"internal/source"}, Direct: true,
			To: []string{
				"github.com/rabbitmq", "github.com/twmb/franz-go", "github.com/eclipse", "github.com/jackc/pgx",
				"github.com/go-sql-driver/mysql", "github.com/minio/minio-go", "github.com/netresearch/go-cron",
			},
			Reason: "clients of far sides belong to the sources",
		},
		{
			From: []string{"internal", "api", "cmd"}, Except: []string{"internal/event/filter"}, Direct: true,
			To:     []string{"github.com/cloudevents", "github.com/antlr"},
			Reason: "the language of filters is one package's affair; the envelope is our own",
		},
		{
			From: []string{"."}, Except: []string{"internal/sandbox/wasm", "engine/js/enginetest"}, Direct: true,
			To:     []string{"github.com/tetratelabs/wazero"},
			Reason: "the engine is the wasm tier's own affair, and it may run only inside a sandbox process",
		},
		{
			From: []string{"internal", "api"}, Except: []string{
				"internal/sandbox/process", "internal/sandbox/sandboxtest", "internal/cli", "internal/source/servertest",
				"internal/sandbox/box", "internal/sandbox/native/runtimes", "internal/sandbox/native/gvisor", "internal/sandbox/native/unsandboxed", "internal/sandbox/native/nativetest",
			}, Direct: true,
			To:     []string{"os/exec"},
			Reason: "only the sandbox starts processes on a node; compilers run on the client",
		},
		{
			From: []string{"."}, Except: []string{"internal/cli"}, Direct: true,
			To:     []string{"github.com/evanw/esbuild"},
			Reason: "the bundler parses what developers write and belongs to the client",
		},
		{
			From: []string{"."}, Except: []string{"internal/sandbox/wasm", "internal/sandbox/process"}, Direct: true,
			To: []string{
				"internal/sandbox/wasm/rewrite", "internal/sandbox/wasm/memory", "internal/sandbox/wasm/wasi",
				"internal/sandbox/wasm/native", "internal/sandbox/wasm/goseed",
			},
			Reason: "the parts of the engine are the engine's; the process opens the page map for it",
		},
	}
	for _, m := range append(slices.Clone(mechanisms), doors...) {
		peers := mechanisms
		if slices.Contains(doors, m) {
			peers = doors
		}
		var others []string
		for _, o := range peers {
			if o != m {
				others = append(others, o)
			}
		}
		rs = append(rs, rule{
			From: []string{m}, To: others, Direct: true,
			Reason: "neighbours do not know each other: each declares the small interface it needs and node wires them",
		})
	}
	return rs
}

// pkg is what we read of `go list -json`.
type pkg struct {
	ImportPath string
	Dir        string
	Imports    []string
	Deps       []string
	Standard   bool
	Module     *struct{ Path, Version string }
}

func list(t testing.TB, args ...string) map[string]*pkg {
	t.Helper()
	cmd := exec.Command("go", append([]string{"list", "-deps", "-json=ImportPath,Dir,Imports,Deps,Standard,Module"}, args...)...)
	cmd.Dir = root(t)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, stderr.Bytes())
	}
	graph := map[string]*pkg{}
	for dec := json.NewDecoder(bytes.NewReader(out)); dec.More(); {
		p := new(pkg)
		if err := dec.Decode(p); err != nil {
			t.Fatal(err)
		}
		graph[p.ImportPath] = p
	}
	return graph
}

func root(t testing.TB) string {
	t.Helper()
	dir, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// under reports whether an import path lies at or below one of the places.
// Places of ours are relative to the module; "." is all of it.
func under(path string, places []string) bool {
	for _, p := range places {
		full := p
		switch first, _, _ := strings.Cut(p, "/"); {
		case p == ".":
			full = module
		case p == "os/exec":
		case !strings.Contains(first, "."):
			full = module + "/" + p
		}
		if path == full || strings.HasPrefix(path, full+"/") {
			return true
		}
	}
	return false
}

// violations checks one graph. A package may always know what lies in its own
// room: internal/cli/build belongs to internal/cli.
func violations(graph map[string]*pkg, rs []rule) []string {
	var found []string
	for _, r := range rs {
		for _, path := range slices.Sorted(maps.Keys(graph)) {
			p := graph[path]
			if !under(path, r.From) || under(path, r.Except) || p.Standard {
				continue
			}
			deps := p.Deps
			if r.Direct {
				deps = p.Imports
			}
			for _, d := range deps {
				if under(d, r.To) && room(d) != room(path) {
					found = append(found, fmt.Sprintf("%s imports %s: %s", path, d, r.Reason))
				}
			}
		}
	}
	return found
}

// room is the folder directly below internal, api or cmd.
func room(path string) string {
	rest, ours := strings.CutPrefix(path, module+"/")
	if !ours {
		return path
	}
	parts := strings.SplitN(rest, "/", 3)
	if parts[0] == "internal" && len(parts) > 1 {
		return parts[0] + "/" + parts[1]
	}
	return parts[0]
}

func TestImportsPointOneWay(t *testing.T) {
	t.Parallel()
	graph := list(t, "./...")
	for _, v := range violations(graph, rules()) {
		t.Error(v)
	}
	for _, r := range rules() {
		for _, place := range slices.Concat(r.From, r.To, r.Except) {
			if strings.Contains(strings.SplitN(place, "/", 2)[0], ".") || place == "os/exec" {
				continue
			}
			there := false
			for path := range graph {
				there = there || under(path, []string{place})
			}
			if !there {
				t.Errorf("a rule names %s, and there is no such package any more", place)
			}
		}
	}
}

// TestForbiddenImportFails breaks the plan on purpose, in an overlay that no
// file on disk knows of, and looks whether the rules above notice.
func TestForbiddenImportFails(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct{ room, imports string }{
		{"internal/gateway", module + "/internal/sandbox"},
		{"internal/gateway", module + "/internal/control"},
		{"internal/registry", module + "/internal/bus"},
		{"internal/audit", module + "/internal/invoke"},
		{"internal/cli", module + "/internal/function"},
		{"internal/function", module + "/internal/state"},
		{"internal/registry", "github.com/nats-io/nats.go"},
		{"internal/invoke", "github.com/tetratelabs/wazero"},
		{"internal/control", "os/exec"},
		{"internal/gateway", module + "/internal/intake"},
		{"internal/gateway", module + "/internal/outcome"},
		{"internal/intake", module + "/internal/bus"},
		{"internal/intake", module + "/internal/source/webhook"},
		{"internal/delivery", module + "/internal/invoke"},
		{"internal/delivery", module + "/internal/source"},
		{"internal/outcome", module + "/internal/delivery"},
		{"internal/objects", module + "/internal/registry"},
		{"internal/source/webhook", module + "/internal/intake"},
		{"internal/source/queue/kafka", "github.com/nats-io/nats.go"},
		{"internal/event/lambdashape", module + "/internal/source"},
		{"internal/event/cloudevent", module + "/internal/function"},
		{"internal/connection", "github.com/jackc/pgx/v5"},
		{"internal/intake", "github.com/cloudevents/sdk-go/v2/event"},
		{"api", module + "/internal/function"},
	} {
		t.Run(tc.room+" imports "+tc.imports, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			src := filepath.Join(dir, "forbidden.go")
			name := filepath.Base(tc.room)
			write(t, src, fmt.Sprintf("package %s\n\nimport _ %q\n", name, tc.imports))
			overlay := filepath.Join(dir, "overlay.json")
			b, err := json.Marshal(map[string]any{"Replace": map[string]string{filepath.Join(root(t), tc.room, "forbidden.go"): src}})
			if err != nil {
				t.Fatal(err)
			}
			write(t, overlay, string(b))
			graph := list(t, "-e", "-overlay", overlay, "./"+tc.room)
			want := module + "/" + tc.room + " imports " + tc.imports
			for _, v := range violations(graph, rules()) {
				if strings.HasPrefix(v, want+":") {
					return
				}
			}
			t.Errorf("nobody noticed that %s", want)
		})
	}
}

// TestEveryRoomSaysWhatItIs wants one package comment in every package, in one
// file, of more than a line.
func TestEveryRoomSaysWhatItIs(t *testing.T) {
	t.Parallel()
	docs := map[string][]string{}
	err := filepath.WalkDir(root(t), func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			switch d.Name() {
			case ".git", "node_modules", "testdata", "tools", "bin", "templates", ".cache", ".run":
				return fs.SkipDir
			}
			if _, err := os.Stat(filepath.Join(path, "go.mod")); err == nil && path != root(t) {
				return fs.SkipDir // a module of its own, such as an example
			}
			return nil
		}
		if !strings.HasSuffix(path, ".go") {
			return nil
		}
		f, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ParseComments|parser.PackageClauseOnly)
		if err != nil {
			return err
		}
		dir := filepath.Dir(path)
		if strings.HasSuffix(f.Name.Name, "_test") || dir == root(t) {
			return nil
		}
		if _, seen := docs[dir]; !seen {
			docs[dir] = nil
		}
		if f.Doc != nil && len(strings.Fields(f.Doc.Text())) > 1 && !strings.HasPrefix(f.Doc.Text(), "//go:build") {
			docs[dir] = append(docs[dir], f.Doc.Text())
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range slices.Sorted(maps.Keys(docs)) {
		rel, _ := filepath.Rel(root(t), dir)
		switch d := docs[dir]; {
		case len(d) == 0:
			t.Errorf("%s: no package comment: say what it is, who may import it, what it promises", rel)
		case len(d) > 1:
			t.Errorf("%s: %d package comments; keep one, in one file", rel, len(d))
		case len(strings.Fields(d[0])) < 12:
			t.Errorf("%s: the package comment says next to nothing: %q", rel, d[0])
		}
	}
}

// TestForeignModulesChangeOnPurpose compares the modules linked into the binary
// with deps.txt; run it with -update to accept a change, and say in RATIONALE.md
// why a new one is there.
func TestForeignModulesChangeOnPurpose(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for _, p := range list(t, "./cmd/casemate") {
		if p.Module != nil && p.Module.Path != module {
			seen[p.Module.Path+" "+p.Module.Version] = true
		}
	}
	got := strings.Join(slices.Sorted(maps.Keys(seen)), "\n") + "\n"
	file := filepath.Join(root(t), "deps.txt")
	if *update {
		write(t, file, got)
		return
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("the modules in the binary are not those of deps.txt; `make generate` accepts them.\nnow:\n%s", got)
	}
}

func write(t testing.TB, file, content string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

// TestClaimsNameTestsThatExist reads the table of docs/evidence.md.
func TestClaimsNameTestsThatExist(t *testing.T) {
	t.Parallel()
	doc, err := os.ReadFile(filepath.Join(root(t), "docs", "evidence.md"))
	if err != nil {
		t.Fatal(err)
	}
	names := regexp.MustCompile(`\bTest[A-Z]\w+`).FindAllString(string(doc), -1)
	if len(names) == 0 {
		t.Fatal("docs/evidence.md names no test")
	}
	var tests bytes.Buffer
	for _, below := range []string{"test", "internal", "engine"} {
		err = filepath.WalkDir(filepath.Join(root(t), below), func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || !strings.HasSuffix(path, "_test.go") {
				return err
			}
			b, err := os.ReadFile(path)
			tests.Write(b)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range names {
		if !bytes.Contains(tests.Bytes(), []byte("func "+name+"(")) {
			t.Errorf("docs/evidence.md relies on %s, and there is no such test", name)
		}
	}
}

// TestLinksLeadSomewhere follows the links between our own pages.
func TestLinksLeadSomewhere(t *testing.T) {
	t.Parallel()
	link := regexp.MustCompile(`\]\(([^)#\s]+)[^)]*\)`)
	seen := 0
	err := filepath.WalkDir(root(t), func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if n := d.Name(); n == "node_modules" || n == "bin" || n == "testdata" || n == "target" || strings.HasPrefix(n, ".") && path != root(t) {
				return filepath.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(path, ".md") {
			return nil
		}
		page, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for _, m := range link.FindAllStringSubmatch(string(page), -1) {
			if strings.Contains(m[1], "://") || strings.HasPrefix(m[1], "mailto:") {
				continue
			}
			seen++
			if _, err := os.Stat(filepath.Join(filepath.Dir(path), m[1])); err != nil {
				t.Errorf("%s links to %s: %v", path, m[1], err)
			}
		}
		return nil
	})
	if err != nil || seen < 10 {
		t.Fatalf("%d links: %v", seen, err)
	}
}

package guests

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/casemate-dev/casemate/api/manifest"
	"github.com/casemate-dev/casemate/internal/cli/build"
	"github.com/casemate-dev/casemate/internal/cli/scaffold"
)

// template writes the files of a new function and gives the request to build it.
func template(t *testing.T, runtime, entry string) build.Request {
	t.Helper()
	dir := t.TempDir()
	if _, err := scaffold.Write(dir, "salute", runtime); err != nil {
		t.Fatal(err)
	}
	req := build.Request{Name: "salute", Dir: dir, Source: ".", Runtime: runtime, Entry: entry}
	if manifest.Native(runtime) {
		m, err := manifest.Load(filepath.Join(dir, manifest.FileName))
		if err != nil {
			t.Fatal(err)
		}
		req.Handler, req.Command = m.Functions[0].Config.Handler, m.Functions[0].Config.Command
	}
	return req
}

// moduleRuntimes are the runtimes whose templates become modules, or run on one. The
// others are called in test/lambdas, by a node.
func moduleRuntimes() []string {
	return slices.DeleteFunc(scaffold.Runtimes(), manifest.Native)
}

// withCompiler spares an AssemblyScript function the fetching of its compiler, by
// a link to one that is fetched once for all tests.
func withCompiler(t *testing.T, req build.Request) build.Request {
	t.Helper()
	notShort(t)
	if req.Runtime != build.AssemblyScript {
		return req
	}
	modules, err := fetchedCompiler()
	if err != nil {
		t.Log(err) // the function's own build fetches it then, or says what is missing
		return req
	}
	if err := os.Symlink(modules, filepath.Join(req.Dir, "node_modules")); err != nil {
		t.Fatal(err)
	}
	return req
}

// greeting is a request that a template answers with words.
func greeting(runtime string) (Request, string) {
	r := Request{Name: "greeting", Method: "POST", Path: "/salute", Body: []byte("Ada")}
	if runtime == build.Go || script(runtime) {
		r.Body = []byte(`{"name":"Ada"}`)
	}
	return r, "Hello, Ada!"
}

func TestTemplatesBuildAndAnswer(t *testing.T) {
	t.Parallel()
	for _, runtime := range moduleRuntimes() {
		t.Run(runtime, func(t *testing.T) {
			t.Parallel()
			req := template(t, runtime, "")
			m, err := manifest.Load(filepath.Join(req.Dir, "casemate.yaml"))
			if err != nil {
				t.Fatalf("the template's manifest: %v", err)
			}
			if f := m.Functions[0]; f.Name != "salute" || f.Config.Runtime != runtime || f.Config.HTTP[0].Public {
				t.Errorf("the manifest says %+v", f)
			}
			req.Entry = m.Functions[0].Config.Entry
			a := mustBuild(t, req)
			g := newAnswerer(t, runtime, a, nil)
			checkGreeting(t, g, runtime)
			checkBodies(t, g, runtime)
			if module, ok := g.(*guest); ok {
				checkBrokenRequests(t, module)
			}
			t.Logf("%d KiB, built in %v", len(a.Bytes)>>10, a.Duration.Round(time.Millisecond))
			if hasOwnTests(req.Dir, runtime) {
				ownTests(t, req.Dir, runtime)
			}
		})
	}
}

// The same source is also a command where the language lets it be both.
func TestTemplatesAnswerAsACommand(t *testing.T) {
	t.Parallel()
	for _, runtime := range []string{build.Go, build.C} {
		t.Run(runtime, func(t *testing.T) {
			t.Parallel()
			a := mustBuild(t, template(t, runtime, build.EntryCommand))
			g := newGuest(t, a.Bytes, a.Entry)
			checkGreeting(t, g, runtime)
			checkBrokenRequests(t, g)
		})
	}
}

func checkGreeting(t *testing.T, g answerer, runtime string) {
	t.Helper()
	r, want := greeting(runtime)
	answer, _ := g.ask(t, r)
	if err := (Want{Status: 200, Contains: []string{want}}).Check(answer); err != nil {
		t.Error(err)
	}
}

// A body longer than the glue's first buffer arrives whole.
func checkBodies(t *testing.T, g answerer, runtime string) {
	t.Helper()
	r, want := greeting(runtime)
	switch runtime {
	case build.Go, build.JavaScript, build.TypeScript:
		r.Body = append(r.Body[:len(r.Body):len(r.Body)], bytes.Repeat([]byte(" "), 3<<20)...)
	case build.C:
		r.Body = append([]byte("Ada\n"), bytes.Repeat([]byte("x"), 3<<20)...)
	default:
		r.Body = append([]byte("Ada"), bytes.Repeat([]byte(" "), 3<<20)...)
	}
	answer, _ := g.ask(t, r)
	if err := (Want{Status: 200, Contains: []string{want}}).Check(answer); err != nil {
		t.Errorf("3 MiB: %v", err)
	}
}

// What is no request ends in a failure with a reason in the log, not in an answer.
func checkBrokenRequests(t *testing.T, g *guest) {
	t.Helper()
	for _, input := range []string{"", "no line end", "{\n", "\n", `{"headers":{"a":["x",}}` + "\n", `{"id":"\u12"}` + "\n"} {
		out, log, _, err := g.call(t.Context(), []byte(input))
		if err == nil {
			t.Errorf("%q: the guest ended well", input)
		}
		if len(out) > 0 {
			t.Errorf("%q: answered %q", input, out)
		}
		if !strings.Contains(log, "error: reading the request") {
			t.Errorf("%q: the log says %q", input, log)
		}
	}
}

// Two folders, one module: neither where the source lies nor when it was built
// goes into it.
func TestBuildsAreReproducible(t *testing.T) {
	t.Parallel()
	for _, runtime := range scaffold.Runtimes() {
		t.Run(runtime, func(t *testing.T) {
			t.Parallel()
			first := mustBuild(t, withCompiler(t, template(t, runtime, "")))
			second := mustBuild(t, withCompiler(t, template(t, runtime, "")))
			if first.Digest != second.Digest {
				t.Errorf("%s in one folder, %s in another", first.Digest, second.Digest)
			}
		})
	}
}

// A value that a glue decodes and another encodes comes through unharmed.
func TestGlueKeepsText(t *testing.T) {
	t.Parallel()
	const text = "é \"q\" \\ / \t 😀 �"
	echo := map[string]map[string]string{
		build.Go: {"main.go": `package main
import "context"
func main() { Serve(func(_ context.Context, r *Request) (*Response, error) {
	return JSON(200, []string{r.Header("X-Text"), r.Params["part"], r.Method, r.Path, r.Query, r.Caller}) }) }`},
		build.Rust: {"src/main.rs": `mod casemate;
use casemate::{json::quote, Request, Response};
fn main() { casemate::serve(|r: &Request| -> Result<Response, String> {
	let all = [r.header("X-Text"), r.params["part"].as_str(), &r.method, &r.path, &r.query, &r.caller];
	let all: Vec<String> = all.iter().map(|s| quote(s)).collect();
	Ok(Response::text(200, format!("[{}]", all.join(",")))) }) }`},
		build.AssemblyScript: {"assembly/index.ts": `import { Request, Response, quote, serve } from "./casemate";
export function handle(): void { serve((r: Request): Response => {
	const all = [r.header("X-Text"), r.params.get("part"), r.method, r.path, r.query, r.caller];
	return Response.json(200, "[" + all.map<string>((s: string): string => quote(s)).join(",") + "]"); }); }`},
		build.C: {"function.c": `#include "casemate.h"
#include <stdio.h>
#include <string.h>
static char out[4096];
static size_t used;
static void put(const char *s) {
	out[used] = used == 0 ? '[' : ',';
	used++;
	out[used++] = '"';
	for (; *s; s++) {
		if (*s == '"' || *s == '\\') { out[used++] = '\\'; }
		if ((unsigned char)*s < 32) { used += (size_t)sprintf(out + used, "\\u%04x", *s); continue; }
		out[used++] = *s;
	}
	out[used++] = '"';
}
int casemate_handle(const casemate_request *r) {
	put(casemate_header("x-text")); put(casemate_param("part"));
	put(r->method); put(r->path); put(r->query); put(r->caller);
	out[used++] = ']';
	return casemate_answer(200, "application/json", out, used);
}`},
	}
	r := Request{Name: "echo", Method: "PUT", Path: "/ä/b", Query: "a=%20&b", Headers: map[string]string{"X-Text": text}}
	want := []string{text, "valué \"quoted\"\n", "PUT", "/ä/b", "a=%20&b", "key:test"}
	for runtime := range echo {
		t.Run(runtime, func(t *testing.T) {
			t.Parallel()
			entry := build.EntryHandle
			if runtime == build.Rust {
				entry = build.EntryCommand
			}
			req := withCompiler(t, template(t, runtime, entry))
			for name, source := range echo[runtime] {
				if err := os.WriteFile(filepath.Join(req.Dir, name), []byte(source), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			a := mustBuild(t, req)
			g := newGuest(t, a.Bytes, a.Entry)
			answer, _ := g.ask(t, r)
			var got []string
			if err := json.Unmarshal(answer.Body, &got); err != nil {
				t.Fatalf("%v: %q", err, answer.Body)
			}
			for i := range want {
				if i >= len(got) || got[i] != want[i] {
					t.Errorf("got %q, want %q", got, want)
					break
				}
			}
			// The same text, as \u escapes with a surrogate pair, and half of one.
			const escaped = `{"method":"M","path":"\/","params":{"part":""},"headers":{"x-text":["\u00e9\ud83d\ude00\ud83d!","second"]}}` + "\n"
			out, log, _, err := g.call(t.Context(), []byte(escaped))
			if err != nil {
				t.Fatalf("%v: %s", err, log)
			}
			_, body, _ := bytes.Cut(out, []byte("\n"))
			got = nil
			if err := json.Unmarshal(body, &got); err != nil || got[0] != "é😀\ufffd!" || got[3] != "/" {
				t.Errorf("got %q, %v", body, err)
			}
		})
	}
}

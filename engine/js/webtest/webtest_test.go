// Package webtest judges the engine's web platform from outside: the same cases
// run in our engine and in Node.js and must give the same, and the standards' own
// tables of URLs and domain names are worked through. It has tests only.
package webtest_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/casemate-dev/casemate/engine/js/enginetest"
	"github.com/casemate-dev/casemate/internal/jsengine"
)

const (
	// leastCases is how many cases there are at least, so that none get lost unseen.
	leastCases = 1100
	// pages bounds an instance's memory: 256 MiB.
	pages = 256 << 20 >> 16
	// mark begins a line of the log that names the case whose lines follow.
	mark = "\x01"
)

// outcome is what the cases gave: a value as JSON, or lines of log as text.
type outcome map[string]string

func TestLikeNode(t *testing.T) {
	node, err := exec.LookPath("node")
	if err != nil {
		t.Skip("SKIPPED, AND NOTHING ELSE CHECKS THIS: node is not installed, so our web platform was compared with nothing")
	}
	module := caseModule(t)
	want := inNode(t, node, module)
	got := inEngine(t, module)
	if len(want) < leastCases {
		t.Errorf("there are %d cases, fewer than %d", len(want), leastCases)
	}
	var accepted map[string]string
	data, err := os.ReadFile("accepted.json")
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(data, &accepted); err != nil {
		t.Fatalf("accepted.json: %v", err)
	}
	for _, name := range slices.Sorted(maps.Keys(want)) {
		ours, ran := got[name]
		reason, listed := accepted[name]
		switch {
		case !ran:
			t.Errorf("%s: did not run in our engine", name)
		case ours != want[name] && !listed:
			t.Errorf("%s:\n  Node.js %s\n  ours    %s", name, want[name], ours)
		case ours == want[name] && listed:
			t.Errorf("%s: accepted.json says it differs (%s), but it does not: take it out", name, reason)
		case listed && reason == "":
			t.Errorf("%s: accepted.json gives no reason", name)
		}
	}
	for name := range accepted {
		if _, ok := want[name]; !ok {
			t.Errorf("accepted.json lists %q, which is no case", name)
		}
	}
}

// caseModule puts the cases of all files into one ES module. Each file is a block,
// so that names in it stay its own.
func caseModule(t *testing.T) string {
	t.Helper()
	files, err := filepath.Glob("cases/*.js") // sorted
	if err != nil || len(files) == 0 {
		t.Fatalf("no cases: %v", err)
	}
	var b strings.Builder
	b.WriteString(text(t, "frame-head.js"))
	for _, f := range files {
		b.WriteString("\n{\n" + text(t, f) + "\n}\n")
	}
	b.WriteString(text(t, "frame-tail.js"))
	return b.String()
}

func text(t *testing.T, file string) string {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func inNode(t *testing.T, node, module string) outcome {
	t.Helper()
	file := filepath.Join(t.TempDir(), "cases.mjs")
	if err := os.WriteFile(file, []byte(module), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), node, "--no-warnings", "node.mjs", file)
	var out, log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &log
	if err := cmd.Run(); err != nil {
		t.Fatalf("node: %v\n%s", err, log.Bytes())
	}
	return parse(t, "Node.js", out.Bytes(), log.String())
}

func inEngine(t *testing.T, module string) outcome {
	t.Helper()
	a := serve(t, module, nil)
	return parse(t, "our engine", a.Body, a.Log)
}

// serve prepares a module in the engine and has it answer one request.
func serve(t *testing.T, module string, body []byte) *enginetest.Answer {
	t.Helper()
	a, err := prepared(t, module).Handle(context.Background(), enginetest.Head{Method: "POST"}, body)
	var failure *enginetest.Failure
	if errors.As(err, &failure) {
		t.Fatalf("the handler failed: %s", failure.Log)
	}
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func prepared(t *testing.T, module string) *enginetest.Instance {
	t.Helper()
	i := instance(t)
	if err := i.Prepare(context.Background(), module); err != nil {
		t.Fatal(err)
	}
	return i
}

// compiled is the engine, compiled when the first test needs it.
var compiled = sync.OnceValues(func() (*enginetest.Engine, error) {
	code, err := jsengine.Module()
	if path := os.Getenv("CASEMATE_ENGINE"); path != "" { // another build, to compare
		code, err = os.ReadFile(path)
	}
	if err != nil {
		return nil, fmt.Errorf("%w (these tests need it: go run ./engine/js/build)", err)
	}
	return enginetest.Open(context.Background(), code, pages)
})

func instance(t *testing.T) *enginetest.Instance {
	t.Helper()
	engine, err := compiled()
	if err != nil {
		t.Fatal(err)
	}
	i, err := engine.New(context.Background(), &enginetest.World{
		Now: 1_800_000_000_000_000_000, Monotonic: 5_000_000_000, Env: []string{"A=1", "__proto__=x"},
		Entropy: func(p []byte) { rand.Read(p) },
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { i.Close(context.Background()) })
	return i
}

func parse(t *testing.T, where string, body []byte, log string) outcome {
	t.Helper()
	var values map[string]json.RawMessage
	if err := json.Unmarshal(body, &values); err != nil {
		t.Fatalf("%s answered no JSON: %v\n%.2000s", where, err, log)
	}
	out := outcome{}
	for name, v := range values {
		out[name] = string(v)
	}
	if !strings.Contains(log, mark+"\n") {
		t.Fatalf("the log of %s has no end:\n%.2000s", where, log)
	}
	for i, part := range strings.Split(log, mark) {
		name, lines, _ := strings.Cut(part, "\n")
		if i > 0 && name != "" {
			out[name] = lines
		}
	}
	return out
}

package webtest_test

import (
	"encoding/json"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// documented gives the names in a part of docs/javascript.md, in order.
func documented(t *testing.T, part string) []string {
	t.Helper()
	data, err := os.ReadFile("../../../docs/javascript.md")
	if err != nil {
		t.Fatal(err)
	}
	_, after, begun := strings.Cut(string(data), "<!-- "+part+" -->")
	text, _, ended := strings.Cut(after, "<!-- /"+part+" -->")
	if !begun || !ended {
		t.Fatalf("docs/javascript.md has no part %q", part)
	}
	var names []string
	for _, m := range regexp.MustCompile("`([^`]*)`").FindAllStringSubmatch(text, -1) {
		names = append(names, m[1])
	}
	slices.Sort(names)
	return names
}

// TestDocumentedGlobals compares what is on the global object with what the
// documentation says: all of it, and nothing that it says is not there. What is missing
// is named when it is used, with what to do.
func TestDocumentedGlobals(t *testing.T) {
	a := serve(t, `export default { fetch: () => Response.json(Object.getOwnPropertyNames(globalThis).sort()) };`, nil)
	var have []string
	if err := json.Unmarshal(a.Body, &have); err != nil {
		t.Fatal(err)
	}
	listed, absent := documented(t, "globals"), documented(t, "absent")
	for _, name := range have {
		if !slices.Contains(listed, name) {
			t.Errorf("%s is there and not documented", name)
		}
	}
	for i, name := range listed {
		if !slices.Contains(have, name) {
			t.Errorf("%s is documented and not there", name)
		}
		if i > 0 && listed[i-1] == name {
			t.Errorf("%s is documented twice", name)
		}
	}
	if len(absent) < 20 {
		t.Fatalf("only %d names are documented as missing", len(absent))
	}
	for _, name := range absent {
		a := serve(t, `export default { fetch() { Promise.reject((() => { try { return `+name+`; } catch (e) { return e; } })()); return new Response(typeof `+name+`); } };`, nil)
		if string(a.Body) != "undefined" || !strings.Contains(a.Log, "ReferenceError: "+name+" is not defined\n") {
			t.Errorf("%s is documented as missing, and is %s: %s", name, a.Body, a.Log)
		}
		if !strings.Contains(a.Log, "\nnote: ") || !strings.Contains(a.Log, "nodejs") {
			t.Errorf("who uses %s is not told what to do: %s", name, a.Log)
		}
	}
}

package control

import (
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/casemate-dev/casemate/api/problem"
	"github.com/casemate-dev/casemate/internal/function"
)

// sample is a well-formed request of each operation: a refusal is the guard's.
type sample struct {
	method, pattern string
	path, body      string
	media           string
	free            []string // keys that are too narrow elsewhere and enough here
}

func samples() []sample {
	d := string(function.DigestOf([]byte("x")))
	spec := `{"name":"hello","artifact":"` + d + `","config":{"runtime":"go"}}`
	const fn = "/v1/namespaces/{ns}/functions/{name}"
	const here = "/v1/namespaces/default/functions/hello"
	const ns = "/v1/namespaces/{ns}"
	operators := []string{"wrong-ns-key", "wrong-fn-key"}
	elsewhere := []string{"wrong-fn-key"} // it gets what it may see, which is nothing of others
	return []sample{
		{"GET", "/openapi.json", "/openapi.json", "", "", operators},
		{"GET", "/v1/status", "/v1/status", "", "", operators},
		{"GET", "/v1/metrics", "/v1/metrics", "", "", operators},
		{"GET", "/v1/posture/sandbox", "/v1/posture/sandbox", "", "", operators},
		{"GET", "/v1/schemas/manifest", "/v1/schemas/manifest", "", "", operators},
		{"HEAD", "/v1/artifacts/{digest}", "/v1/artifacts/" + d, "", "", operators},
		{"PUT", "/v1/artifacts/{digest}", "/v1/artifacts/" + d, "x", "application/octet-stream", operators},
		{"POST", "/v1/namespaces/{ns}/plan", "/v1/namespaces/default/plan", `{"functions":[` + spec + `]}`, jsonMedia, nil},
		{"POST", "/v1/namespaces/{ns}/apply", "/v1/namespaces/default/apply", `{"plan":{"namespace":"default","alias":"live","changes":[]},"functions":[` + spec + `]}`, jsonMedia, nil},
		{"GET", "/v1/namespaces/{ns}/functions", "/v1/namespaces/default/functions", "", "", []string{"wrong-fn-key"}},
		{"GET", fn, here, "", "", nil},
		{"DELETE", fn, here, "", "", nil},
		{"GET", fn + "/versions", here + "/versions", "", "", nil},
		{"PUT", fn + "/aliases/{alias}", here + "/aliases/beta", `{"targets":[]}`, jsonMedia, nil},
		{"DELETE", fn + "/aliases/{alias}", here + "/aliases/beta", "", "", nil},
		{"POST", fn + "/rollback", here + "/rollback", `{}`, jsonMedia, nil},
		{"POST", fn + "/invocations", here + "/invocations", `{}`, jsonMedia, nil},
		{"GET", "/v1/namespaces/{ns}/logs", "/v1/namespaces/default/logs?function=hello", "", "", nil},
		{"GET", "/v1/receipts/{id}", "/v1/receipts/r1", "", "", operators},
		{"GET", "/v1/keys", "/v1/keys", "", "", nil},
		{"POST", "/v1/keys", "/v1/keys", `{"scopes":["read:default/*"]}`, jsonMedia, nil},
		{"DELETE", "/v1/keys/{id}", "/v1/keys/k9", "", "", nil},
		{"GET", ns + "/triggers", "/v1/namespaces/default/triggers", "", "", elsewhere},
		{"PUT", fn + "/triggers/{trigger}", here + "/triggers/paid", `{"paused":true}`, jsonMedia, nil},
		{"POST", fn + "/triggers/{trigger}/replays", here + "/triggers/paid/replays", `{}`, jsonMedia, nil},
		{"GET", ns + "/replays", "/v1/namespaces/default/replays", "", "", elsewhere},
		{"DELETE", ns + "/replays/{id}", "/v1/namespaces/default/replays/job-1", "", "", elsewhere},
		{"GET", ns + "/events", "/v1/namespaces/default/events?function=hello", "", "", nil},
		{"GET", ns + "/event", "/v1/namespaces/default/event?sequence=1", "", "", elsewhere},
		{"GET", ns + "/event-stream", "/v1/namespaces/default/event-stream?topic=orders", "", "", nil},
		{"POST", ns + "/topics/{topic}/events", "/v1/namespaces/default/topics/orders/events", `{"events":[{"type":"t"}]}`, jsonMedia, nil},
		{"POST", ns + "/events/purge", "/v1/namespaces/default/events/purge", `{"function":"hello","until":"2030-01-02T15:04:05Z"}`, jsonMedia, nil},
		{"GET", ns + "/dead-letters", "/v1/namespaces/default/dead-letters?function=hello", "", "", nil},
		{"GET", ns + "/dead-letters/{sequence}", "/v1/namespaces/default/dead-letters/1", "", "", elsewhere},
		{"POST", ns + "/dead-letters/retry", "/v1/namespaces/default/dead-letters/retry", `{"sequences":[1]}`, jsonMedia, elsewhere},
		{"POST", ns + "/dead-letters/purge", "/v1/namespaces/default/dead-letters/purge", `{"function":"hello"}`, jsonMedia, nil},
		{"GET", ns + "/connections", "/v1/namespaces/default/connections", "", "", nil},
		{"GET", ns + "/connections/{name}", "/v1/namespaces/default/connections/rabbit", "", "", nil},
		{"PUT", ns + "/connections/{name}", "/v1/namespaces/default/connections/rabbit", `{"kind":"amqp"}`, jsonMedia, nil},
		{"DELETE", ns + "/connections/{name}", "/v1/namespaces/default/connections/rabbit", "", "", nil},
		{"GET", "/v1/doctor", "/v1/doctor?quick=true", "", "", nil},
	}
}

func TestEveryOperationAsksForACredentialAndAScope(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	for _, s := range samples() {
		for _, key := range []string{"", "nobody's key", "cm_wrong", "no-scope-key", "narrow-key", "wrong-ns-key", "wrong-fn-key"} {
			want := http.StatusForbidden
			if key == "" || key == "nobody's key" || key == "cm_wrong" {
				want = http.StatusUnauthorized
			}
			resp, body := r.raw(s.method, s.path, key, s.media, s.body)
			if slices.Contains(s.free, key) {
				if resp.StatusCode == http.StatusForbidden || resp.StatusCode == http.StatusUnauthorized {
					t.Errorf("%s %s with %q: %d, though the scope is enough", s.method, s.path, key, resp.StatusCode)
				}
				continue
			}
			if resp.StatusCode != want {
				t.Errorf("%s %s with %q: got %d, want %d: %s", s.method, s.path, key, resp.StatusCode, want, body)
			}
			if want == http.StatusUnauthorized && resp.Header.Get("WWW-Authenticate") == "" {
				t.Errorf("%s %s: no WWW-Authenticate", s.method, s.path)
			}
			if got := resp.Header.Get("Content-Type"); got != problem.MediaType {
				t.Errorf("%s %s with %q: Content-Type %q", s.method, s.path, key, got)
			}
		}
		if resp, _ := r.raw(s.method, s.path, adminSecret, s.media, s.body); resp.StatusCode == http.StatusForbidden || resp.StatusCode == http.StatusUnauthorized {
			t.Errorf("%s %s: the administrator was refused", s.method, s.path)
		}
	}
}

func TestUnknownPathsTellStrangersNothing(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	for _, path := range []string{"/", "/v2", "/v1/keys/x/y", "/openapi.yaml", "/docs", "/schemas/Key.json", "/debug/pprof"} {
		if resp, _ := r.raw("GET", path, "", "", ""); resp.StatusCode != http.StatusUnauthorized {
			t.Errorf("GET %s as nobody: %d, want 401", path, resp.StatusCode)
		}
		resp, body := r.raw("GET", path, adminSecret, "", "")
		if resp.StatusCode != http.StatusNotFound || !strings.Contains(body, `"not_found"`) {
			t.Errorf("GET %s: %d %s, want a problem with 404", path, resp.StatusCode, body)
		}
	}
	resp, body := r.raw("PATCH", "/v1/keys", adminSecret, "", "")
	if resp.StatusCode != http.StatusMethodNotAllowed || resp.Header.Get("Allow") != "GET, HEAD, POST" || !strings.Contains(body, `"method_not_allowed"`) {
		t.Errorf("PATCH /v1/keys: %d, Allow %q, %s", resp.StatusCode, resp.Header.Get("Allow"), body)
	}
	for _, path := range []string{"//v1/status", "/v1/./status", "/v1/keys/../status", "/v1//status", "/v1/status/"} {
		if resp, _ := r.raw("GET", path, adminSecret, "", ""); resp.StatusCode != http.StatusBadRequest {
			t.Errorf("GET %s: %d, want 400", path, resp.StatusCode)
		}
	}
}

func TestHealthAnswersEverybody(t *testing.T) {
	t.Parallel()
	resp, body := newRig(t).raw("GET", "/healthz", "", "", "")
	if resp.StatusCode != http.StatusOK || strings.TrimSpace(body) != `{"status":"ok"}` {
		t.Fatalf("got %d %s", resp.StatusCode, body)
	}
}

// TestEveryRouteIsDocumentedAndTested walks the document: an operation that is
// not in the table above would go untested, and one that is not in the document
// would go unknown.
func TestEveryRouteIsDocumentedAndTested(t *testing.T) {
	t.Parallel()
	text, err := OpenAPI()
	if err != nil {
		t.Fatal(err)
	}
	var doc struct {
		OpenAPI string                                `json:"openapi"`
		Paths   map[string]map[string]json.RawMessage `json:"paths"`
	}
	if err := json.Unmarshal(text, &doc); err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(doc.OpenAPI, "3.1") {
		t.Errorf("openapi: %q", doc.OpenAPI)
	}
	want := []string{"GET /healthz"}
	for _, s := range samples() {
		want = append(want, s.method+" "+s.pattern)
	}
	var got []string
	for path, operations := range doc.Paths {
		for method, op := range operations {
			got = append(got, strings.ToUpper(method)+" "+path)
			if !strings.Contains(string(op), problem.MediaType) {
				t.Errorf("%s %s does not document its errors", method, path)
			}
		}
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("documented:\n%s\ntested:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	again, err := OpenAPI()
	if err != nil || string(again) != string(text) {
		t.Errorf("the document varies (%v)", err)
	}
	if strings.Contains(string(text), "ErrorModel") || strings.Contains(string(text), "$schema") {
		t.Error("the document describes errors that are never sent")
	}
}

func TestAnswersAndLogsNeverShowInternalText(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.deploy("default", "hello", "code", hello())
	boom := problem.From(&plantedError{})
	r.keys.err, r.recorder.err, r.invoker.err, r.prepErr = &plantedError{}, &plantedError{}, boom, &plantedError{}
	r.store.mu.Lock()
	r.store.err = &plantedError{}
	r.store.mu.Unlock()
	r.events.fail(&plantedError{})
	failed := 0
	for _, s := range append(samples(), sample{method: "GET", path: "/v1/namespaces/default/logs?follow=true"}) {
		resp, body := r.raw(s.method, s.path, adminSecret, s.media, s.body)
		if resp.StatusCode >= 500 {
			failed++
		}
		for k, v := range resp.Header {
			body += k + strings.Join(v, "")
		}
		if strings.Contains(body, "planted") || strings.Contains(body, "/var/lib") {
			t.Errorf("%s %s shows internal text: %s", s.method, s.path, body)
		}
	}
	if failed < 20 {
		t.Fatalf("only %d operations failed: the test no longer tests", failed)
	}
	if !strings.Contains(r.log.String(), "planted") {
		t.Error("the log should say what went wrong")
	}
	if strings.Contains(r.log.String(), adminSecret) || strings.Contains(r.log.String(), "the-new-secret") {
		t.Error("a secret is in the log")
	}
}

type plantedError struct{}

func (*plantedError) Error() string { return planted }

package control

import (
	"net/http"
	"strings"
	"testing"

	"github.com/casemate-dev/casemate/api"
	"github.com/casemate-dev/casemate/api/manifest"
	"github.com/casemate-dev/casemate/internal/function"
)

func TestStrictRequests(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	d := string(function.DigestOf([]byte("x")))
	spec := func(extra string) string {
		return `{"functions":[{"name":"hello","artifact":"` + d + `","config":{"runtime":"go"` + extra + `}}]}`
	}
	const plan = "/v1/namespaces/default/plan"
	for _, tt := range []struct {
		name, method, path, media, body string
		status                          int
		contains                        []string
	}{
		{"unknown field", "POST", "/v1/keys", jsonMedia, `{"scopes":["admin"],"sopes":1}`, 400, []string{`"code":"bad_request"`, `no field \"sopes\"`, `"field":"sopes"`}},
		{"unknown nested field", "POST", plan, jsonMedia, spec(`,"memory":1`), 400, []string{`"field":"functions[0].config.memory"`}},
		{"wrong type", "POST", "/v1/keys", jsonMedia, `{"scopes":"admin"}`, 400, []string{`"field":"scopes"`}},
		{"not JSON", "POST", "/v1/keys", jsonMedia, `{"scopes":`, 400, []string{`"code":"bad_request"`}},
		{"two documents", "POST", "/v1/keys", jsonMedia, `{"scopes":["admin"]}{}`, 400, []string{`"code":"bad_request"`}},
		{"no body", "POST", "/v1/keys", jsonMedia, ``, 400, []string{`"code":"bad_request"`}},
		{"missing field", "POST", "/v1/keys", jsonMedia, `{}`, 400, []string{"scopes"}},
		{"not declared as JSON", "POST", "/v1/keys", "text/plain", `{"scopes":["admin"]}`, 415, []string{`"unsupported_media_type"`, "application/json"}},
		{"no media type", "POST", "/v1/keys", "", `{"scopes":["admin"]}`, 415, []string{`"unsupported_media_type"`}},
		{"too large", "POST", "/v1/keys", jsonMedia, `{"scopes":["` + strings.Repeat("x", maxSmallBody) + `"]}`, 413, []string{`"body_too_large"`}},
		{"unknown query", "GET", "/v1/status?verbose=1", "", ``, 400, []string{`"bad_request"`, "verbose"}},
		{"query of a wrong type", "GET", "/v1/namespaces/default/logs?tail=many", "", ``, 400, []string{`"field":"query.tail"`}},
		{"query out of bounds", "GET", "/v1/namespaces/default/logs?tail=-1", "", ``, 400, []string{`"field":"query.tail"`}},
		{"bad scope", "POST", "/v1/keys", jsonMedia, `{"scopes":["read:x"]}`, 400, []string{`"field":"scopes[0]"`}},
		{"key that expired already", "POST", "/v1/keys", jsonMedia, `{"scopes":["admin"],"expiresInMillis":-1}`, 400, []string{`"field":"expiresInMillis"`}},
		{"bad digest", "PUT", "/v1/artifacts/sha256:xyz", "application/octet-stream", "x", 400, []string{`"field":"digest"`}},
		{"digest of something else", "PUT", "/v1/artifacts/" + d, "application/octet-stream", "y", 422, []string{`"digest_mismatch"`}},
		{"bad name", "POST", plan, jsonMedia, `{"functions":[{"name":"Hello","artifact":"` + d + `","config":{"runtime":"go"}}]}`, 400, []string{"Hello"}},
		{"the manifest's rules hold here too", "POST", plan, jsonMedia, spec(`,"memoryBytes":5`), 400, []string{`"invalid_manifest"`, `"field":"functions.hello.memory"`}},
		{"path that climbs", "POST", plan, jsonMedia, spec(`,"http":[{"method":"GET","path":"/a/../b"}]`), 400, []string{`"field":"functions.hello.http[0].path"`}},
		{"secret in the environment", "POST", plan, jsonMedia, spec(`,"environment":{"API_TOKEN":"hunter2hunter2"}`), 400, []string{`"secret_in_config"`, "functions.hello.environment.API_TOKEN"}},
		{"plan of another namespace", "POST", "/v1/namespaces/default/apply", jsonMedia, `{"plan":{"namespace":"shop","alias":"live","changes":[]},` + spec("")[1:], 400, []string{`"field":"plan.namespace"`}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			resp, body := r.raw(tt.method, tt.path, adminSecret, tt.media, tt.body)
			if resp.StatusCode != tt.status {
				t.Errorf("status %d, want %d", resp.StatusCode, tt.status)
			}
			for _, c := range append(tt.contains, `"type":"https://casemate.dev/errors#`, `"requestId"`, `"remedy"`) {
				if !strings.Contains(body, c) {
					t.Errorf("want %s in %s", c, body)
				}
			}
			for _, c := range []string{"hunter2", `"errors"`, "validation failed", `"value"`} {
				if strings.Contains(body, c) {
					t.Errorf("%s must not be in %s", c, body)
				}
			}
		})
	}
	if strings.Contains(r.log.String(), "hunter2") {
		t.Error("the secret is in the log")
	}
}

func TestArtifactSizeIsBounded(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	d := string(function.DigestOf([]byte("x")))
	err := r.client(adminSecret).PutArtifact(t.Context(), d, MaxArtifact+1, endless{})
	if e := refused(t, err, "body_too_large"); !strings.Contains(e.Remedy, "Build it smaller") {
		t.Errorf("refused by somebody else: %v", e)
	}
	resp, body := r.raw("PUT", "/v1/artifacts/"+d, adminSecret, "application/octet-stream", "")
	if resp.StatusCode != http.StatusBadRequest {
		t.Errorf("an empty artifact: %d %s", resp.StatusCode, body)
	}
}

func TestRequestIDs(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	for given, want := range map[string]string{"trace-1.a_B": "trace-1.a_B", "": "id-", "cm_abcdef": "id-", strings.Repeat("a", 65): "id-", "a b": "id-"} {
		req, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, "/healthz", nil)
		if given != "" {
			req.Header.Set(api.RequestIDHeader, given)
		}
		w := &recorder{header: http.Header{}}
		r.handler.ServeHTTP(w, req)
		if got := w.header.Get(api.RequestIDHeader); !strings.HasPrefix(got, want) {
			t.Errorf("given %q: got %q, want %q", given, got, want)
		}
	}
}

type recorder struct{ header http.Header }

func (r *recorder) Header() http.Header         { return r.header }
func (r *recorder) Write(b []byte) (int, error) { return len(b), nil }
func (r *recorder) WriteHeader(int)             {}

// TestManifestAndNodeAgreeOnBounds: the manifest's package may not import the
// node's, so the bounds are written down twice.
func TestManifestAndNodeAgreeOnBounds(t *testing.T) {
	t.Parallel()
	for name, pair := range map[string][2]int64{
		"default memory":      {manifest.DefaultMemory, function.DefaultMemory},
		"least memory":        {manifest.MinMemory, function.MinMemory},
		"most memory":         {manifest.MaxMemory, function.MaxMemory},
		"default timeout":     {int64(manifest.DefaultTimeout), int64(function.DefaultTimeout)},
		"longest timeout":     {int64(manifest.MaxTimeout), int64(function.MaxTimeout)},
		"default CPU":         {int64(manifest.DefaultCPU), int64(function.DefaultCPU)},
		"most CPU":            {int64(manifest.MaxCPU), int64(function.MaxCPU)},
		"default calls":       {manifest.DefaultCalls, function.DefaultCalls},
		"most calls":          {manifest.MaxCalls, function.MaxCalls},
		"default output":      {manifest.DefaultOutput, function.DefaultOutputLimit},
		"most output":         {manifest.MaxOutput, function.MaxOutputLimit},
		"default log":         {manifest.DefaultLog, function.DefaultLogLimit},
		"most log":            {manifest.MaxLog, function.MaxLogLimit},
		"default body":        {manifest.DefaultBody, function.DefaultBodyLimit},
		"most body":           {manifest.MaxBody, function.MaxBodyLimit},
		"default concurrency": {manifest.DefaultConcurrency, function.DefaultConcurrency},
		"most concurrency":    {manifest.MaxConcurrency, function.MaxConcurrency},
	} {
		if pair[0] != pair[1] {
			t.Errorf("%s: the manifest says %d, the node %d", name, pair[0], pair[1])
		}
	}
	if manifest.DefaultNamespace != function.DefaultNamespace {
		t.Error("the default namespaces differ")
	}
	for _, name := range []string{"a", "a-b", "abc1", "", "A", "1a", "-a", "a-", "a.b", "a_b", strings.Repeat("a", 63), strings.Repeat("a", 64)} {
		valid := true
		for _, i := range manifest.Check(name, api.FunctionConfig{Runtime: "go"}) {
			valid = valid && i.Field != ""
		}
		if valid != function.ValidName(name) {
			t.Errorf("%q: the manifest says %v, the node %v", name, valid, function.ValidName(name))
		}
	}
	c := configIn(api.FunctionConfig{Runtime: "go"})
	if c.Entry != function.EntryCommand || c.Isolation != function.IsolationInvocation {
		t.Errorf("defaults: %+v", c)
	}
}

// endless is a body without an end.
type endless struct{}

func (endless) Read(p []byte) (int, error) { return len(p), nil }

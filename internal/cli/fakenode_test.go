package cli_test

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/casemate-dev/casemate/api"
	"github.com/casemate-dev/casemate/api/manifest"
	"github.com/casemate-dev/casemate/api/problem"
)

// adminKey opens a fakeNode. It must never be printed.
const adminKey = "cm_fakenodekey0001_c2VjcmV0IHRoYXQgbm9ib2R5IHNlZXM"

var noon = time.Date(2030, 1, 2, 12, 0, 0, 0, time.UTC)

// fakeNode answers the API as a node does, from memory.
type fakeNode struct {
	server *httptest.Server

	mu        sync.Mutex
	now       time.Time
	artifacts map[string][]byte
	functions map[string]*fakeFunction // by namespace/name
	keys      []api.Key
	receipts  map[string]api.Receipt
	logs      []api.LogRecord
	fail      problem.Code // when set, everything fails so
	unhealthy bool
	stale     bool          // the next apply finds that somebody else was faster
	arrived   chan struct{} // closed and replaced when a log record arrives
	invoked   []api.Invocation

	paused      map[string]bool // triggers, as function/trigger
	events      []api.EventRecord
	dead        []api.DeadLetter
	replays     []api.ReplayJob
	connections []api.Connection
	values      map[string]fakeValue
	revision    uint64
	page        int           // keys in one answer
	failing     bool          // the source of every trigger
	last        any           // what was asked for last of events
	clock       time.Duration // the node's is ahead by
}

type fakeFunction struct {
	api.Function
	versions []api.Version // newest first
}

func newFakeNode(t testing.TB) *fakeNode {
	n := &fakeNode{
		now: noon.Add(-time.Hour), artifacts: map[string][]byte{}, functions: map[string]*fakeFunction{},
		receipts: map[string]api.Receipt{}, arrived: make(chan struct{}), values: map[string]fakeValue{}, page: 2,
	}
	n.dead = deadLetters()
	n.keys = []api.Key{{ID: "fakenodekey0001", Name: "admin", Scopes: []string{"admin"}, Created: n.now, Creator: "node"}}
	n.server = httptest.NewUnstartedServer(n.routes())
	n.server.EnableHTTP2 = true
	n.server.Config.ErrorLog = nil
	n.server.StartTLS()
	t.Cleanup(func() { n.server.CloseClientConnections(); n.server.Close() })
	return n
}

func (n *fakeNode) ca() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: n.server.Certificate().Raw})
}

// gateway is what the node calls its other listener. Nothing answers there.
func (n *fakeNode) gateway() string { return "https://127.0.0.1:8443" }

type handler func(r *http.Request) (any, error)

func (n *fakeNode) routes() http.Handler {
	mux := http.NewServeMux()
	for pattern, h := range map[string]handler{
		"GET /v1/status":                                            n.status,
		"HEAD /v1/artifacts/{digest}":                               n.hasArtifact,
		"PUT /v1/artifacts/{digest}":                                n.putArtifact,
		"POST /v1/namespaces/{ns}/plan":                             n.plan,
		"POST /v1/namespaces/{ns}/apply":                            n.apply,
		"GET /v1/namespaces/{ns}/functions":                         n.list,
		"GET /v1/namespaces/{ns}/functions/{fn}":                    n.describe,
		"DELETE /v1/namespaces/{ns}/functions/{fn}":                 n.remove,
		"GET /v1/namespaces/{ns}/functions/{fn}/versions":           n.versions,
		"PUT /v1/namespaces/{ns}/functions/{fn}/aliases/{alias}":    n.setAlias,
		"DELETE /v1/namespaces/{ns}/functions/{fn}/aliases/{alias}": n.deleteAlias,
		"POST /v1/namespaces/{ns}/functions/{fn}/rollback":          n.rollback,
		"POST /v1/namespaces/{ns}/functions/{fn}/invocations":       n.invoke,
		"GET /v1/receipts/{id}":                                     n.receipt,
		"GET /v1/keys":                                              n.listKeys,
		"POST /v1/keys":                                             n.createKey,
		"DELETE /v1/keys/{id}":                                      n.revokeKey,
	} {
		mux.HandleFunc(pattern, n.answer(h))
	}
	for pattern, h := range n.eventRoutes() {
		mux.HandleFunc(pattern, n.answer(h))
	}
	mux.HandleFunc("GET /v1/namespaces/{ns}/event-stream", n.streamEvents)
	mux.HandleFunc("GET /v1/doctor", n.doctor)
	mux.HandleFunc("/.casemate/kv/", n.serveValues)
	mux.HandleFunc("/{namespace}/.casemate/kv/", n.serveValues)
	mux.HandleFunc("GET /v1/namespaces/{ns}/logs", n.streamLogs)
	return mux
}

func (n *fakeNode) refuses(r *http.Request) error {
	if r.Header.Get("Authorization") != "Bearer "+adminKey {
		return problem.New(problem.Unauthenticated, "the key is not valid")
	}
	if n.fail != "" {
		return problem.New(n.fail, "as the test wants it")
	}
	return nil
}

func (n *fakeNode) answer(h handler) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		n.mu.Lock()
		defer n.mu.Unlock()
		const id = "req-0001"
		w.Header().Set(api.RequestIDHeader, id)
		err := n.refuses(r)
		var v any
		if err == nil {
			v, err = h(r)
		}
		if err != nil {
			d := problem.Render(problem.From(err), id)
			if strings.HasPrefix(string(d.Code), "function_") {
				d.Receipt = "rcpt-crash"
			}
			problem.WriteDetails(w, d, problem.From(err).RetryAfter)
			return
		}
		if v == nil {
			w.WriteHeader(http.StatusNoContent)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(v)
	}
}

func decode[T any](r *http.Request) T {
	var v T
	d := json.NewDecoder(r.Body)
	d.DisallowUnknownFields()
	if err := d.Decode(&v); err != nil {
		panic(err)
	}
	return v
}

func items[T any](list []T) any { return map[string]any{"items": append([]T{}, list...)} }

func (n *fakeNode) find(r *http.Request) (*fakeFunction, error) {
	f := n.functions[r.PathValue("ns")+"/"+r.PathValue("fn")]
	if f == nil {
		return nil, problem.New(problem.NotFound, "there is no function %s in namespace %s", r.PathValue("fn"), r.PathValue("ns"))
	}
	return f, nil
}

func (n *fakeNode) status(*http.Request) (any, error) {
	s := api.Status{
		Healthy: !n.unhealthy, State: "ready", Node: "node-1", Version: "1.2.3", Go: "go1.26", Started: n.now, UptimeMS: 3_600_000,
		Listeners: []api.Listener{
			{Name: "gateway", Address: "127.0.0.1:8443", TLS: "1.3", URL: n.gateway()},
			{Name: "control", Address: "127.0.0.1:8444", TLS: "1.3", URL: "https://127.0.0.1:8444"},
			{Name: "objects", Address: "127.0.0.1:8445", TLS: "1.3", URL: "https://127.0.0.1:8445"},
		},
		Objects:    &api.ObjectStore{URL: "https://127.0.0.1:8445", Buckets: 2, Objects: 7, Bytes: 3 << 20},
		Components: map[string]string{"bus": "2.15.2", "engine": "1.12.0"},
		Sandbox:    api.SandboxStatus{Processes: 2, Warm: 1, Enforced: []string{"own process"}, Unenforced: []string{"seccomp"}},
		Functions:  len(n.functions), Invocations: 42, InFlight: 1, RSSBytes: 60 << 20,
	}
	if n.failing {
		s.Events = &api.EventCounts{Triggers: 3, Paused: 1, SourcesFailing: 1, Waiting: 7, UnderWay: 2, Retrying: 4, Done: 90, Dead: 5}
	}
	if n.unhealthy {
		s.State, s.Warnings = "draining", []string{"the disk is nearly full"}
	}
	return s, nil
}

func (n *fakeNode) hasArtifact(r *http.Request) (any, error) {
	if _, ok := n.artifacts[r.PathValue("digest")]; !ok {
		return nil, problem.New(problem.NotFound, "no such artifact")
	}
	return nil, nil
}

func (n *fakeNode) putArtifact(r *http.Request) (any, error) {
	b, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, err
	}
	if digest(b) != r.PathValue("digest") {
		return nil, problem.New(problem.DigestMismatch, "the content has another digest")
	}
	n.artifacts[digest(b)] = b
	return nil, nil
}

func digest(b []byte) string {
	sum := sha256.Sum256(b)
	return "sha256:" + hex.EncodeToString(sum[:])
}

func versionID(s api.FunctionSpec) string {
	b, err := json.Marshal(struct {
		A string
		C api.FunctionConfig
	}{s.Artifact, s.Config})
	if err != nil {
		panic(err)
	}
	return digest(b)
}

func (n *fakeNode) plan(r *http.Request) (any, error) {
	in := decode[api.PlanRequest](r)
	p := api.Plan{Namespace: r.PathValue("ns"), Alias: cmp.Or(in.Alias, "live")}
	for _, s := range in.Functions {
		if _, ok := n.artifacts[s.Artifact]; !ok {
			return nil, problem.New(problem.NotFound, "artifact of %s is not here", s.Name)
		}
		s.Config = manifest.WithDefaults(s.Config)
		ch := api.Change{Function: s.Name, Action: "create", Version: versionID(s)}
		if n.functions[p.Namespace+"/"+s.Name] == nil {
			ch.Diff = append(ch.Diff, api.FieldDelta{Field: "memory", To: "128Mi"})
			for _, h := range s.Config.HTTP {
				ch.Diff = append(ch.Diff, api.FieldDelta{Field: "http[" + h.Method + " " + h.Path + "]", To: "with a key"})
			}
		}
		public := slices.ContainsFunc(s.Config.HTTP, func(h api.HTTPTrigger) bool { return h.Public })
		if f := n.functions[p.Namespace+"/"+s.Name]; f != nil {
			ch.Action, ch.Current, ch.Revision = "update", f.Live.ID, f.Revision
			if f.Live.ID == ch.Version {
				ch.Action = "none"
			}
			if f.Live.Artifact != s.Artifact {
				ch.Diff = append(ch.Diff, api.FieldDelta{Field: "code", From: f.Live.Artifact[7:19], To: s.Artifact[7:19]})
			}
			if a, b := f.Live.Config.MemoryBytes, s.Config.MemoryBytes; a != b {
				ch.Diff = append(ch.Diff, api.FieldDelta{Field: "memory", From: fmt.Sprint(a), To: fmt.Sprint(b)})
			}
			public = public && !slices.ContainsFunc(f.Live.Config.HTTP, func(h api.HTTPTrigger) bool { return h.Public })
		}
		if public {
			ch.Warnings = []string{"a route becomes public: anybody may call it"}
		}
		p.Changes = append(p.Changes, ch)
	}
	return p, nil
}

func (n *fakeNode) apply(r *http.Request) (any, error) {
	in := decode[api.ApplyRequest](r)
	if n.stale {
		n.stale = false
		return nil, problem.New(problem.PlanStale, "somebody else deployed")
	}
	ns := r.PathValue("ns")
	out := api.Applied{Namespace: ns}
	for i, s := range in.Functions {
		s.Config = manifest.WithDefaults(s.Config)
		ch := in.Plan.Changes[i]
		f := n.functions[ns+"/"+s.Name]
		if f == nil {
			f = &fakeFunction{Function: api.Function{Namespace: ns, Name: s.Name}}
			n.functions[ns+"/"+s.Name] = f
		}
		if ch.Revision != f.Revision {
			return nil, problem.New(problem.PlanStale, "somebody else deployed")
		}
		d := api.Deployed{Name: s.Name, Version: ch.Version, Changed: ch.Action != "none"}
		for _, h := range s.Config.HTTP {
			d.URLs = append(d.URLs, n.gateway()+h.Path)
		}
		if d.Changed {
			n.now = n.now.Add(time.Minute)
			v := api.Version{ID: ch.Version, Artifact: s.Artifact, Size: int64(len(n.artifacts[s.Artifact])), Created: n.now, Creator: "key:admin", Config: s.Config}
			f.versions = slices.DeleteFunc(f.versions, func(o api.Version) bool { return o.ID == v.ID })
			f.versions = append([]api.Version{v}, f.versions...)
			f.URLs = d.URLs
			f.point(in.Plan.Alias, []api.Weight{{Version: v.ID, Percent: 100}}, "deploy", n.now)
		}
		out.Functions = append(out.Functions, d)
	}
	return out, nil
}

// point moves an alias.
func (f *fakeFunction) point(alias string, to []api.Weight, why string, now time.Time) *api.Alias {
	i := slices.IndexFunc(f.Aliases, func(a api.Alias) bool { return a.Name == alias })
	if i < 0 {
		f.Aliases = append(f.Aliases, api.Alias{Name: alias})
		i = len(f.Aliases) - 1
	}
	a := &f.Aliases[i]
	a.Targets = to
	a.History = append([]api.AliasMove{{Targets: to, At: now, By: "key:admin", Why: why}}, a.History...)
	f.Revision++
	for i := range f.versions {
		v := &f.versions[i]
		v.Aliases = nil
		for _, al := range f.Aliases {
			if slices.ContainsFunc(al.Targets, func(w api.Weight) bool { return w.Version == v.ID }) {
				v.Aliases = append(v.Aliases, al.Name)
			}
		}
		if alias == "live" && v.ID == to[0].Version {
			f.Live = v
		}
	}
	return a
}

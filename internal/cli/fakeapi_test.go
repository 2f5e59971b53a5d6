package cli_test

import (
	"cmp"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/casemate-dev/casemate/api"
	"github.com/casemate-dev/casemate/api/problem"
)

// What a fakeNode answers besides deployments.

func (n *fakeNode) list(r *http.Request) (any, error) {
	var out []api.Function
	for k, f := range n.functions {
		if strings.HasPrefix(k, r.PathValue("ns")+"/") {
			out = append(out, f.Function)
		}
	}
	slices.SortFunc(out, func(a, b api.Function) int { return strings.Compare(a.Name, b.Name) })
	return items(out), nil
}

func (n *fakeNode) describe(r *http.Request) (any, error) {
	f, err := n.find(r)
	if err != nil {
		return nil, err
	}
	out := f.Function
	if n.failing {
		out.Triggers = []api.TriggerStatus{n.trigger(f.Name)}
	}
	out.Stats = &api.Stats{Since: noon.Add(-time.Hour)}
	for _, rc := range n.receipts {
		out.Stats.Count++
		if rc.Outcome != "ok" {
			out.Stats.Failed++
		}
		out.Stats.Last = append(out.Stats.Last, rc)
	}
	slices.SortFunc(out.Stats.Last, func(a, b api.Receipt) int { return strings.Compare(b.ID, a.ID) })
	return out, nil
}

func (n *fakeNode) remove(r *http.Request) (any, error) {
	_, err := n.find(r)
	delete(n.functions, r.PathValue("ns")+"/"+r.PathValue("fn"))
	return nil, err
}

func (n *fakeNode) versions(r *http.Request) (any, error) {
	f, err := n.find(r)
	if err != nil {
		return nil, err
	}
	return items(f.versions), nil
}

func (n *fakeNode) setAlias(r *http.Request) (any, error) {
	f, err := n.find(r)
	if err != nil {
		return nil, err
	}
	in := decode[api.SetAlias](r)
	if in.Revision != 0 && in.Revision != f.Revision {
		return nil, problem.New(problem.Conflict, "the function is at revision %d", f.Revision)
	}
	for _, w := range in.Targets {
		if !slices.ContainsFunc(f.versions, func(v api.Version) bool { return v.ID == w.Version }) {
			return nil, problem.New(problem.BadRequest, "not a whole version id: %q", w.Version)
		}
	}
	return f.point(r.PathValue("alias"), in.Targets, "alias", n.now), nil
}

func (n *fakeNode) deleteAlias(r *http.Request) (any, error) {
	f, err := n.find(r)
	if err != nil {
		return nil, err
	}
	before := len(f.Aliases)
	f.Aliases = slices.DeleteFunc(f.Aliases, func(a api.Alias) bool { return a.Name == r.PathValue("alias") })
	if len(f.Aliases) == before {
		return nil, problem.New(problem.NotFound, "there is no alias %s", r.PathValue("alias"))
	}
	return nil, nil
}

func (n *fakeNode) rollback(r *http.Request) (any, error) {
	f, err := n.find(r)
	if err != nil {
		return nil, err
	}
	in := decode[api.Rollback](r)
	alias := cmp.Or(in.Alias, "live")
	for _, a := range f.Aliases {
		if a.Name == alias && len(a.History) > 1 {
			return f.point(alias, a.History[1].Targets, "rollback", n.now), nil
		}
	}
	return nil, problem.New(problem.Conflict, "there is nothing before")
}

func (n *fakeNode) invoke(r *http.Request) (any, error) {
	f, err := n.find(r)
	if err != nil {
		return nil, err
	}
	in := decode[api.Invocation](r)
	n.invoked = append(n.invoked, in)
	id := fmt.Sprintf("rcpt-%04d", len(n.receipts)+1)
	rc := api.Receipt{
		ID: id, RequestID: "req-" + id, Namespace: f.Namespace, Function: f.Name, Version: f.Live.ID, Artifact: f.Live.Artifact, Alias: "live",
		Trigger: "invoke", Principal: "key:fakenodekey0001", Sandbox: "sbx-1", Isolation: "invocation", Start: noon.Add(-time.Minute),
		WallMillis: 3.25, CPUMillis: 2.5, Fuel: 1_234_567, Calls: 3, MemoryPeak: 4 << 20, BytesIn: int64(len(in.Body)), Status: 200, Outcome: "ok",
	}
	res := api.InvocationResult{Status: 200, Headers: map[string][]string{"content-type": {"text/plain"}}, Body: in.Body, Log: []string{"saw it"}}
	switch body := string(in.Body); body {
	case "crash":
		for i := range 20 {
			n.log(api.LogRecord{Time: noon, Function: f.Name, RequestID: "req-0001", Text: fmt.Sprintf("trace line %d", i+1)})
		}
		return nil, problem.New(problem.FunctionCrashed, "it ended with exit code 2")
	case "teapot":
		res.Status, rc.Status = 418, 418
	case "busy":
		return nil, problem.New(problem.TooManyRequests, "64 at once").After(3 * time.Second)
	case "echo":
		b, err := json.Marshal(in)
		if err != nil {
			return nil, err
		}
		res.Body = b
	}
	rc.BytesOut = int64(len(res.Body))
	res.Receipt = rc
	n.receipts[id] = rc
	n.log(api.LogRecord{Time: noon.Add(-time.Minute), Function: f.Name, Version: f.Live.ID, RequestID: rc.RequestID, Text: "saw it"})
	n.log(api.LogRecord{Time: noon.Add(-time.Minute), Function: f.Name, Version: f.Live.ID, RequestID: rc.RequestID, Receipt: &rc})
	return res, nil
}

func (n *fakeNode) log(r api.LogRecord) {
	n.logs = append(n.logs, r)
	close(n.arrived)
	n.arrived = make(chan struct{})
}

func (n *fakeNode) receipt(r *http.Request) (any, error) {
	rc, ok := n.receipts[r.PathValue("id")]
	if !ok {
		return nil, problem.New(problem.NotFound, "there is no receipt %s", r.PathValue("id"))
	}
	return rc, nil
}

func (n *fakeNode) listKeys(*http.Request) (any, error) { return items(n.keys), nil }

func (n *fakeNode) createKey(r *http.Request) (any, error) {
	in := decode[api.CreateKey](r)
	k := api.Key{ID: fmt.Sprintf("newkey%04d", len(n.keys)), Name: in.Name, Scopes: in.Scopes, Created: n.now, Creator: "key:admin"}
	if in.ExpiresMillis > 0 {
		t := noon.Add(time.Duration(in.ExpiresMillis) * time.Millisecond)
		k.Expires = &t
	}
	k.Kind = cmp.Or(in.Kind, api.KeyBearer)
	if k.Kind == api.KeyAWS {
		k.AccessKeyID = "CASENEWKEY"
	}
	n.keys = append(n.keys, k)
	return api.CreatedKey{Key: k, Secret: "cm_" + k.ID + "_freshly-made-secret"}, nil
}

func (n *fakeNode) revokeKey(r *http.Request) (any, error) {
	for i := range n.keys {
		if n.keys[i].ID == r.PathValue("id") {
			t := noon
			n.keys[i].Revoked = &t
			return nil, nil
		}
	}
	return nil, problem.New(problem.NotFound, "there is no key %s", r.PathValue("id"))
}

func (n *fakeNode) streamLogs(w http.ResponseWriter, r *http.Request) {
	n.mu.Lock()
	if err := n.refuses(r); err != nil {
		n.mu.Unlock()
		problem.Write(w, err, "req-0001")
		return
	}
	n.mu.Unlock()
	q := r.URL.Query()
	w.Header().Set("Content-Type", api.LogMediaType)
	sent := 0
	for {
		n.mu.Lock()
		batch, next := n.logs[sent:], n.arrived
		sent = len(n.logs)
		n.mu.Unlock()
		for _, rec := range batch {
			if f := q.Get("function"); f != "" && f != rec.Function {
				continue
			}
			if id := q.Get("requestId"); id != "" && id != rec.RequestID {
				continue
			}
			_ = json.NewEncoder(w).Encode(rec)
		}
		w.(http.Flusher).Flush()
		if q.Get("follow") != "true" {
			return
		}
		select {
		case <-r.Context().Done():
			return
		case <-next:
		}
	}
}

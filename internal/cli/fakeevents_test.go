package cli_test

import (
	"encoding/json"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/casemate-dev/casemate/api"
	"github.com/casemate-dev/casemate/api/problem"
)

// What a fakeNode answers about events. Each handler notes what it was asked for.

func (n *fakeNode) eventRoutes() map[string]handler {
	const ns, fn = "/v1/namespaces/{ns}", "/v1/namespaces/{ns}/functions/{fn}/triggers/{trigger}"
	return map[string]handler{
		"GET " + ns + "/triggers":               n.triggers,
		"PUT " + fn:                             n.setTrigger,
		"POST " + fn + "/replays":               n.replay,
		"GET " + ns + "/replays":                func(*http.Request) (any, error) { return items(n.replays), nil },
		"DELETE " + ns + "/replays/{id}":        n.cancelReplay,
		"GET " + ns + "/events":                 n.listEvents,
		"GET " + ns + "/event":                  n.story,
		"POST " + ns + "/topics/{topic}/events": n.publish,
		"POST " + ns + "/events/purge":          n.purgeEvents,
		"GET " + ns + "/dead-letters":           n.listDead,
		"GET " + ns + "/dead-letters/{seq}":     n.getDead,
		"POST " + ns + "/dead-letters/retry":    n.retryDead,
		"POST " + ns + "/dead-letters/purge":    n.purgeDead,
		"GET " + ns + "/connections":            func(*http.Request) (any, error) { return items(n.connections), nil },
		"GET " + ns + "/connections/{name}":     n.getConnection,
		"PUT " + ns + "/connections/{name}":     n.putConnection,
		"DELETE " + ns + "/connections/{name}":  n.deleteConnection,
	}
}

func (n *fakeNode) trigger(fn string) api.TriggerStatus {
	lag := int64(12)
	t := api.TriggerStatus{
		Namespace: "default", Function: fn, Name: "paid", Kind: "amqp", Connection: "rabbit", Running: true, Paused: n.paused[fn+"/paid"],
		Waiting: 7, UnderWay: 2, Retrying: 4, OldestMillis: 90_000, Done: api.Tally{Total: 90, PerSecond: 1.5}, Dead: api.Tally{Total: 5},
		Source:    &api.SourceHealth{State: "running", Lag: &lag, Since: noon.Add(-time.Hour)},
		LastError: &api.TriggerError{Time: noon.Add(-time.Minute), Code: "function_timeout", Detail: "too slow"},
	}
	if n.failing {
		t.Source = &api.SourceHealth{State: "failing", Reason: "connection refused", Since: noon.Add(-time.Hour)}
	}
	return t
}

func (n *fakeNode) triggers(r *http.Request) (any, error) {
	fn := r.URL.Query().Get("function")
	if r.PathValue("ns") != "default" {
		return items([]api.TriggerStatus{}), nil
	}
	if fn == "" {
		fn = "billing"
	}
	return items([]api.TriggerStatus{n.trigger(fn)}), nil
}

func (n *fakeNode) setTrigger(r *http.Request) (any, error) {
	if r.PathValue("trigger") != "paid" {
		return nil, problem.New(problem.NotFound, "no trigger %s is in force", r.PathValue("trigger"))
	}
	if n.paused == nil {
		n.paused = map[string]bool{}
	}
	n.paused[r.PathValue("fn")+"/paid"] = decode[api.SetTrigger](r).Paused
	return n.trigger(r.PathValue("fn")), nil
}

func (n *fakeNode) replay(r *http.Request) (any, error) {
	in := decode[api.Replay](r)
	n.last = in
	j := api.ReplayJob{
		ID: "job-" + strconv.Itoa(len(n.replays)+1), Namespace: "default", Function: r.PathValue("fn"), Trigger: r.PathValue("trigger"),
		To: in.To, State: "running", Read: 10, Published: 3, Started: noon,
	}
	n.replays = append(n.replays, j)
	return j, nil
}

func (n *fakeNode) cancelReplay(r *http.Request) (any, error) {
	for i := range n.replays {
		if n.replays[i].ID == r.PathValue("id") {
			n.replays[i].State = "cancelled"
			return nil, nil
		}
	}
	return nil, problem.New(problem.NotFound, "there is no replay %s", r.PathValue("id"))
}

func (n *fakeNode) publish(r *http.Request) (any, error) {
	in := decode[api.Publish](r)
	n.last = in
	var out []api.Published
	for _, e := range in.Events {
		seq := uint64(len(n.events) + 1)
		if e.ID == "" {
			e.ID = "made-" + strconv.FormatUint(seq, 10)
		}
		p := api.Published{ID: e.ID, Sequence: seq}
		if i := slices.IndexFunc(n.events, func(o api.EventRecord) bool { return o.ID == e.ID }); i >= 0 {
			p.Sequence, p.Duplicate = n.events[i].Sequence, true
		} else {
			n.events = append(n.events, api.EventRecord{
				Sequence: seq, Stored: noon.Add(-time.Minute), Channel: "topic." + r.PathValue("topic"), Topic: r.PathValue("topic"), ID: e.ID,
				Source: "/namespaces/default/topics/" + r.PathValue("topic"), Type: e.Type, Subject: e.Subject, Principal: "key:fakenodekey0001",
				DataContentType: e.DataContentType, Extensions: e.Extensions, Size: int64(len(e.Data)), Data: e.Data,
			})
		}
		out = append(out, p)
	}
	return items(out), nil
}

func (n *fakeNode) listEvents(r *http.Request) (any, error) {
	n.last = r.URL.Query()
	out := api.EventList{Items: []api.EventRecord{}, Complete: true}
	for _, e := range slices.Backward(n.events) {
		e.Data = nil
		if topic := r.URL.Query().Get("topic"); topic == "" || topic == e.Topic {
			out.Items = append(out.Items, e)
		}
	}
	if r.URL.Query().Get("type") == "far" {
		searched := noon.Add(-48 * time.Hour)
		out = api.EventList{Items: []api.EventRecord{}, Searched: &searched, Damaged: true}
	}
	return out, nil
}

func (n *fakeNode) story(r *http.Request) (any, error) {
	q := r.URL.Query()
	n.last = q
	for _, e := range n.events {
		if e.ID != q.Get("id") && strconv.FormatUint(e.Sequence, 10) != q.Get("sequence") {
			continue
		}
		if q.Get("data") != "true" {
			e.Data = nil
		}
		rc := api.Receipt{ID: "rcpt-1", Function: "billing", Version: digest([]byte("v")), Event: e.ID, Source: "paid", Attempt: 1, Start: noon, WallMillis: 3, Status: 500, Outcome: "function_crashed"}
		again := rc
		again.ID, again.Attempt, again.Status, again.Outcome, again.Replay = "rcpt-2", 1, 200, "ok", true
		return api.EventStory{Event: e, Others: []uint64{99}, Deliveries: []api.EventDelivery{
			{Function: "billing", Trigger: "paid", State: "dead", Attempts: []api.Receipt{rc, again}, DeadLetters: n.dead, Replays: n.replays},
			{Function: "archive", State: "waiting", Complete: true},
		}}, nil
	}
	return nil, problem.New(problem.NotFound, "there is no such event that the key may see")
}

func (n *fakeNode) purgeEvents(r *http.Request) (any, error) {
	n.last = decode[api.PurgeEvents](r)
	return api.Purged{Purged: len(n.events)}, nil
}

func (n *fakeNode) listDead(r *http.Request) (any, error) {
	n.last = r.URL.Query()
	return api.DeadList{Items: append([]api.DeadLetter{}, n.dead...), Complete: len(n.dead) < 2}, nil
}

func (n *fakeNode) getDead(r *http.Request) (any, error) {
	n.last = r.URL.Query()
	for _, d := range n.dead {
		if strconv.FormatUint(d.Sequence, 10) == r.PathValue("seq") {
			return d, nil
		}
	}
	return nil, problem.New(problem.NotFound, "there is no dead letter %s that the key may see", r.PathValue("seq"))
}

func (n *fakeNode) retryDead(r *http.Request) (any, error) {
	n.last = decode[api.DeadSelector](r)
	return api.Retried{Retried: 3, Left: 1}, nil
}

func (n *fakeNode) purgeDead(r *http.Request) (any, error) {
	n.last = decode[api.DeadSelector](r)
	return api.Purged{Purged: 2}, nil
}

func (n *fakeNode) getConnection(r *http.Request) (any, error) {
	for _, c := range n.connections {
		if c.Name == r.PathValue("name") {
			return c, nil
		}
	}
	return nil, problem.New(problem.NotFound, "there is no connection %s", r.PathValue("name"))
}

func (n *fakeNode) putConnection(r *http.Request) (any, error) {
	in := decode[api.PutConnection](r)
	n.last = in
	c := api.Connection{Namespace: r.PathValue("ns"), Name: r.PathValue("name"), Kind: in.Kind, Settings: in.Settings, Files: in.Files, UsedBy: []string{"billing/paid"}, Created: noon, Creator: "key:fakenodekey0001"}
	for name := range in.Files {
		c.Secrets = append(c.Secrets, name)
	}
	n.connections = append(n.connections, c)
	return c, nil
}

func (n *fakeNode) deleteConnection(r *http.Request) (any, error) {
	if r.URL.Query().Get("inUse") != "true" {
		return nil, problem.New(problem.Conflict, "the connection is used by billing/paid")
	}
	n.connections = nil
	return nil, nil
}

func (n *fakeNode) streamEvents(w http.ResponseWriter, r *http.Request) {
	n.mu.Lock()
	events := slices.Clone(n.events)
	n.mu.Unlock()
	w.Header().Set("Content-Type", api.LogMediaType)
	for _, e := range events {
		e.Data = nil
		_ = json.NewEncoder(w).Encode(e)
	}
	_ = json.NewEncoder(w).Encode(map[string]any{"error": problem.Render(problem.New(problem.Draining, "the node is shutting down, so the stream ends here"), "req-0001")})
}

func (n *fakeNode) doctor(w http.ResponseWriter, r *http.Request) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.last = r.URL.Query()
	if err := n.refuses(r); err != nil {
		problem.Write(w, err, "req-0001")
		return
	}
	now := noon.Add(n.clock)
	els := []api.DoctorElement{
		{Time: &now},
		{Check: &api.DoctorCheck{Name: "disk", State: api.CheckWarn, Detail: "8 % free", Remedy: "Make room."}},
		{Progress: &api.DoctorProgress{Name: "stored events", Done: 4096, Of: 9000}},
		{Check: &api.DoctorCheck{Name: "stored events", State: api.CheckOK, Detail: "all 9000 are whole"}},
	}
	if n.failing {
		els = append(els, api.DoctorElement{Check: &api.DoctorCheck{Name: "source default/billing/paid", State: api.CheckFail, Detail: "failing: connection refused", Remedy: "Look at the far side."}})
	}
	w.Header().Set("Content-Type", api.LogMediaType)
	for _, el := range els {
		_ = json.NewEncoder(w).Encode(el)
	}
}

// deadLetters are what a script finds given up.
func deadLetters() []api.DeadLetter {
	first := noon.Add(-time.Hour)
	return []api.DeadLetter{
		{
			Sequence: 42, Namespace: "default", Function: "billing", Trigger: "paid", Reason: "attempts", Code: "function_timeout", Text: "too slow", Attempts: 5,
			Receipt: "rcpt-1", EventSequence: 1, Stored: first, First: &first, Last: &first, Died: noon,
			Event: &api.EventRecord{Sequence: 1, Stored: first, Function: "billing", Trigger: "paid", ID: "evt-1", Type: "order.created", Source: "/namespaces/default/topics/orders", Size: 8, Data: []byte(`{"id":7}`)},
		},
		{Sequence: 43, Namespace: "default", Webhook: "partner", Reason: "malformed", Stored: first, Died: noon},
	}
}

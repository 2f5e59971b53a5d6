package control

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/casemate-dev/casemate/api"
	"github.com/casemate-dev/casemate/api/problem"
	"github.com/casemate-dev/casemate/internal/delivery"
	"github.com/casemate-dev/casemate/internal/event"
	"github.com/casemate-dev/casemate/internal/function"
)

func TestTriggersAreShownAndPaused(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.deploy("default", "hello", "one", listening())
	r.deploy("default", "else", "one", api.FunctionConfig{Runtime: "go"})
	at := time.Unix(1000, 0).UTC()
	e := r.events
	e.status[paid] = delivery.Status{
		Key: paid, Running: true, Waiting: 7, UnderWay: 2, Retrying: 3, OldestAge: time.Minute, Done: delivery.Count{Total: 9, PerSecond: 1},
		LastError: delivery.LastError{Time: at, Code: "function_timeout", Detail: "slow"},
	}
	e.sources[paid] = SourceHealth{State: sourceFailing, Reason: "refused", Lag: 0, Since: at}
	theirs := delivery.Key{Namespace: "default", Function: "else", Trigger: "x"}
	e.status[theirs] = delivery.Status{Key: theirs}
	got, err := r.client("read-one-key").Triggers(t.Context(), "default", "")
	if err != nil || len(got) != 1 { // nothing of others', and nothing of invocations that nobody made
		t.Fatalf("got %+v, %v", got, err)
	}
	s := got[0]
	if s.Name != "paid" || s.Kind != "amqp" || s.Connection != "rabbit" || s.Waiting != 7 || s.OldestMillis != 60_000 || s.Done.Total != 9 ||
		s.LastError.Code != "function_timeout" || s.Source.State != sourceFailing || s.Source.Reason != "refused" || *s.Source.Lag != 0 || !s.Source.Since.Equal(at) {
		t.Errorf("got %+v", s)
	}
	f, err := r.client(adminSecret).Function(t.Context(), "default", "hello")
	if err != nil || len(f.Triggers) != 1 {
		t.Errorf("described: %+v, %v", f, err)
	}
	st, err := r.client("read-one-key").Status(t.Context())
	if err != nil || st.Events == nil || *st.Events != (api.EventCounts{Triggers: 2, SourcesFailing: 1, Waiting: 7, UnderWay: 2, Retrying: 3, Done: 9}) {
		t.Errorf("status: %+v, %v", st.Events, err)
	}
	c := r.client("work-fn-key")
	for _, trigger := range []string{"paid", ""} {
		if st, err := c.SetTrigger(t.Context(), "default", "hello", trigger, api.SetTrigger{Paused: true}); err != nil || !st.Paused || st.Name != trigger {
			t.Fatalf("pausing %q: %+v, %v", trigger, st, err)
		}
	}
	if st, err := c.SetTrigger(t.Context(), "default", "hello", "paid", api.SetTrigger{}); err != nil || st.Paused {
		t.Fatalf("resuming: %+v, %v", st, err)
	}
	if got, err = c.Triggers(t.Context(), "default", "hello"); err != nil || len(got) != 2 || got[0].Kind != kindAsync || !got[0].Paused {
		t.Errorf("got %+v, %v", got, err)
	}
	_, err = c.SetTrigger(t.Context(), "default", "hello", "mistyped", api.SetTrigger{Paused: true})
	refused(t, err, problem.NotFound)
	_, err = c.SetTrigger(t.Context(), "default", "hello", "a.b", api.SetTrigger{Paused: true})
	refused(t, err, problem.BadRequest)
	_, err = r.client("read-one-key").SetTrigger(t.Context(), "default", "hello", "paid", api.SetTrigger{Paused: true})
	refused(t, err, problem.Forbidden)
	for _, action := range []string{"trigger.pause", "trigger.resume"} {
		if !strings.Contains(r.log.String(), `"action":"`+action+`","object":"default/hello/paid","outcome":"ok"`) {
			t.Errorf("%s is not in the audit log", action)
		}
	}
	_, err = r.client(adminSecret).Triggers(t.Context(), "default", "nobody")
	refused(t, err, problem.NotFound)
}

// A deployer without the scope for a connection must not have the node use it for them:
// not by deploying, not by pointing an alias at a version of somebody else's that uses
// it, and not by rolling back to one.
func TestAConfusedDeputyUsesNoConnection(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	ctx := t.Context()
	r.deploy("default", "hello", "one", hello("A", "zero"))
	with := r.deploy("default", "hello", "one", listening()).Functions[0].Version
	without := r.deploy("default", "hello", "one", hello("A", "b")).Functions[0].Version
	stranger, entitled := r.client("deploy-fn-key"), r.client("connector-key")
	specs := []api.FunctionSpec{{Name: "hello", Artifact: string(function.DigestOf([]byte("one"))), Config: listening()}}
	live := func() string {
		t.Helper()
		f, err := r.registry.Function(function.Ref{Namespace: "default", Name: "hello"})
		if err != nil {
			t.Fatal(err)
		}
		return string(f.Live.ID)
	}
	plan, err := r.client(adminSecret).Plan(ctx, "default", api.PlanRequest{Functions: specs})
	if err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		field string
		try   func() error
	}{
		"plan": {"functions.hello.triggers.paid.connection", func() error {
			_, err := stranger.Plan(ctx, "default", api.PlanRequest{Functions: specs})
			return err
		}},
		"apply": {"functions.hello.triggers.paid.connection", func() error {
			_, err := stranger.Apply(ctx, "default", api.ApplyRequest{Plan: *plan, Functions: specs})
			return err
		}},
		"alias": {"targets[0].version.triggers.paid.connection", func() error {
			_, err := stranger.SetAlias(ctx, "default", "hello", "live", api.SetAlias{Targets: []api.Weight{{Version: with, Percent: 100}}})
			return err
		}},
		"a share of the alias": {"targets[1].version.triggers.paid.connection", func() error {
			_, err := stranger.SetAlias(ctx, "default", "hello", "live", api.SetAlias{Targets: []api.Weight{{Version: without, Percent: 99}, {Version: with, Percent: 1}}})
			return err
		}},
		"rollback to a version": {"version.triggers.paid.connection", func() error {
			_, err := stranger.Rollback(ctx, "default", "hello", api.Rollback{To: with[:20]})
			return err
		}},
		"rollback": {"version.triggers.paid.connection", func() error {
			_, err := stranger.Rollback(ctx, "default", "hello", api.Rollback{})
			return err
		}},
	} {
		if e := refused(t, tt.try(), problem.InvalidManifest); e.Field != tt.field {
			t.Errorf("%s: field %q", name, e.Field)
		}
		if live() != without {
			t.Fatalf("%s: live has moved", name)
		}
	}
	a, err := entitled.Rollback(ctx, "default", "hello", api.Rollback{})
	if err != nil || live() != with || a.History[0].Why != "rollback" {
		t.Fatalf("the entitled: %+v, %v", a, err)
	}
	if _, err := entitled.Apply(ctx, "default", api.ApplyRequest{Plan: *plan, Functions: specs}); !api.HasCode(err, problem.PlanStale) {
		t.Errorf("the entitled: %v", err)
	}
}

// Rolling back goes where it did, now that the place is found out beforehand.
func TestRollbackToAWeightedPosition(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	ctx, c := t.Context(), r.client(adminSecret)
	one := r.deploy("default", "hello", "one", hello("A", "1")).Functions[0].Version
	_, err := c.Rollback(ctx, "default", "hello", api.Rollback{})
	refused(t, err, problem.Conflict)
	_, err = c.Rollback(ctx, "default", "hello", api.Rollback{Alias: "beta"})
	refused(t, err, problem.NotFound)
	two := r.deploy("default", "hello", "one", hello("A", "2")).Functions[0].Version
	if _, err := c.SetAlias(ctx, "default", "hello", "live", api.SetAlias{Targets: []api.Weight{{Version: two, Percent: 90}, {Version: one, Percent: 10}}}); err != nil {
		t.Fatal(err)
	}
	r.deploy("default", "hello", "one", hello("A", "3"))
	a, err := c.Rollback(ctx, "default", "hello", api.Rollback{})
	if err != nil || len(a.Targets) != 2 || a.Targets[0] != (api.Weight{Version: two, Percent: 90}) || a.Targets[1] != (api.Weight{Version: one, Percent: 10}) {
		t.Errorf("got %+v, %v", a, err)
	}
}

func TestReplays(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	v := r.deploy("default", "hello", "one", listening()).Functions[0].Version
	c, ctx := r.client("work-fn-key"), t.Context()
	since := time.Unix(1000, 0).UTC()
	j, err := c.Replay(ctx, "default", "hello", "paid", api.Replay{IDs: []string{"a"}, Since: &since, Filter: json.RawMessage(`{"exact":{}}`), To: v[:20]})
	if err != nil || j.To != v || j.Trigger != "paid" || !j.Since.Equal(since) || string(j.Filter) != `{"exact":{}}` || !slices.Equal(j.IDs, []string{"a"}) || j.Until != nil {
		t.Fatalf("got %+v, %v", j, err)
	}
	if j, err = c.Replay(ctx, "default", "hello", "", api.Replay{To: "live"}); err != nil || j.To != "live" || j.Trigger != "" {
		t.Fatalf("got %+v, %v", j, err)
	}
	_, err = c.Replay(ctx, "default", "hello", "paid", api.Replay{To: "beta"})
	if e := refused(t, err, problem.NotFound); e.Field != "to" {
		t.Errorf("refusal: %+v", e)
	}
	r.events.jobs = append(r.events.jobs, delivery.Job{ID: "theirs", Selector: delivery.Selector{Key: delivery.Key{Namespace: "default", Function: "else"}}, State: delivery.JobRunning})
	jobs, err := c.Replays(ctx, "default")
	if err != nil || len(jobs) != 2 {
		t.Fatalf("got %+v, %v", jobs, err)
	}
	refused(t, c.CancelReplay(ctx, "default", "theirs"), problem.NotFound)
	refused(t, r.client(adminSecret).CancelReplay(ctx, "shop", "job-1"), problem.NotFound)
	if err := c.CancelReplay(ctx, "default", "job-1"); err != nil || r.events.jobs[0].State != delivery.JobCancelled || r.events.jobs[2].State != delivery.JobRunning {
		t.Errorf("%v: %+v", err, r.events.jobs)
	}
	for _, line := range []string{`"action":"events.replay","object":"default/hello/paid","outcome":"ok"`, `"action":"replay.cancel","object":"default/job-1","outcome":"ok"`} {
		if !strings.Contains(r.log.String(), line) {
			t.Errorf("the audit log lacks %s", line)
		}
	}
}

func TestDeadLettersAreSettledByThoseWhoMay(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.deploy("default", "hello", "one", listening())
	e, ctx := r.events, t.Context()
	theirs, hook := delivery.Key{Namespace: "default", Function: "else", Trigger: "x"}, delivery.Key{Namespace: "default", Trigger: "partner"}
	e.status[theirs] = delivery.Status{Key: theirs}
	m := &event.Message{Event: event.Event{ID: "evt", Type: "t"}, Data: []byte("hunter2"), Detail: map[string]string{"header.authorization": "hunter2"}}
	mine := e.bury(paid, delivery.ReasonAttempts, 1, m)
	other := e.bury(theirs, delivery.ReasonAge, 2, m)
	sent := e.bury(hook, delivery.ReasonAttempts, 3, m)
	broken := e.bury(paid, delivery.ReasonMalformed, 4, nil)
	c := r.client("work-fn-key")

	l, err := c.DeadLetters(ctx, "default", api.DeadQuery{})
	if err != nil || len(l.Items) != 2 || l.Items[0].Sequence != broken || l.Items[1].Sequence != mine || !l.Complete {
		t.Fatalf("got %+v, %v", l, err)
	}
	if b, _ := json.Marshal(l); strings.Contains(string(b), "hunter2") || strings.Contains(string(b), "aHVudGVy") {
		t.Errorf("data is shown: %s", b)
	}
	if l, err = r.client("reader-key").DeadLetters(ctx, "default", api.DeadQuery{Webhook: "partner"}); err != nil || len(l.Items) != 1 || l.Items[0].Webhook != "partner" {
		t.Errorf("got %+v, %v", l, err)
	}
	if l, err = c.DeadLetters(ctx, "default", api.DeadQuery{Function: "hello", Limit: 1}); err != nil || len(l.Items) != 1 || l.Complete {
		t.Errorf("got %+v, %v", l, err)
	}
	_, err = c.DeadLetters(ctx, "default", api.DeadQuery{Webhook: "partner"})
	refused(t, err, problem.Forbidden)
	if d, err := c.DeadLetter(ctx, "default", mine, true); err != nil || string(d.Event.Data) != "hunter2" {
		t.Errorf("got %+v, %v", d, err)
	}
	if d, err := r.client("read-one-key").DeadLetter(ctx, "default", mine, false); err != nil || d.Event.Data != nil || d.Event.Detail != nil {
		t.Errorf("got %+v, %v", d, err)
	}
	_, err = r.client("read-one-key").DeadLetter(ctx, "default", mine, true)
	refused(t, err, problem.Forbidden)
	for _, seq := range []uint64{other, sent, 99, 0} {
		_, err := c.DeadLetter(ctx, "default", seq, false)
		refused(t, err, problem.NotFound)
		_, err = c.RetryDead(ctx, "default", api.DeadSelector{Sequences: []uint64{mine, seq}})
		if e := refused(t, err, problem.NotFound); e.Field != "sequences[1]" {
			t.Errorf("%d: %+v", seq, e)
		}
		_, err = c.PurgeDead(ctx, "default", api.DeadSelector{Sequences: []uint64{seq}})
		refused(t, err, problem.NotFound)
	}
	_, err = r.client(adminSecret).RetryDead(ctx, "shop", api.DeadSelector{Sequences: []uint64{mine}})
	refused(t, err, problem.NotFound)
	for name, in := range map[string]api.DeadSelector{
		"nothing":                      {},
		"a reason alone":               {Reason: "age"},
		"sequences and more":           {Sequences: []uint64{mine}, Reason: "age"},
		"too many":                     {Sequences: make([]uint64, maxDeadSelected+1)},
		"a trigger without a function": {Trigger: "paid"},
	} {
		_, err := r.client(adminSecret).PurgeDead(ctx, "default", in)
		t.Run(name, func(t *testing.T) { refused(t, err, problem.BadRequest) })
	}
	if len(e.settled) > 0 {
		t.Fatalf("a refused operation has settled %v", e.settled)
	}
	if done, err := c.RetryDead(ctx, "default", api.DeadSelector{Sequences: []uint64{mine}}); err != nil || done.Retried != 1 || done.Left != 1 {
		t.Errorf("got %+v, %v", done, err)
	}
	if done, err := c.PurgeDead(ctx, "default", api.DeadSelector{Function: "hello", Reason: "malformed"}); err != nil || done.Purged != 1 {
		t.Errorf("got %+v, %v", done, err)
	}
	if done, err := r.client(adminSecret).PurgeDead(ctx, "default", api.DeadSelector{Webhook: "partner"}); err != nil || done.Purged != 1 {
		t.Errorf("got %+v, %v", done, err)
	}
	if want := []string{"retry 1", "purge 4", "purge 3"}; !slices.Equal(e.settled, want) {
		t.Errorf("settled %v, want %v", e.settled, want)
	}
	for _, line := range []string{`"action":"dead-letters.retry","object":"default/hello/paid","outcome":"ok"`, `"action":"dead-letters.purge","object":"default webhook partner","outcome":"ok"`} {
		if !strings.Contains(r.log.String(), line) {
			t.Errorf("the audit log lacks %s", line)
		}
	}
}

func TestConnectionsHideWhereCredentialsLie(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.deploy("default", "hello", "one", listening())
	admin, ctx := r.client(adminSecret), t.Context()
	secret := filepath.Join(t.TempDir(), "planted-path")
	if err := os.WriteFile(secret, []byte("hunter2"), 0o600); err != nil {
		t.Fatal(err)
	}
	in := api.PutConnection{Kind: "amqp", Settings: json.RawMessage(`{"url":"amqps://mq"}`), Files: map[string]string{"password": secret}}
	n, err := admin.PutConnection(ctx, "default", "rabbit", in)
	if err != nil || n.Files["password"] != secret || n.Creator != "key:admin" || !slices.Equal(n.UsedBy, []string{"hello/paid"}) {
		t.Fatalf("got %+v, %v", n, err)
	}
	if _, err := admin.PutConnection(ctx, "default", "other", api.PutConnection{Kind: "amqp"}); err != nil {
		t.Fatal(err)
	}
	for key, want := range map[string]int{adminSecret: 2, "reader-key": 2, "connector-key": 1} {
		l, err := r.client(key).Connections(ctx, "default")
		if err != nil || len(l) != want {
			t.Errorf("%s: got %+v, %v", key, l, err)
		}
		one, err := r.client(key).Connection(ctx, "default", "rabbit")
		if err != nil || !slices.Equal(one.Secrets, []string{"password"}) || (one.Files != nil) != (key == adminSecret) {
			t.Errorf("%s: got %+v, %v", key, one, err)
		}
		if b, _ := json.Marshal([]any{l, one}); strings.Contains(string(b), "hunter2") || key != adminSecret && strings.Contains(string(b), "planted-path") {
			t.Errorf("%s sees where credentials lie: %s", key, b)
		}
	}
	for _, key := range []string{"read-one-key", "work-fn-key"} {
		_, err := r.client(key).Connections(ctx, "default")
		refused(t, err, problem.Forbidden)
	}
	_, err = r.client("connector-key").Connection(ctx, "default", "other")
	refused(t, err, problem.NotFound)
	for name, tt := range map[string]struct {
		in    api.PutConnection
		field string
	}{
		"a credential in the settings": {api.PutConnection{Kind: "amqp", Settings: json.RawMessage(`{"password":"hunter2"}`)}, "settings.password"},
		"a kind that is none":          {api.PutConnection{Kind: "smoke"}, "kind"},
		"a file that is not there":     {api.PutConnection{Kind: "amqp", Files: map[string]string{"password": "/nowhere"}}, "files.password"},
		"a path that is not absolute":  {api.PutConnection{Kind: "amqp", Files: map[string]string{"password": "hunter2"}}, "files.password"},
	} {
		_, err := admin.PutConnection(ctx, "default", "bad", tt.in)
		if e := refused(t, err, problem.BadRequest); e.Field != tt.field || e.Remedy == "" || strings.Contains(e.Error(), "hunter2") {
			t.Errorf("%s: %+v", name, e.Details)
		}
	}
	for _, key := range []string{"connector-key", "work-fn-key", "reader-key"} {
		_, err := r.client(key).PutConnection(ctx, "default", "rabbit", in)
		refused(t, err, problem.Forbidden)
		refused(t, r.client(key).DeleteConnection(ctx, "default", "rabbit", true), problem.Forbidden)
	}
	if e := refused(t, admin.DeleteConnection(ctx, "default", "rabbit", false), problem.Conflict); !strings.Contains(e.Detail, "hello/paid") {
		t.Errorf("refusal: %+v", e)
	}
	if err := errors.Join(admin.DeleteConnection(ctx, "default", "other", false), admin.DeleteConnection(ctx, "default", "rabbit", true)); err != nil {
		t.Error(err)
	}
	refused(t, admin.DeleteConnection(ctx, "default", "rabbit", false), problem.Conflict) // a trigger still names it
	refused(t, admin.DeleteConnection(ctx, "default", "other", false), problem.NotFound)
	log := r.log.String()
	for _, line := range []string{`"action":"connection.put","object":"default/rabbit","outcome":"ok"`, `"action":"connection.delete","object":"default/rabbit","outcome":"ok"`} {
		if !strings.Contains(log, line) {
			t.Errorf("the audit log lacks %s", line)
		}
	}
	if strings.Contains(log, "hunter2") {
		t.Error("a credential is in the log")
	}
}

// diagnosis runs the examination and gives its checks by their names.
func diagnosis(t *testing.T, r *rig, quick bool) (checks map[string]api.DoctorCheck, progress int) {
	t.Helper()
	checks = map[string]api.DoctorCheck{}
	timed := false
	for el, err := range r.client(adminSecret).Doctor(t.Context(), quick) {
		if err != nil {
			t.Fatal(err)
		}
		timed = timed || el.Time != nil
		if el.Progress != nil {
			progress++
		}
		if el.Check != nil {
			checks[el.Check.Name] = *el.Check
			if el.Check.State != api.CheckOK && el.Check.Remedy == "" && el.Check.Name != "warning" {
				t.Errorf("no remedy: %+v", *el.Check)
			}
		}
	}
	if !timed {
		t.Error("the node's time is missing")
	}
	return checks, progress
}

func TestDoctorFindsWhatIsWrong(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.deploy("default", "hello", "one", listening())
	e, ctx := r.events, t.Context()
	checks, _ := diagnosis(t, r, false)
	for _, name := range []string{"node", "disk", "bus", "sources", "triggers", "connections", "stored events", "stored dead letters"} {
		if c := checks[name]; c.State != api.CheckOK {
			t.Errorf("%s: %+v", name, c)
		}
	}
	if len(checks) != 8 {
		t.Errorf("a healthy node: %+v", checks)
	}
	if checks, _ = diagnosis(t, r, true); len(checks) != 6 {
		t.Errorf("quick: %+v", checks)
	}

	secret := filepath.Join(t.TempDir(), "s")
	if err := os.WriteFile(secret, []byte("hunter2"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := r.client(adminSecret).PutConnection(ctx, "default", "rabbit", api.PutConnection{Kind: "amqp", Files: map[string]string{"password": secret}}); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(secret, 0o644); err != nil {
		t.Fatal(err)
	}
	loud := delivery.Key{Namespace: "default", Function: "hello", Trigger: "loud"}
	e.status[paid] = delivery.Status{Key: paid, Paused: true, Waiting: 4, Dead: delivery.Count{Total: 9, PerSecond: 1}}
	e.status[async] = delivery.Status{Key: async, OldestAge: 2 * time.Hour}
	e.sources[paid] = SourceHealth{State: sourceFailing, Reason: "connection refused"}
	e.sources[loud] = SourceHealth{State: sourceAlert, Reason: "the slot lags"}
	e.status[loud] = delivery.Status{Key: loud, Held: true}
	e.free, e.stream.lost, e.unsound = 1<<30, 3, errors.New(planted)
	checks, _ = diagnosis(t, r, false)
	for name, want := range map[string]struct{ state, detail string }{
		"disk":                       {api.CheckFail, "1 % free"},
		"bus":                        {api.CheckFail, "damaged"},
		"source default/hello/paid":  {api.CheckFail, "connection refused"},
		"source default/hello/loud":  {api.CheckWarn, "the slot lags"},
		"trigger default/hello/paid": {api.CheckWarn, "paused, and 4 events wait"},
		"trigger default/hello":      {api.CheckWarn, "2h0m0s old"},
		"trigger default/hello/loud": {api.CheckWarn, "turned away"},
		"connection default/rabbit":  {api.CheckFail, "password"},
		"stored events":              {api.CheckFail, "3 are missing"},
		"stored dead letters":        {api.CheckOK, "none is missing"},
	} {
		if c := checks[name]; c.State != want.state || !strings.Contains(c.Detail, want.detail) {
			t.Errorf("%s: %+v", name, c)
		}
	}
	for name, c := range checks {
		if strings.Contains(c.Detail+c.Remedy, "planted") || strings.Contains(c.Detail, "hunter2") {
			t.Errorf("%s shows internal text: %+v", name, c)
		}
	}
	e.fail(errors.New(planted))
	checks, _ = diagnosis(t, r, false)
	for _, name := range []string{"disk", "stored events", "stored dead letters", "trigger default/hello/paid"} {
		if c := checks[name]; c.State != api.CheckFail || !strings.Contains(c.Detail, "could not be checked") {
			t.Errorf("%s: %+v", name, c)
		}
	}
}

func TestOneExaminationAtATime(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.handler.examining.Lock()
	defer r.handler.examining.Unlock()
	for _, err := range r.client(adminSecret).Doctor(t.Context(), true) {
		refused(t, err, problem.Conflict)
	}
	for _, err := range r.client("reader-key").Doctor(t.Context(), true) {
		refused(t, err, problem.Forbidden)
	}
}

// A node without events says so, and takes no triggers.
func TestWithoutEvents(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.handler.cfg.Events, r.handler.cfg.CheckTriggers = nil, nil
	c, ctx := r.client(adminSecret), t.Context()
	d := string(function.DigestOf([]byte("one")))
	_, err := c.Plan(ctx, "default", api.PlanRequest{Functions: []api.FunctionSpec{{Name: "hello", Artifact: d, Config: listening()}}})
	refused(t, err, problem.NotImplemented)
	r.deploy("default", "hello", "one", hello())
	for _, s := range samples() {
		if !strings.Contains(s.path, "trigger") && !strings.Contains(s.path, "event") && !strings.Contains(s.path, "dead-") && !strings.Contains(s.path, "connection") && !strings.Contains(s.path, "replays") {
			continue
		}
		if resp, body := r.raw(s.method, s.path, adminSecret, s.media, s.body); resp.StatusCode != 501 {
			t.Errorf("%s %s: %d %s", s.method, s.path, resp.StatusCode, body)
		}
	}
	if st, err := c.Status(ctx); err != nil || st.Events != nil {
		t.Errorf("status: %+v, %v", st, err)
	}
	if f, err := c.Function(ctx, "default", "hello"); err != nil || f.Triggers != nil {
		t.Errorf("function: %+v, %v", f, err)
	}
	if checks, _ := diagnosis(t, r, false); checks["events"].State != api.CheckOK {
		t.Errorf("doctor: %+v", checks)
	}
}

func TestAnEventsConfigWithAHoleDies(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	cfg := r.handler.cfg
	bad := *cfg.Events
	bad.Publish = nil
	cfg.Events = &bad
	if _, err := New(cfg); err == nil || !strings.Contains(err.Error(), "Config.Events.Publish") {
		t.Errorf("got %v", err)
	}
}

package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/casemate-dev/casemate/api"
	"github.com/casemate-dev/casemate/api/problem"
	"github.com/casemate-dev/casemate/internal/audit"
	"github.com/casemate-dev/casemate/internal/delivery"
	"github.com/casemate-dev/casemate/internal/event"
)

// listening is a function with a queue and a topic.
func listening() api.FunctionConfig {
	c := hello()
	c.Triggers = []api.Trigger{
		{Name: "paid", Kind: "amqp", Connection: "rabbit", Settings: json.RawMessage(`{"queue":"paid"}`), NoSchema: "it is a test"},
		{Name: "orders", Kind: "topic", Settings: json.RawMessage(`{"topic":"orders"}`), NoSchema: "it is a test"},
	}
	return c
}

func idsOf(l *api.EventList) (out []string) {
	for _, e := range l.Items {
		out = append(out, e.ID)
	}
	return out
}

func TestEventsAreListedForThoseWhoMayReadThem(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.deploy("default", "hello", "one", listening())
	now := time.Now()
	for _, e := range []struct{ ns, channel, id, kind string }{
		{"default", "trigger.hello.paid", "p1", "order.paid"},
		{"default", "topic.orders", "o1", "order.created"},
		{"default", "topic.other", "x1", "order.created"},
		{"default", "async.hello", "a1", "casemate.function.invoke"},
		{"default", "trigger.else.paid", "e1", "order.paid"},
		{"default", "replay.hello.paid", "side1", "order.paid"},
		{"default", "retry.hello.paid", "side2", "order.paid"},
		{"shop", "trigger.hello.paid", "s1", "order.paid"},
		{"default", "trigger.hello.paid", "p2", "order.refused"},
	} {
		now = now.Add(time.Millisecond)
		r.events.store(e.ns, e.channel, e.id, e.kind, now.Add(-time.Minute))
	}
	r.events.stream.add("default", "async.hello", "broken", now.Add(-30*time.Second), []byte("no event"))
	for _, tt := range []struct {
		name, key string
		q         api.EventQuery
		want      string
	}{
		{"all", adminSecret, api.EventQuery{}, "broken p2 e1 a1 x1 o1 p1"},
		{"the whole namespace may be read", "reader-key", api.EventQuery{}, "broken p2 e1 a1 x1 o1 p1"},
		{"one function may be read, and topics are nobody's", "read-one-key", api.EventQuery{}, "broken p2 a1 p1"},
		{"a function and its topics", adminSecret, api.EventQuery{Function: "hello"}, "broken p2 a1 o1 p1"},
		{"a function without its topics", "read-one-key", api.EventQuery{Function: "hello"}, "broken p2 a1 p1"},
		{"a trigger", "read-one-key", api.EventQuery{Function: "hello", Trigger: "paid"}, "p2 p1"},
		{"a trigger that gets a topic", adminSecret, api.EventQuery{Function: "hello", Trigger: "orders"}, "o1"},
		{"asynchronous invocations", "read-one-key", api.EventQuery{Function: "hello", Trigger: api.AsyncTrigger}, "broken a1"},
		{"a topic", adminSecret, api.EventQuery{Topic: "orders"}, "o1"},
		{"a type", adminSecret, api.EventQuery{Type: "order.paid"}, "e1 p1"},
		{"types", adminSecret, api.EventQuery{Type: "order.*"}, "p2 e1 x1 o1 p1"},
		{"an id, not a part of one", adminSecret, api.EventQuery{ID: "p1"}, "p1"},
		{"no id", adminSecret, api.EventQuery{ID: "p"}, ""},
		{"a limit", adminSecret, api.EventQuery{Limit: 2}, "broken p2"},
		{"since", adminSecret, api.EventQuery{Since: now.Add(-40 * time.Second)}, "broken"},
		{"until", adminSecret, api.EventQuery{Until: now.Add(-40 * time.Second), Limit: 1}, "p2"},
	} {
		l, err := r.client(tt.key).Events(t.Context(), "default", tt.q)
		if err != nil {
			t.Fatalf("%s: %v", tt.name, err)
		}
		if got := strings.Join(idsOf(l), " "); got != tt.want {
			t.Errorf("%s: got %q, want %q", tt.name, got, tt.want)
		}
		if complete := tt.q.Limit == 0; l.Complete != complete {
			t.Errorf("%s: complete is %v", tt.name, l.Complete)
		}
		if b, _ := json.Marshal(l); strings.Contains(string(b), "hunter2") || strings.Contains(string(b), "dGhlLWRhdGE") {
			t.Errorf("%s: data is shown: %s", tt.name, b)
		}
		if l.Damaged || slices.ContainsFunc(l.Items, func(e api.EventRecord) bool { return e.Unreadable != (e.ID == "broken") }) {
			t.Errorf("%s: %+v", tt.name, l)
		}
	}
	for name, tt := range map[string]struct {
		key  string
		q    api.EventQuery
		code problem.Code
	}{
		"a topic":                      {"read-one-key", api.EventQuery{Topic: "orders"}, problem.Forbidden},
		"a topic by way of a trigger":  {"read-one-key", api.EventQuery{Function: "hello", Trigger: "orders"}, problem.Forbidden},
		"another function":             {"read-one-key", api.EventQuery{Function: "else"}, problem.Forbidden},
		"another namespace's topic":    {"wrong-ns-key", api.EventQuery{Topic: "orders"}, problem.Forbidden},
		"a topic that is none":         {adminSecret, api.EventQuery{Topic: "or.>"}, problem.BadRequest},
		"a trigger without a function": {adminSecret, api.EventQuery{Trigger: "paid"}, problem.BadRequest},
		"a trigger that is none":       {adminSecret, api.EventQuery{Function: "hello", Trigger: "a.b"}, problem.BadRequest},
		"both":                         {adminSecret, api.EventQuery{Function: "hello", Topic: "orders"}, problem.BadRequest},
		"a range that is none":         {adminSecret, api.EventQuery{Since: now, Until: now.Add(-time.Hour)}, problem.BadRequest},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := r.client(tt.key).Events(t.Context(), "default", tt.q)
			refused(t, err, tt.code)
		})
	}
	r.events.stream.corrupt = true
	if l, err := r.client(adminSecret).Events(t.Context(), "default", api.EventQuery{}); err != nil || !l.Damaged || len(l.Items) != 7 {
		t.Errorf("damage: %+v, %v", l, err)
	}
}

// A search finds what reading everything would find, at whatever ages the events are.
func TestSearchFindsTheNewest(t *testing.T) {
	t.Parallel()
	now := time.Date(2030, 1, 2, 12, 0, 0, 0, time.UTC)
	for seed := range uint64(200) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		var s fakeStream
		ages := make([]time.Duration, rnd.IntN(60))
		for i := range ages {
			ages[i] = time.Duration(rnd.ExpFloat64() * float64([]time.Duration{time.Millisecond, time.Second, time.Hour, 200 * time.Hour}[rnd.IntN(4)]))
		}
		slices.Sort(ages)
		slices.Reverse(ages)
		for i, a := range ages {
			s.add("default", "async.hello", fmt.Sprint(i), now.Add(-a), nil)
		}
		q := search[uint64]{stream: &s, ns: "default", limit: 1 + rnd.IntN(20), match: func(r *delivery.Record) (*uint64, bool) { return &r.Sequence, r.Sequence%3 != 0 }}
		if rnd.IntN(2) == 0 {
			q.since = now.Add(-time.Duration(rnd.Int64N(int64(100 * time.Hour))))
		}
		if rnd.IntN(2) == 0 {
			q.until = now.Add(-time.Duration(rnd.Int64N(int64(50 * time.Hour))))
		}
		var want []uint64
		for _, r := range slices.Backward(s.records) {
			if r.Sequence%3 != 0 && !r.Time.Before(q.since) && (q.until.IsZero() || r.Time.Before(q.until)) {
				want = append(want, r.Sequence)
			}
		}
		all := len(want)
		want = want[:min(all, q.limit)]
		if err := q.run(t.Context(), now); err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(q.found, want) || q.complete && all > q.limit || !q.complete && all < q.limit {
			t.Fatalf("seed %d: got %v (complete: %v), want %v of %d", seed, q.found, q.complete, want, all)
		}
	}
}

func TestTheStoryOfAnEvent(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.deploy("default", "hello", "one", listening())
	at := time.Now().Add(-time.Hour)
	seq := r.events.store("default", "trigger.hello.paid", "evt", "order.paid", at)
	r.events.store("default", "trigger.else.paid", "theirs", "order.paid", at)
	topic := r.events.store("default", "topic.orders", "tvt", "order.created", at)
	side := r.events.store("default", "replay.hello.paid", "evt", "order.paid", at)
	for i, rc := range []audit.Receipt{
		{ID: "r1", Event: "evt", Source: "paid", Attempt: 1, Status: 500, Outcome: "function_crashed"},
		{ID: "r2", Event: "evt", Source: "other", Attempt: 1, Status: 200, Outcome: "ok"},
		{ID: "r3", Event: "another", Source: "paid", Attempt: 1, Status: 200, Outcome: "ok"},
		{ID: "r4", Event: fmt.Sprintf("replay.job-1.%d", seq), Source: "paid", Attempt: 1, Replay: true, Status: 200, Outcome: "ok"},
		{ID: "r5", Event: "first", Events: 2, Members: "first\nevt", Source: "paid", Attempt: 2, Status: 500, Outcome: "function_crashed"},
		{ID: "others", Event: "first", Events: 2, Members: "first\nevt2", Source: "paid", Attempt: 2, Status: 200, Outcome: "ok"},
		{ID: "forged", Event: fmt.Sprintf("replay.job-2.%d", seq), Source: "paid", Attempt: 1, Status: 200, Outcome: "ok"},
	} {
		rc.Namespace, rc.Function, rc.Start = "default", "hello", at.Add(time.Duration(i)*time.Minute)
		r.recorder.receipts[rc.ID] = rc
	}
	dead := r.events.bury(paid, delivery.ReasonAttempts, seq, &event.Message{Event: event.Event{ID: "evt"}, Data: []byte("hunter2")})
	r.events.bury(paid, delivery.ReasonAttempts, 999, &event.Message{Event: event.Event{ID: "another"}})
	r.events.jobs = []delivery.Job{{ID: "job-1", Selector: delivery.Selector{Key: paid}, Started: at}, {ID: "job-9", Selector: delivery.Selector{Key: paid}, Started: at}}

	c, ctx := r.client("work-fn-key"), t.Context()
	s, err := c.Event(ctx, "default", "evt", 0, false)
	if err != nil || len(s.Deliveries) != 1 {
		t.Fatalf("got %+v, %v", s, err)
	}
	d := s.Deliveries[0]
	var attempts []string
	for _, a := range d.Attempts {
		attempts = append(attempts, a.ID)
	}
	slices.Sort(attempts) // the fake has no order
	if !slices.Equal(attempts, []string{"r1", "r4", "r5"}) || d.State != stateDead || !d.Complete || d.Function != "hello" || d.Trigger != "paid" {
		t.Errorf("delivery: %+v", d)
	}
	if len(d.DeadLetters) != 1 || d.DeadLetters[0].Sequence != dead || len(d.Replays) != 1 || d.Replays[0].ID != "job-1" {
		t.Errorf("dead letters and replays: %+v", d)
	}
	if s.Event.Sequence != seq || s.Event.Principal != "key:someone" || s.Event.Data != nil || s.Event.Detail != nil || d.DeadLetters[0].Event.Data != nil {
		t.Errorf("event: %+v", s.Event)
	}
	if s, err = c.Event(ctx, "default", "", seq, true); err != nil || string(s.Event.Data) != "the-data-of-evt" || s.Event.Detail["header.authorization"] != "hunter2" {
		t.Errorf("with data: %+v, %v", s, err)
	}
	_, err = r.client("read-one-key").Event(ctx, "default", "evt", 0, true)
	if e := refused(t, err, problem.Forbidden); !strings.Contains(e.Detail, "deploy:default/hello") {
		t.Errorf("refusal: %+v", e.Details)
	}
	for name, get := range map[string]func() error{
		"another function's, by its id": func() error { _, err := c.Event(ctx, "default", "theirs", 0, false); return err },
		"another function's":            func() error { _, err := c.Event(ctx, "default", "", seq+1, false); return err },
		"a topic's":                     func() error { _, err := c.Event(ctx, "default", "", topic, false); return err },
		"what delivery keeps for itself": func() error {
			_, err := r.client(adminSecret).Event(ctx, "default", "", side, false)
			return err
		},
		"from another namespace": func() error { _, err := r.client(adminSecret).Event(ctx, "shop", "", seq, false); return err },
		"nobody's":               func() error { _, err := c.Event(ctx, "default", "", 4711, false); return err },
	} {
		t.Run(name, func(t *testing.T) { refused(t, get(), problem.NotFound) })
	}
	if s, err = r.client("reader-key").Event(ctx, "default", "tvt", 0, false); err != nil || len(s.Deliveries) != 1 || s.Deliveries[0].Trigger != "orders" || s.Deliveries[0].State != stateUnknown {
		t.Errorf("of a topic: %+v, %v", s, err)
	}
	if _, err := c.Event(ctx, "default", "evt", seq, false); !api.HasCode(err, problem.BadRequest) {
		t.Errorf("twice named: %v", err)
	}
}

// An event that was given up, tried anew and given up again is dead: its second dead
// letter names another record. One of a replay says nothing of the event itself.
func TestTheStoryOfAnEventThatDiedTwice(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.deploy("default", "hello", "one", listening())
	seq := r.events.store("default", "trigger.hello.paid", "evt", "order.paid", time.Now())
	source := "/namespaces/default/trigger.hello.paid"
	r.events.bury(paid, delivery.ReasonAttempts, 77, &event.Message{Event: event.Event{ID: fmt.Sprintf("replay.job-1.%d", seq), Source: source}})
	c := r.client("work-fn-key")
	s, err := c.Event(t.Context(), "default", "evt", 0, false)
	if err != nil || s.Deliveries[0].State != stateSettled || len(s.Deliveries[0].DeadLetters) != 1 {
		t.Fatalf("a replay that died: %+v, %v", s, err)
	}
	r.events.bury(paid, delivery.ReasonAttempts, 78, &event.Message{Event: event.Event{ID: "evt", Source: "/namespaces/default/other"}})
	r.events.bury(paid, delivery.ReasonAttempts, 79, &event.Message{Event: event.Event{ID: "evt", Source: source}})
	if s, err = c.Event(t.Context(), "default", "evt", 0, false); err != nil || s.Deliveries[0].State != stateDead || len(s.Deliveries[0].DeadLetters) != 2 {
		t.Fatalf("tried anew: %+v, %v", s, err)
	}
}

// What became of an event is concluded from what there is, and nothing is made up.
func TestTheStateOfADelivery(t *testing.T) {
	t.Parallel()
	ok, failed := &audit.Receipt{Status: 200, Outcome: "ok"}, &audit.Receipt{Status: 500, Outcome: "ok"}
	for name, tt := range map[string]struct {
		status *delivery.Status
		last   *audit.Receipt
		dead   bool
		want   string
	}{
		"given up":              {&delivery.Status{}, failed, true, stateDead},
		"done":                  {&delivery.Status{Waiting: 3}, ok, false, stateDone},
		"failed so far":         {&delivery.Status{Retrying: 1}, failed, false, stateRetrying},
		"failed, and gone":      {nil, failed, false, stateUnknown},
		"in a batch":            {&delivery.Status{}, nil, false, stateSettled},
		"not begun":             {&delivery.Status{Waiting: 3}, nil, false, stateWaiting},
		"begun or in a batch":   {&delivery.Status{Waiting: 3, UnderWay: 1}, nil, false, stateUnknown},
		"the trigger has gone":  {nil, nil, false, stateUnknown},
		"done by one that went": {nil, ok, false, stateDone},
	} {
		e := &fakeEvents{status: map[delivery.Key]delivery.Status{}}
		if tt.status != nil {
			e.status[paid] = *tt.status
		}
		got, err := deliveryState(t.Context(), &EventsConfig{Deliveries: e}, paid, tt.last, tt.dead)
		if err != nil || got != tt.want {
			t.Errorf("%s: got %s (%v), want %s", name, got, err, tt.want)
		}
	}
}

func TestTailFollowsAndEndsWithTheNode(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.deploy("default", "hello", "one", listening())
	for _, id := range []string{"old1", "old2", "old3"} {
		r.events.store("default", "trigger.hello.paid", id, "order.paid", time.Now())
	}
	r.events.store("default", "topic.orders", "secret", "order.created", time.Now())
	r.events.stream.more = make(chan struct{})
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	var got []string
	var last error
	for e, err := range r.client("read-one-key").TailEvents(ctx, "default", api.EventQuery{Tail: 2}) {
		if err != nil {
			last = err
			break
		}
		got = append(got, e.ID)
		switch e.ID {
		case "old3":
			r.events.store("default", "topic.orders", "secret2", "order.created", time.Now())
			r.events.store("default", "trigger.hello.paid", "new", "order.paid", time.Now())
			close(r.events.stream.more)
		case "new":
			r.handler.Drain()
		}
	}
	if !slices.Equal(got, []string{"old2", "old3", "new"}) {
		t.Fatalf("got %q, then %v", got, last)
	}
	refused(t, last, problem.Draining)
	for _, err := range r.client("read-one-key").TailEvents(ctx, "default", api.EventQuery{Topic: "orders"}) {
		refused(t, err, problem.Forbidden)
	}
}

func TestPublishStampsThePrincipal(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	at := time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)
	c := r.client("work-fn-key")
	in := api.Publish{Events: []api.EventIn{
		{ID: "a", Type: "t", Key: "k", Time: &at, Subject: "s", DataContentType: "text/plain", Data: []byte("x"), Extensions: map[string]string{"principal": "key:admin"}},
		{Type: "t"},
	}}
	out, err := c.Publish(t.Context(), "default", "orders", in)
	if err != nil || len(out) != 2 || out[0].ID != "a" || out[1].ID == "" || out[1].Sequence != 2 {
		t.Fatalf("got %+v, %v", out, err)
	}
	m := r.events.published[0]
	if r.events.principal != "key:work" || m.Source != "" || m.Chain.ID != "" || m.Key != "k" || !m.Time.Equal(at) || string(m.Data) != "x" || m.Subject != "s" {
		t.Errorf("published %+v by %s", m, r.events.principal)
	}
	if !strings.Contains(r.log.String(), `"action":"events.publish"`) || !strings.Contains(r.log.String(), `"object":"default/topics/orders"`) {
		t.Error("it is not in the audit log")
	}
	for _, topic := range []string{"other", "or.ders", "*"} {
		if _, err := c.Publish(t.Context(), "default", topic, in); err == nil {
			t.Errorf("published to %s without the scope", topic)
		}
	}
	_, err = r.client(adminSecret).Publish(t.Context(), "default", "orders", api.Publish{})
	refused(t, err, problem.BadRequest)
	_, err = r.client(adminSecret).Publish(t.Context(), "default", "orders", api.Publish{Events: make([]api.EventIn, maxPublished+1)})
	refused(t, err, problem.BadRequest)
	r.events.fail(problem.New(problem.Overloaded, "too many events wait").After(3 * time.Second))
	_, err = c.Publish(t.Context(), "default", "orders", in)
	if e := refused(t, err, problem.Overloaded); e.RetryAfter != 3*time.Second {
		t.Errorf("refusal: %+v", e)
	}
}

func TestPurgeRemovesWhatIsNamedAndNoMore(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.deploy("default", "hello", "one", listening())
	old, young := time.Now().Add(-2*time.Hour), time.Now()
	fill := func() {
		r.events.stream.records = nil
		for _, at := range []time.Time{old, young} {
			for _, ch := range []string{"trigger.hello.paid", "async.hello", "topic.orders", "trigger.else.paid", "retry.hello.paid"} {
				r.events.store("default", ch, ch+at.String(), "t", at)
			}
			r.events.store("shop", "trigger.hello.paid", at.String(), "t", at)
		}
	}
	until := time.Now().Add(-time.Hour)
	for _, tt := range []struct {
		in   api.PurgeEvents
		want []string
	}{
		{api.PurgeEvents{Function: "hello", Trigger: "paid"}, []string{"trigger.hello.paid"}},
		{api.PurgeEvents{Function: "hello"}, []string{"trigger.hello.paid", "async.hello"}},
		{api.PurgeEvents{Function: "hello", Trigger: "-"}, []string{"async.hello"}},
		{api.PurgeEvents{Topic: "orders"}, []string{"topic.orders"}},
	} {
		fill()
		tt.in.Until = until
		done, err := r.client(adminSecret).PurgeEvents(t.Context(), "default", tt.in)
		if err != nil || done.Purged != len(tt.want) {
			t.Errorf("%+v: %+v, %v", tt.in, done, err)
		}
		for _, rec := range r.events.stream.records {
			if rec.Time.Equal(old) && rec.Namespace == "default" && slices.Contains(tt.want, rec.Channel) {
				t.Errorf("%+v: %s is still there", tt.in, rec.Channel)
			}
		}
		if n := len(r.events.stream.records); n != 12-len(tt.want) {
			t.Errorf("%+v: %d are left", tt.in, n)
		}
	}
	if !strings.Contains(r.log.String(), `"action":"events.purge","object":"default/hello/paid","outcome":"ok"`) {
		t.Error("it is not in the audit log")
	}
	fill()
	for name, in := range map[string]api.PurgeEvents{
		"a trigger without events of its own": {Function: "hello", Trigger: "orders", Until: until},
		"both":                                {Function: "hello", Topic: "orders", Until: until},
		"nothing":                             {Until: until},
		"no time":                             {Function: "hello"},
		"a topic that is none":                {Topic: "x.>", Until: until},
	} {
		_, err := r.client(adminSecret).PurgeEvents(t.Context(), "default", in)
		t.Run(name, func(t *testing.T) { refused(t, err, problem.BadRequest) })
	}
	_, err := r.client("work-fn-key").PurgeEvents(t.Context(), "default", api.PurgeEvents{Topic: "orders", Until: until})
	refused(t, err, problem.Forbidden)
	if len(r.events.stream.records) != 12 {
		t.Error("a refused purge removed something")
	}
}

func TestDamageIsNotPurged(t *testing.T) {
	t.Parallel()
	s := fakeStream{corrupt: true}
	s.add("default", "async.hello", "a", time.Unix(1, 0), nil)
	n, err := purgeChannel(t.Context(), &s, "default", "async.hello", time.Unix(2, 0))
	if n != 1 || err != nil {
		t.Errorf("got %d, %v", n, err)
	}
	s.err = errors.New("boom")
	if _, err := purgeChannel(t.Context(), &s, "default", "async.hello", time.Unix(2, 0)); err == nil {
		t.Error("a store that fails was taken for an empty one")
	}
}

package delivery_test

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/casemate-dev/casemate/api/problem"
	"github.com/casemate-dev/casemate/internal/delivery"
	"github.com/casemate-dev/casemate/internal/event"
	"github.com/casemate-dev/casemate/internal/function"
)

func TestDestinationsAreTold(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var sent []*event.Message
		w := newWorld(t, nil, func(c *delivery.Config) {
			c.Send = func(_ context.Context, ns, conn string, m *event.Message) (delivery.Outcome, error) {
				if ns != "shop" || conn != "partner" {
					t.Errorf("sent to %s of %s", conn, ns)
				}
				if sent = append(sent, m); len(sent) == 1 {
					return delivery.Outcome{Status: 503}, nil // it is tried again like any event
				}
				return delivery.Outcome{Status: 204}, nil
			}
		})
		defer w.stop()
		w.answer = func(_ context.Context, c delivery.Call) (delivery.Outcome, error) {
			if c.Ref.Name == "ship" && c.Messages[0].ID == "bad" {
				return delivery.Outcome{Status: 422, Receipt: "r-2", Version: "v2", Body: []byte{0xff}}, nil
			}
			return delivery.Outcome{
				Status: 200, Receipt: "r-1", Version: "v1", Body: []byte(`{"ok":true}`),
				Headers: map[string][]string{"content-type": {"application/json; charset=utf-8"}},
			}, nil
		}
		w.set(binding(func(d *function.Delivery) {
			d.OnSuccess = []function.Destination{{Topic: "shipped"}, {Webhook: "partner"}}
			d.OnFailure = []function.Destination{{Function: "repair"}}
		}), delivery.Binding{Key: delivery.Key{Namespace: "shop", Function: "repair"}})
		w.publish(ordersChannel, "a:good", "bad")
		pass(time.Minute)
		synctest.Wait()

		told := w.on("topic.shipped")
		if len(told) != 1 || len(sent) != 2 || string(sent[1].Data) != string(told[0].Data) {
			t.Fatalf("%d on the topic, %d sent", len(told), len(sent))
		}
		m := told[0]
		if m.Type != "casemate.delivery.succeeded" || m.Source != "/namespaces/shop/functions/ship" || m.Key != "a" ||
			m.Chain != (event.Chain{ID: "a:good", Depth: 1}) || m.Extensions["chaindepth"] != "1" || m.Extensions["chainid"] != "a:good" {
			t.Errorf("event %+v", m)
		}
		var rec map[string]any
		if err := json.Unmarshal(m.Data, &rec); err != nil {
			t.Fatal(err)
		}
		delete(rec, "timestamp")
		want := `{"requestContext":{"approximateInvokeCount":1,"condition":"Success","eventId":"a:good","eventType":"test",` +
			`"functionArn":"` + function.ARN(function.Region, function.Ref{Namespace: "shop", Name: "ship"}) + `","requestId":"r-1","trigger":"orders"},` +
			`"requestPayload":{"n":"a:good"},"responseContext":{"executedVersion":"v1","statusCode":200},"responsePayload":{"ok":true},"version":"1.0"}`
		if b, _ := json.Marshal(rec); string(b) != want {
			t.Errorf("record\n%s, want\n%s", b, want)
		}
		failed := w.on("async.repair")
		if len(failed) != 1 || failed[0].Type != "casemate.delivery.failed" || !strings.Contains(string(failed[0].Data), `"condition":"permanent"`) ||
			!strings.Contains(string(failed[0].Data), `"responsePayload":{"base64":"/w=="}`) {
			t.Fatalf("on the function's channel: %s", failed[0].Data)
		}
		if ids := w.ran(); !slices.Contains(ids, failed[0].ID) {
			t.Errorf("the function was not called with it: %q", ids)
		}
	})
}

func TestLargePayloadIsLeftOutOfDestinations(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil, nil)
		defer w.stop()
		w.set(binding(func(d *function.Delivery) { d.OnSuccess = []function.Destination{{Topic: "shipped"}} }))
		w.publishMessage(ordersChannel, &event.Message{Event: event.Event{ID: "1", Source: "s", Type: "t"}, Data: make([]byte, event.MaxData)})
		synctest.Wait()
		told := w.on("topic.shipped")
		if len(told) != 1 || len(told[0].Data) > 4096 || !strings.Contains(string(told[0].Data), fmt.Sprintf(`"requestPayloadOmitted":%d`, event.MaxData)) {
			t.Errorf("told %d", len(told))
		}
	})
}

func TestLoopIsCutAndToldNobody(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		// A function whose successes and failures are its own events.
		self := delivery.Key{Namespace: "shop", Function: "ship"}
		w := newWorld(t, nil, nil)
		defer w.stop()
		again := []function.Destination{{Function: "ship"}}
		w.set(delivery.Binding{Key: self, Delivery: function.Delivery{OnSuccess: again, OnFailure: again}})
		w.publish("async.ship", "1")
		pass(time.Hour)
		synctest.Wait()
		if n := len(w.ran()); n != function.MaxChainDepth+1 {
			t.Errorf("ran %d times", n)
		}
		d := w.dead(self)
		if len(d) != 1 || d[0].Reason != delivery.ReasonLoop || d[0].Message.Chain.ID != "1" || w.unsettled() != 0 {
			t.Errorf("dead: %+v", d)
		}
	})
}

func TestDeadLettersAreRetriedAndPurged(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, status(400), nil)
		defer func() { w.stop() }()
		b := binding(func(d *function.Delivery) { d.Concurrency = 1 })
		w.set(b)
		for i := range 250 {
			w.publish(ordersChannel, fmt.Sprintf("%03d", i))
		}
		synctest.Wait()
		ctx := t.Context()
		bad := &event.Message{Event: event.Event{ID: "bad", Type: "with space"}, Data: []byte("{")}
		for range 2 { // the source did not hear the first answer
			if err := w.engine.Bury(ctx, orders, bad, delivery.ReasonInvalid, "type", "must be a name"); err != nil {
				t.Fatal(err)
			}
		}
		d := w.dead(orders)
		if len(d) != 251 || d[250].Reason != delivery.ReasonInvalid || d[250].Field != "type" || d[250].Message.Type != "with space" {
			t.Fatalf("%d dead letters, the last %+v", len(d), d[len(d)-1])
		}
		w.mu.Lock()
		w.answer, w.calls = nil, nil
		w.mu.Unlock()
		// One, some, all; a new life in between.
		if n, left, err := w.engine.RetryDead(ctx, orders, delivery.DeadFilter{Sequence: d[7].Sequence}); n != 1 || left != 0 || err != nil {
			t.Fatal(n, left, err)
		}
		synctest.Wait()
		same(t, "one", w.ran(), []string{"007"})
		if c := w.calls[0]; c.Attempt != 1 || c.Replay {
			t.Errorf("called with %+v", c)
		}
		w.stop()
		w.start()
		w.set(b)
		match := func(d *delivery.Dead) bool { return strings.HasPrefix(d.Message.ID, "00") }
		if n, err := w.engine.PurgeDead(ctx, orders, delivery.DeadFilter{Match: match}); n != 9 || err != nil {
			t.Fatal(n, err)
		}
		if n, left, err := w.engine.RetryDead(ctx, orders, delivery.DeadFilter{}); n != 240 || left != 1 || err != nil {
			t.Fatal(n, left, err)
		}
		synctest.Wait()
		ids := w.ran()
		if len(ids) != 241 || !slices.IsSorted(ids[1:]) || ids[1] != "010" {
			t.Errorf("%d ran", len(ids))
		}
		if d := w.dead(orders); len(d) != 1 || d[0].Reason != delivery.ReasonInvalid {
			t.Errorf("left: %d", len(d))
		}
		if n, err := w.engine.PurgeDead(ctx, orders, delivery.DeadFilter{}); n != 1 || err != nil {
			t.Fatal(n, err)
		}
		if n := len(w.disk.deads.records); n != 0 {
			t.Errorf("%d records stay on the stream of dead letters", n)
		}
	})
}

func TestDeadLettersOfATopicAreTheSubscribersOwn(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil, nil)
		defer w.stop()
		w.answer = func(_ context.Context, c delivery.Call) (delivery.Outcome, error) {
			if c.Ref.Name == "ship" {
				return delivery.Outcome{Status: 400}, nil
			}
			return delivery.Outcome{Status: 200}, nil
		}
		a, b := binding(nil), binding(nil)
		b.Function = "mail"
		a.Channel, b.Channel = "topic.news", "topic.news"
		w.set(a, b)
		w.publish("topic.news", "1")
		synctest.Wait()
		if len(w.dead(a.Key)) != 1 || len(w.dead(b.Key)) != 0 {
			t.Fatal("a dead letter of one subscriber is the other's too")
		}
		if _, _, err := w.engine.RetryDead(t.Context(), a.Key, delivery.DeadFilter{}); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if n := len(w.ran()); n != 3 {
			t.Errorf("%d invocations, want one more, of one subscriber", n)
		}
	})
}

func TestReplayRunsAnotherVersionInOrder(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil, func(c *delivery.Config) {
			c.Compile = func(raw json.RawMessage) (func(*event.Message) bool, error) {
				var suffix string
				if err := json.Unmarshal(raw, &suffix); err != nil {
					return nil, err
				}
				return func(m *event.Message) bool { return strings.HasSuffix(m.ID, suffix) }, nil
			}
		})
		defer func() { w.stop() }()
		b := binding(func(d *function.Delivery) { d.Concurrency = 1 })
		w.set(b)
		for i := range 100 {
			w.publish(ordersChannel, fmt.Sprintf("early%02d", i))
		}
		pass(time.Hour)
		from := time.Now()
		for i := range 3000 {
			w.publish(ordersChannel, fmt.Sprintf("%04d", i))
		}
		pass(time.Hour)
		w.mu.Lock()
		w.calls = nil
		w.answer = func(context.Context, delivery.Call) (delivery.Outcome, error) {
			pass(time.Second)
			return delivery.Outcome{Status: 200}, nil
		}
		w.mu.Unlock()
		sel := delivery.Selector{Key: orders, Since: from, Filter: json.RawMessage(`"0"`)}
		bad := sel
		bad.Filter = json.RawMessage(`1`)
		if _, err := w.engine.Replay(t.Context(), bad, "canary"); !problem.HasCode(err, problem.BadRequest) {
			t.Errorf("a bad filter: %v", err)
		}
		if _, err := w.engine.Replay(t.Context(), sel, "no alias!"); !problem.HasCode(err, problem.BadRequest) {
			t.Errorf("a bad qualifier: %v", err)
		}
		sel.Filter = nil
		job, err := w.engine.Replay(t.Context(), sel, "canary")
		if err != nil {
			t.Fatal(err)
		}
		pass(10 * time.Minute)
		synctest.Wait()
		// It is never far ahead of the function, and goes on in the next life.
		if j := w.engine.Jobs("shop")[0]; j.State != delivery.JobRunning || j.Published > 600+1100 || j.Published < 600 {
			t.Errorf("after ten minutes %+v", j)
		}
		w.stop()
		w.start()
		w.set(b)
		pass(time.Hour)
		synctest.Wait()
		if j := w.engine.Jobs("shop")[0]; j.ID != job.ID || j.State != delivery.JobDone || j.Read != 3000 || j.Published != 3000 {
			t.Errorf("at the end %+v", j)
		}
		if len(w.calls) != 3000 {
			t.Fatalf("%d ran", len(w.calls))
		}
		for i, c := range w.calls {
			m := c.Messages[0]
			if want := fmt.Sprintf("%04d", i); m.Extensions["replayof"] != want || m.ID == want || !c.Replay || c.Qualifier != "canary" {
				t.Fatalf("call %d: %+v of %+v", i, c, m)
			}
		}
	})
}

func TestReplayByIDAndFilter(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil, func(c *delivery.Config) {
			c.Compile = func(json.RawMessage) (func(*event.Message) bool, error) {
				return func(m *event.Message) bool { return m.ID != "2" }, nil
			}
		})
		defer w.stop()
		w.set(binding(nil))
		w.publish(ordersChannel, "1", "2", "3")
		pass(time.Second)
		w.mu.Lock()
		w.calls = nil
		w.mu.Unlock()
		if _, err := w.engine.Replay(t.Context(), delivery.Selector{Key: orders, IDs: []string{"2", "3"}, Filter: json.RawMessage(`{}`)}, ""); err != nil {
			t.Fatal(err)
		}
		pass(time.Minute)
		synctest.Wait()
		if len(w.calls) != 1 || w.calls[0].Messages[0].Extensions["replayof"] != "3" {
			t.Errorf("ran %q", w.ran())
		}
	})
}

func TestReplayCanBeCancelled(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil, nil)
		defer w.stop()
		b := binding(nil)
		w.set(b)
		w.publish(ordersChannel, "1")
		pass(time.Second)
		b.Paused = true // so that the job waits
		w.set(b)
		job, err := w.engine.Replay(t.Context(), delivery.Selector{Key: orders}, "")
		if err != nil {
			t.Fatal(err)
		}
		pass(time.Minute)
		if err := w.engine.CancelReplay(t.Context(), job.ID); err != nil {
			t.Fatal(err)
		}
		b.Paused = false
		w.set(b)
		pass(time.Minute)
		synctest.Wait()
		if j := w.engine.Jobs("shop")[0]; j.State != delivery.JobCancelled || j.Published != 0 || len(w.ran()) != 1 {
			t.Errorf("%+v, ran %q", j, w.ran())
		}
	})
}

// TestNoSourceChoosesTheVersion: what a source can write into an event does not decide
// what runs, nor marks it as a replay.
func TestNoSourceChoosesTheVersion(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil, nil)
		defer w.stop()
		w.set(binding(nil))
		w.publishMessage(ordersChannel, &event.Message{
			Event: event.Event{ID: "1", Source: "s", Type: "t", Extensions: map[string]string{"qualifier": "old", "replayof": "0", "replay": "true"}},
			Data:  []byte(`{"qualifier":"old","replay":true}` + "\n"), Detail: map[string]string{"qualifier": "old", "replay": "true"},
		})
		synctest.Wait()
		if c := w.calls[0]; c.Qualifier != "" || c.Replay {
			t.Errorf("called with %+v", c)
		}
	})
}

func TestResultsOfAsynchronousInvocations(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		got := map[string]delivery.Result{}
		w := newWorld(t, nil, func(c *delivery.Config) { c.Results = record(got) })
		defer w.stop()
		w.answer = func(_ context.Context, c delivery.Call) (delivery.Outcome, error) {
			switch m := c.Messages[0]; {
			case m.ID == "good" && m.Detail["method"] == "PUT" && c.Trigger == "":
				return delivery.Outcome{Status: 201, Body: []byte("made"), Receipt: "r"}, nil
			case m.ID == "slow":
				return code(problem.FunctionTimeout)
			}
			return delivery.Outcome{Status: 500}, nil
		}
		w.set(delivery.Binding{Key: delivery.Key{Namespace: "shop", Function: "ship"}, Delivery: function.Delivery{Attempts: 2}}, binding(nil))
		for _, id := range []string{"good", "slow"} {
			w.publishMessage("async.ship", &event.Message{Event: event.Event{ID: id, Source: "s", Type: "t"}, Detail: map[string]string{"method": "PUT", "path": "/x"}})
		}
		w.publish(ordersChannel, "of a trigger")
		pass(time.Hour)
		synctest.Wait()
		if ids := slices.Sorted(maps.Keys(got)); !slices.Equal(ids, []string{"good", "slow"}) {
			t.Fatalf("told of %q", ids)
		}
		if r := got["good"]; !r.Succeeded || r.Outcome.Status != 201 || string(r.Outcome.Body) != "made" || r.Attempts != 1 {
			t.Errorf("good: %+v", r)
		}
		if r := got["slow"]; r.Succeeded || r.Reason != delivery.ReasonAttempts || r.Attempts != 2 || r.Outcome.Code != problem.FunctionTimeout {
			t.Errorf("slow: %+v", r)
		}
	})
}

type record map[string]delivery.Result

func (r record) Done(_ context.Context, _ function.Ref, id string, res delivery.Result) error {
	r[id] = res
	return nil
}

func TestBacklogIsCachedShortly(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, status(500), nil)
		defer w.stop()
		w.set(binding(func(d *function.Delivery) { d.Backoff = time.Hour }))
		w.publish(ordersChannel, "1", "2")
		synctest.Wait()
		before := w.node.reads
		for range 1000 {
			if n, err := w.engine.Backlog(t.Context(), orders); n != 2 || err != nil {
				t.Fatalf("backlog %d, %v; want the two that are parked", n, err)
			}
		}
		if n := w.node.reads - before; n != 1 {
			t.Errorf("asked the stream %d times", n)
		}
		w.publish(ordersChannel, "3")
		pass(100 * time.Millisecond)
		synctest.Wait()
		if n, _ := w.engine.Backlog(t.Context(), orders); n != 3 {
			t.Errorf("backlog %d after 100 ms, want 3", n)
		}
	})
}

// logged counts the records of the retry log.
func (w *world) logged() (n int) {
	for _, r := range w.disk.events.records {
		if r.Channel == "retry.ship.orders" {
			n++
		}
	}
	return n
}

func TestRetryLogIsCompacted(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil, nil)
		defer func() { w.stop() }()
		w.answer = func(_ context.Context, c delivery.Call) (delivery.Outcome, error) {
			if stuck := strings.HasPrefix(c.Messages[0].ID, "stuck"); stuck || c.Attempt < 3 {
				out := delivery.Outcome{Status: 500}
				if stuck && c.Attempt == 2 {
					out.RetryAfter = 15 * time.Minute
				}
				return out, nil
			}
			return delivery.Outcome{Status: 200}, nil
		}
		b := binding(func(d *function.Delivery) { d.Attempts, d.BackoffMost = 100, time.Second })
		w.set(b)
		w.publish(ordersChannel, "stuck1", "stuck2")
		pass(time.Minute)
		for i := range 3000 {
			w.publish(ordersChannel, fmt.Sprint(i))
		}
		pass(time.Minute)
		synctest.Wait()
		if n := w.logged(); n > 2500 { // of 9,000 that were written
			t.Errorf("%d records in the retry log of two events", n)
		}
		ran := len(w.ran())
		w.crash()
		w.start()
		w.set(b)
		synctest.Wait()
		if st, _ := w.engine.Status(t.Context(), orders); st.Retrying != 2 || len(w.ran()) != ran {
			t.Errorf("after a crash %d are retried, %d ran anew", st.Retrying, len(w.ran())-ran)
		}
		pass(14 * time.Minute)
		synctest.Wait()
		if calls, _ := w.made(); len(calls) == ran || calls[ran].Attempt != 3 {
			t.Error("the count of attempts was lost")
		}
	})
}

// TestCompactionSparesWhatIsBeingWritten holds back the word that an event was parked
// while the log is compacted around it.
func TestCompactionSparesWhatIsBeingWritten(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil, nil)
		defer func() { w.stop() }()
		w.answer = func(_ context.Context, c delivery.Call) (delivery.Outcome, error) {
			if id := c.Messages[0].ID; id == "held" || c.Attempt < 3 {
				return delivery.Outcome{Status: 500}, nil
			}
			return delivery.Outcome{Status: 200}, nil
		}
		heard, first := make(chan struct{}), true
		w.node.hold = func(entries []delivery.Entry) {
			if strings.HasPrefix(entries[0].Channel, "retry.") && first {
				first = false
				<-heard
			}
		}
		b := binding(func(d *function.Delivery) { d.BackoffMost, d.Attempts = time.Second, 3 })
		w.set(b)
		w.publish(ordersChannel, "held")
		synctest.Wait()
		for i := range 3000 {
			w.publish(ordersChannel, fmt.Sprint(i))
		}
		pass(time.Minute)
		synctest.Wait()
		w.node.mu.Lock() // or another compaction would mend it
		w.node.fault = func(what string) (bool, bool) { return what == "events", false }
		w.node.mu.Unlock()
		close(heard)
		synctest.Wait()
		w.crash()
		w.start()
		w.set(b)
		pass(time.Hour)
		synctest.Wait()
		if d := w.dead(orders); len(d) != 1 || d[0].Message.ID != "held" {
			t.Errorf("the event that was just being parked is lost: %d dead letters", len(d))
		}
	})
}

func TestRemovedTriggerComesBackWhereItWas(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, status(500), nil)
		defer w.stop()
		b := binding(func(d *function.Delivery) { d.Backoff = time.Minute })
		w.set(b)
		w.publish(ordersChannel, "1")
		synctest.Wait()
		w.set()
		w.publish(ordersChannel, "2")
		pass(time.Hour)
		same(t, "ran", w.ran(), []string{"1"})
		if _, err := w.engine.Status(t.Context(), orders); !problem.HasCode(err, problem.NotFound) {
			t.Errorf("status: %v", err)
		}
		w.set(b)
		if err := w.engine.Forget(t.Context(), orders); !problem.HasCode(err, problem.Conflict) {
			t.Errorf("forgot a trigger that is in force: %v", err)
		}
		synctest.Wait()
		ids := w.ran()[1:]
		slices.Sort(ids)
		same(t, "ran when it was back", ids, []string{"1", "2"})
		w.set()
		if err := w.engine.Forget(t.Context(), orders); err != nil {
			t.Fatal(err)
		}
		for _, r := range w.disk.events.records {
			if strings.HasPrefix(r.Channel, "retry.") {
				t.Errorf("a record of %s stays", r.Channel)
			}
		}
		if len(w.disk.consumers) > 0 || len(w.disk.kv) > 0 {
			t.Errorf("stay: %v, %v", w.disk.consumers, w.disk.kv)
		}
	})
}

func TestWrongBindingsChangeNothing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil, nil)
		defer w.stop()
		w.set(binding(nil))
		for name, b := range map[string]delivery.Binding{
			"a foreign channel":     {Key: orders, Channel: "trigger.mail.orders"},
			"two destinations":      {Key: orders, Delivery: function.Delivery{OnSuccess: []function.Destination{{Topic: "a", Function: "b"}}}},
			"a subject's wild card": {Key: orders, Channel: "topic.*"},
			"no name":               {Key: delivery.Key{Namespace: "shop"}},
			"concurrency":           {Key: orders, Delivery: function.Delivery{Concurrency: -1}},
			"attempts":              {Key: orders, Delivery: function.Delivery{Attempts: 101}},
			"a webhook":             {Key: delivery.Key{Namespace: "shop", Trigger: "partner"}},
		} {
			if err := w.engine.Set(t.Context(), []delivery.Binding{b}); err == nil {
				t.Errorf("%s: accepted", name)
			}
		}
		if err := w.engine.Set(t.Context(), []delivery.Binding{binding(nil), binding(nil)}); err == nil {
			t.Error("the same twice: accepted")
		}
		w.publish(ordersChannel, "1")
		synctest.Wait()
		same(t, "ran", w.ran(), []string{"1"})
	})
}

// What an event's end is told to, and where answers go, lies in the trigger's namespace:
// no spelling of a name leads to another.
func TestAttackDestinationsOfAnotherNamespace(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"bank/pay", "bank.pay", "../pay", "~bank/pay", "/namespaces/bank/topics/pay", "bank:pay", "*", ">", "Pay", "pay "} {
		one := func(d function.Destination) []function.Destination { return []function.Destination{d} }
		for field, d := range map[string]function.Delivery{
			"reply":              {Reply: name},
			"onSuccess.function": {OnSuccess: one(function.Destination{Function: name})},
			"onSuccess.topic":    {OnSuccess: one(function.Destination{Topic: name})},
			"onSuccess.webhook":  {OnSuccess: one(function.Destination{Webhook: name})},
			"onFailure.function": {OnFailure: one(function.Destination{Function: name})},
			"onFailure.topic":    {OnFailure: one(function.Destination{Topic: name})},
			"onFailure.webhook":  {OnFailure: one(function.Destination{Webhook: name})},
		} {
			if err := delivery.CheckBinding(delivery.Binding{Key: orders, Delivery: d}); err == nil {
				t.Errorf("%s %q: accepted", field, name)
			}
		}
	}
}

func TestLongNamesFitAConsumer(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil, nil)
		defer w.stop()
		long := func(c string) string { return strings.Repeat(c, 63) }
		var bs []delivery.Binding
		for _, c := range []string{"a", "b"} {
			bs = append(bs, delivery.Binding{Key: delivery.Key{Namespace: long("n"), Function: long("f"), Trigger: long(c)}, Channel: "topic." + long("t")})
		}
		w.set(bs...)
		synctest.Wait()
		if n := len(w.disk.consumers); n != 2 {
			t.Errorf("%d consumers, want 2", n)
		}
	})
}

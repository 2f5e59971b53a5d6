package node

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/casemate-dev/casemate/api"
	"github.com/casemate-dev/casemate/internal/event"
	"github.com/casemate-dev/casemate/internal/sandbox"
	"github.com/casemate-dev/casemate/internal/source/servertest"
)

// replying is what a function answers that publishes an event.
func replying() sandbox.Result {
	return sandbox.Result{Response: sandbox.ResponseHead{Status: 200, Headers: map[string][]string{
		"ce-specversion": {"1.0"}, "ce-id": {"its-own"}, "ce-source": {"/its-own"}, "ce-type": {"order.paid"}, "content-type": {"application/json"},
	}}, Body: []byte(`{"paid":true}`)}
}

// publish publishes to the topic orders and gives the event's sequence.
func (d *deploying) publish(id string) uint64 {
	d.t.Helper()
	p, err := d.client.Publish(d.t.Context(), "default", "orders", api.Publish{Events: []api.EventIn{{ID: id, Type: "order.created", Data: []byte(`{}`)}}})
	if err != nil {
		d.t.Fatal(err)
	}
	return p[0].Sequence
}

// paid waits until the topic paid has the events that are wanted, unless one is dead, and
// gives the ids of all.
func (d *deploying) paid(wanted func(ids []string) bool) (ids []string) {
	d.t.Helper()
	err := servertest.Eventually(d.t.Context(), func(ctx context.Context) error {
		dead, err := d.client.DeadLetters(ctx, "default", api.DeadQuery{})
		if err != nil {
			return err
		}
		if len(dead.Items) > 0 {
			d.t.Fatalf("an event is dead: %+v", dead.Items[0])
		}
		list, err := d.client.Events(ctx, "default", api.EventQuery{Topic: "paid"})
		if err != nil {
			return err
		}
		ids = nil
		for _, e := range list.Items {
			ids = append(ids, e.ID)
		}
		if !wanted(ids) {
			return fmt.Errorf("published are %.60q", ids)
		}
		return nil
	})
	if err != nil {
		d.t.Fatal(err)
	}
	return ids
}

// ran waits until an event was run so often, replays included.
func (d *deploying) ran(sequence uint64, times int) {
	d.t.Helper()
	err := servertest.Eventually(d.t.Context(), func(ctx context.Context) error {
		s, err := d.client.Event(ctx, "default", "", sequence, false)
		if err != nil {
			return err
		}
		if len(s.Deliveries) != 1 || len(s.Deliveries[0].Attempts) != times {
			return fmt.Errorf("not run %d times: %+v", times, s.Deliveries)
		}
		return nil
	})
	if err != nil {
		d.t.Fatal(err)
	}
}

// An id may be as long as ids can be: what follows from its event still has one.
func TestRepliesToEventsWithLongIDs(t *testing.T) {
	t.Parallel()
	d := newDeploying(t, replying())
	if _, err := d.put(d.client, "", having("topic", `{"topic":"orders"}`, api.Delivery{Reply: "paid"})); err != nil {
		t.Fatal(err)
	}
	long := strings.Repeat("x", event.MaxAttribute-1)
	for _, id := range []string{"short", long + "a", long + "b"} {
		d.publish(id)
	}
	ids := d.paid(func(ids []string) bool { return len(ids) == 3 })
	if !slices.Contains(ids, "short.reply.0") {
		t.Errorf("published are %q", ids)
	}
	for _, id := range ids {
		if len(id) > event.MaxAttribute {
			t.Errorf("an id has %d bytes", len(id))
		}
	}
	if a, b := replyID(long+"a", 1), replyID(long+"a", 2); a == b || a != replyID(long+"a", 1) {
		t.Errorf("ids of two events of one answer: %q, %q", a, b)
	}
}

// TestAttackReplayOfAVersionThatPublished has a version run that once could publish to a
// topic. What is in force decides, and who asks may not publish there.
func TestAttackReplayOfAVersionThatPublished(t *testing.T) {
	t.Parallel()
	d := newDeploying(t, replying())
	mighty, err := d.put(d.client, "mighty", having("topic", `{"topic":"orders"}`, api.Delivery{Reply: "paid"}))
	if err != nil {
		t.Fatal(err)
	}
	d.publish("first")
	d.paid(func(ids []string) bool { return slices.Equal(ids, []string{"first.reply.0"}) })
	plain, err := d.put(d.client, "plain", having("topic", `{"topic":"orders"}`, api.Delivery{}))
	if err != nil {
		t.Fatal(err)
	}
	second := d.publish("second")
	d.ran(second, 1)
	attack, err := d.under("deploy:default/cx").Replay(t.Context(), "default", "cx", "in", api.Replay{IDs: []string{"second"}, To: mighty})
	if err != nil {
		t.Fatal(err)
	}
	d.ran(second, 2)
	// In force again, it publishes, whichever version is replayed.
	if _, err := d.client.Rollback(t.Context(), "default", "cx", api.Rollback{To: mighty}); err != nil {
		t.Fatal(err)
	}
	allowed, err := d.client.Replay(t.Context(), "default", "cx", "in", api.Replay{IDs: []string{"second"}, To: plain})
	if err != nil {
		t.Fatal(err)
	}
	of := func(job string) func(string) bool {
		return func(id string) bool { return strings.HasPrefix(id, "replay."+job+".") }
	}
	ids := d.paid(func(ids []string) bool { return len(ids) > 1 })
	if !slices.ContainsFunc(ids, of(allowed.ID)) || slices.ContainsFunc(ids, of(attack.ID)) || len(ids) != 2 {
		t.Errorf("published are %q", ids)
	}
}

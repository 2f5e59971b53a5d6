package delivery_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/casemate-dev/casemate/internal/delivery"
	"github.com/casemate-dev/casemate/internal/function"
)

// What is damaged is a dead letter without a body, once, and nobody waits for it: whether
// it comes so, or is found so when its retry is due.
func TestDamagedEventsAreDeadLettersWithoutABody(t *testing.T) {
	t.Parallel()
	for _, ordered := range []bool{false, true} {
		t.Run(fmt.Sprint("ordered ", ordered), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, func(_ context.Context, c delivery.Call) (delivery.Outcome, error) {
					if c.Messages[0].ID == "k:2" {
						return delivery.Outcome{Status: 500}, nil
					}
					return delivery.Outcome{Status: 200}, nil
				}, nil)
				defer func() { w.stop() }()
				w.publish("trigger.ship.orders", "k:1", "k:2", "k:3")
				w.disk.corrupt("k:1")
				w.set(binding(func(d *function.Delivery) {
					d.Ordered, d.Backoff, d.BackoffMost, d.Attempts = ordered, time.Minute, time.Minute, 5
				}))
				pass(time.Second)
				synctest.Wait()
				w.disk.corrupt("k:2") // which waits for another attempt
				pass(5 * time.Minute)
				synctest.Wait()
				letters := w.dead(orders)
				if len(letters) != 2 {
					t.Fatalf("%+v", letters)
				}
				for i, d := range letters {
					if d.Reason != delivery.ReasonCorrupt || d.Message != nil || d.Event != uint64(i+1) {
						t.Errorf("%+v", d)
					}
				}
				ran := w.ran()
				slices.Sort(ran)
				same(t, "ran", ran, []string{"k:2", "k:3"})
				if n := w.unsettled(); n != 0 {
					t.Errorf("%d are not settled", n)
				}
				if done, left, err := w.engine.RetryDead(t.Context(), orders, delivery.DeadFilter{}); done != 0 || left != 2 || err != nil {
					t.Error(done, left, err) // there is nothing to try
				}
			})
		})
	}
}

// When what a trigger has settled is lost, it gets all its events anew. Those of which the
// retry log or a dead letter says that they have ended are not run again, and it is said
// that others may be.
func TestTriggerThatLostItsPlaceRunsNothingThatIsKnownToHaveEnded(t *testing.T) {
	t.Parallel()
	for _, ordered := range []bool{false, true} {
		t.Run(fmt.Sprint("ordered ", ordered), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				var log bytes.Buffer
				w := newWorld(t, func(_ context.Context, c delivery.Call) (delivery.Outcome, error) {
					switch id := c.Messages[0].ID; {
					case id == "b:dead":
						return delivery.Outcome{Status: 422}, nil
					case id == "c:twice" && c.Attempt == 1, id == "d:waits" && c.Attempt == 1:
						return delivery.Outcome{Status: 500, RetryAfter: map[string]time.Duration{"c:twice": time.Second, "d:waits": time.Hour}[id]}, nil
					}
					return delivery.Outcome{Status: 200}, nil
				}, func(c *delivery.Config) { c.Logger = slog.New(slog.NewTextHandler(&log, nil)) })
				defer func() { w.stop() }()
				b := binding(func(d *function.Delivery) { d.Ordered, d.Backoff, d.Attempts = ordered, time.Second, 5 })
				w.publish("trigger.ship.orders", "a:done", "b:dead", "c:twice", "d:waits")
				w.set(b)
				pass(time.Minute)
				synctest.Wait()
				if ran := w.ran(); len(ran) != 5 {
					t.Fatal(ran)
				}
				w.stop()
				w.disk.losePlaces()
				w.start()
				w.publish("trigger.ship.orders", "e:new")
				w.set(b)
				pass(10 * time.Second)
				synctest.Wait()
				again := w.ran()[5:]
				slices.Sort(again)
				same(t, "ran again", again, []string{"a:done", "e:new"})
				st, err := w.engine.Status(t.Context(), orders)
				if err != nil || !strings.Contains(st.LastError.Detail, "damaged") {
					t.Errorf("%+v, %v", st, err)
				}
				if !strings.Contains(log.String(), "shop/ship/orders") || !strings.Contains(log.String(), "may be done again") {
					t.Error("nothing was said: ", log.String())
				}
				pass(time.Hour)
				synctest.Wait()
				if last := w.ran()[len(w.ran())-1]; last != "d:waits" || len(w.dead(orders)) != 1 {
					t.Error(w.ran(), w.dead(orders))
				}
			})
		})
	}
}

// A consumer that was never there and one that has lost its place are told apart: with the
// first, nothing is said.
func TestTriggerThatBeginsSaysNothingOfALoss(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil, nil)
		defer func() { w.stop() }()
		w.set(binding(func(d *function.Delivery) { d.Ordered = true }))
		w.publish("trigger.ship.orders", "1")
		pass(time.Second)
		synctest.Wait()
		if st, err := w.engine.Status(t.Context(), orders); err != nil || st.LastError.Detail != "" || len(w.ran()) != 1 {
			t.Errorf("%+v, %v, %v", st, err, w.ran())
		}
	})
}

// A retry that was due by a clock that was hours ahead waits as long as was meant.
func TestRetriesWaitNoLongerBecauseTheClockWentBack(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ahead := 5 * time.Hour
		w := newWorld(t, func(_ context.Context, c delivery.Call) (delivery.Outcome, error) {
			if c.Attempt == 1 {
				return delivery.Outcome{Status: 500, RetryAfter: 10 * time.Second}, nil
			}
			return delivery.Outcome{Status: 200}, nil
		}, func(c *delivery.Config) { c.Clock = func() time.Time { return time.Now().Add(ahead) } })
		defer func() { w.stop() }()
		b := binding(func(d *function.Delivery) { d.Backoff, d.BackoffMost = time.Second, time.Minute })
		w.set(b)
		w.publish("trigger.ship.orders", "1")
		pass(time.Second)
		synctest.Wait()
		w.stop()
		ahead = 0
		w.start()
		w.set(b)
		pass(8 * time.Second)
		synctest.Wait()
		if n := len(w.ran()); n != 1 {
			t.Fatalf("it ran %d times before it was due", n)
		}
		pass(4 * time.Second)
		synctest.Wait()
		same(t, "ran", w.ran(), []string{"1", "1"})
	})
}

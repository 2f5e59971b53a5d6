package delivery_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/casemate-dev/casemate/api/problem"
	"github.com/casemate-dev/casemate/internal/delivery"
	"github.com/casemate-dev/casemate/internal/event"
	"github.com/casemate-dev/casemate/internal/function"
)

var orders = delivery.Key{Namespace: "shop", Function: "ship", Trigger: "orders"}

const ordersChannel = "trigger.ship.orders"

func binding(change func(*function.Delivery)) delivery.Binding {
	b := delivery.Binding{Key: orders}
	if change != nil {
		change(&b.Delivery)
	}
	return b
}

func status(n int) func(context.Context, delivery.Call) (delivery.Outcome, error) {
	return func(context.Context, delivery.Call) (delivery.Outcome, error) {
		return delivery.Outcome{Status: n}, nil
	}
}

func code(c problem.Code) (delivery.Outcome, error) {
	return delivery.Outcome{Receipt: "r-1"}, problem.New(c, "because")
}

func same(t *testing.T, what string, got, want []string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s: got %q, want %q", what, got, want)
	}
}

func TestDoneIsSettled(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil, nil)
		defer w.stop()
		w.publish(ordersChannel, "1", "2")
		w.set(binding(func(d *function.Delivery) { d.Concurrency = 1 }))
		synctest.Wait()
		w.publish(ordersChannel, "3")
		synctest.Wait()
		same(t, "ran", w.ran(), []string{"1", "2", "3"})
		if n := w.unsettled(); n != 0 {
			t.Errorf("%d events are not settled", n)
		}
		if c := w.calls[0]; c.Ref.String() != "shop/ship" || c.Trigger != "orders" || c.Attempt != 1 || c.Replay || c.Qualifier != "" {
			t.Errorf("called with %+v", c)
		}
	})
}

func TestFailureIsRetriedLaterAndLaterUntilDead(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, func(context.Context, delivery.Call) (delivery.Outcome, error) { return code(problem.FunctionTimeout) }, nil)
		defer w.stop()
		w.set(binding(func(d *function.Delivery) { d.Attempts, d.Backoff, d.BackoffMost = 5, 10*time.Second, 40*time.Second }))
		w.publish(ordersChannel, "1")
		pass(10 * time.Minute)
		synctest.Wait()
		var pauses []time.Duration
		for i := 1; i < len(w.times); i++ {
			pauses = append(pauses, w.times[i].Sub(w.times[i-1]))
		}
		// The random number is always a half.
		if want := []time.Duration{5 * time.Second, 10 * time.Second, 20 * time.Second, 20 * time.Second}; !slices.Equal(pauses, want) {
			t.Errorf("pauses %v, want %v", pauses, want)
		}
		if got := w.calls[2].Messages[0].Extensions["attempt"]; got != "3" || w.calls[2].Attempt != 3 {
			t.Errorf("the third attempt is called %q, %d", got, w.calls[2].Attempt)
		}
		d := w.dead(orders)
		if len(d) != 1 {
			t.Fatalf("%d dead letters", len(d))
		}
		if d := d[0]; d.Reason != delivery.ReasonAttempts || d.Attempts != 5 || d.Code != "function_timeout" || d.Detail != "because" ||
			d.Receipt != "r-1" || d.Message.ID != "1" || string(d.Message.Data) != `{"n":"1"}` ||
			!d.First.Equal(w.times[0]) || !d.Last.Equal(w.times[4]) || d.Event != 1 {
			t.Errorf("dead letter %+v", d)
		}
	})
}

func TestJitterIsFull(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, status(500), func(c *delivery.Config) { c.Random = func() float64 { return 0 } })
		defer w.stop()
		w.set(binding(func(d *function.Delivery) { d.Backoff = time.Hour }))
		w.publish(ordersChannel, "1")
		synctest.Wait()
		if got := len(w.ran()); got != 5 {
			t.Errorf("%d attempts at once, want all 5: jitter goes down to nothing", got)
		}
	})
}

func TestOutcomesAreJudged(t *testing.T) {
	t.Parallel()
	const ok, permanent, again, uncounted = "done", "dead at once", "tried again", "held up"
	answers := map[string]struct {
		out  delivery.Outcome
		err  error
		want string
	}{
		"200":          {delivery.Outcome{Status: 200}, nil, ok},
		"204":          {delivery.Outcome{Status: 204}, nil, ok},
		"302":          {delivery.Outcome{Status: 302}, nil, ok},
		"400":          {delivery.Outcome{Status: 400}, nil, permanent},
		"404 answered": {delivery.Outcome{Status: 404}, nil, permanent},
		"408":          {delivery.Outcome{Status: 408}, nil, again},
		"425":          {delivery.Outcome{Status: 425}, nil, again},
		"429 answered": {delivery.Outcome{Status: 429}, nil, again},
		"500":          {delivery.Outcome{Status: 500}, nil, again},
		"503 answered": {delivery.Outcome{Status: 503}, nil, again},
		"plain error":  {delivery.Outcome{}, errors.New("hm"), again},
	}
	for _, r := range problem.Catalogue() {
		want := again
		switch r.Code {
		case problem.TooManyRequests, problem.Overloaded, problem.Draining, problem.StorageFull, problem.NotFound, problem.Forbidden,
			problem.Unauthenticated, problem.NotImplemented, problem.InvalidModule, problem.ArtifactTampered:
			want = uncounted
		case problem.BadRequest, problem.InvalidPath, problem.InvalidHeader, problem.BodyTooLarge, problem.UnsupportedMedia, problem.HeadersTooLarge:
			want = permanent
		default:
		}
		answers[string(r.Code)] = struct {
			out  delivery.Outcome
			err  error
			want string
		}{delivery.Outcome{}, problem.New(r.Code, "x"), want}
	}
	for name, tc := range answers {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, func(context.Context, delivery.Call) (delivery.Outcome, error) { return tc.out, tc.err }, nil)
				defer w.stop()
				w.set(binding(func(d *function.Delivery) { d.Attempts, d.Backoff = 2, time.Hour }))
				w.publish(ordersChannel, "1")
				synctest.Wait()
				st, err := w.engine.Status(t.Context(), orders)
				if err != nil {
					t.Fatal(err)
				}
				got := "nothing"
				switch {
				case st.Done.Total == 1:
					got = ok
				case st.Dead.Total == 1 && w.dead(orders)[0].Reason == delivery.ReasonPermanent:
					got = permanent
				case st.Retrying == 1:
					got = again
				case st.Held && st.Retrying == 0:
					got = uncounted
				}
				if got != tc.want {
					t.Errorf("%s, want %s (%+v)", got, tc.want, st)
				}
			})
		})
	}
}

func TestThrottlingIsNoAttempt(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		n := 0
		w := newWorld(t, nil, nil)
		defer w.stop()
		w.answer = func(context.Context, delivery.Call) (delivery.Outcome, error) {
			if n++; n <= 30 {
				return delivery.Outcome{}, problem.New(problem.TooManyRequests, "full").After(7 * time.Second)
			}
			return delivery.Outcome{Status: 200}, nil
		}
		w.set(binding(func(d *function.Delivery) { d.Attempts, d.Concurrency = 1, 1 }))
		w.publish(ordersChannel, "1", "2")
		pass(5 * time.Minute)
		synctest.Wait()
		if len(w.dead(orders)) > 0 || w.unsettled() > 0 {
			t.Fatalf("%d dead, %d unsettled", len(w.dead(orders)), w.unsettled())
		}
		for i := 1; i <= 30; i++ {
			if p := w.times[i].Sub(w.times[i-1]); p != 7*time.Second {
				t.Fatalf("pause %d is %v, not what Retry-After asked for", i, p)
			}
		}
		if a := w.calls[31].Attempt; a != 1 {
			t.Errorf("attempt %d, want 1", a)
		}
		if p := w.times[31].Sub(w.times[30]); p != 0 {
			t.Errorf("the next event waited %v after the trigger was let in again", p)
		}
	})
}

func TestRetryAfterOfTheFunctionIsHonoured(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, func(context.Context, delivery.Call) (delivery.Outcome, error) {
			return delivery.Outcome{Status: 429, RetryAfter: time.Minute}, nil
		}, nil)
		defer w.stop()
		w.set(binding(func(d *function.Delivery) { d.Attempts = 2 }))
		w.publish(ordersChannel, "1")
		pass(2 * time.Minute)
		synctest.Wait()
		if len(w.times) != 2 || w.times[1].Sub(w.times[0]) != time.Minute {
			t.Errorf("tried at %v", w.times)
		}
	})
}

func TestMissingFunctionIsTriedSlowlyUntilTheEventIsTooOld(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, func(context.Context, delivery.Call) (delivery.Outcome, error) { return code(problem.NotFound) }, nil)
		defer w.stop()
		w.set(binding(func(d *function.Delivery) { d.MaxAge, d.Attempts = time.Hour, 2 }))
		w.publish(ordersChannel, "1")
		pass(2 * time.Hour)
		synctest.Wait()
		if n := len(w.ran()); n < 60 || n > 100 {
			t.Errorf("tried %d times in an hour", n)
		}
		if d := w.dead(orders); len(d) != 1 || d[0].Reason != delivery.ReasonAge || d[0].Attempts != 0 {
			t.Errorf("dead: %+v", d)
		}
	})
}

// What comes for a trigger that has never run is counted and kept, for a topic from its
// subscription on: sources are held back by the count.
func TestPausedBeforeItEverRanHasABacklog(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil, nil)
		defer func() { w.stop() }()
		topic := binding(nil)
		topic.Channel = "topic.news"
		w.publish("topic.news", "before")
		pass(time.Second)
		if err := w.engine.Pause(t.Context(), orders); err != nil { // it is not in force yet
			t.Fatal(err)
		}
		w.set(topic)
		w.publish("topic.news", "1", "2")
		waiting := func(want int64) {
			t.Helper()
			pass(time.Second) // what is known of it is not older
			n, err := w.engine.Backlog(t.Context(), orders)
			st, err2 := w.engine.Status(t.Context(), orders)
			if n != want || err != nil || err2 != nil || st.Waiting != want || !st.Paused {
				t.Errorf("backlog %d, %v; status %+v, %v; want %d", n, err, st, err2, want)
			}
		}
		waiting(2)
		w.stop()
		w.start()
		w.set(topic)
		w.publish("topic.news", "3")
		waiting(3)
		if err := w.engine.Resume(t.Context(), orders); err != nil {
			t.Fatal(err)
		}
		pass(time.Second)
		synctest.Wait()
		ran := w.ran()
		slices.Sort(ran) // several run at once
		same(t, "ran", ran, []string{"1", "2", "3"})
		if n, err := w.engine.Backlog(t.Context(), orders); n != 0 || err != nil {
			t.Errorf("afterwards: %d, %v", n, err)
		}
	})
}

func TestAgeCountsWhilePaused(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil, nil)
		w.set(binding(func(d *function.Delivery) { d.MaxAge, d.Rate = time.Hour, 1 }))
		if err := w.engine.Pause(t.Context(), orders); err != nil {
			t.Fatal(err)
		}
		for i := range 100 {
			w.publish(ordersChannel, fmt.Sprint("old-", i))
		}
		pass(59 * time.Minute)
		w.publish(ordersChannel, "young")
		w.stop()
		w.start()
		defer func() { w.stop() }()
		w.set(binding(func(d *function.Delivery) { d.MaxAge, d.Rate = time.Hour, 1 }))
		pass(time.Minute)
		synctest.Wait()
		same(t, "ran while paused, over a restart", w.ran(), nil)
		if st, _ := w.engine.Status(t.Context(), orders); !st.Paused || st.Running {
			t.Errorf("status %+v", st)
		}
		if err := w.engine.Resume(t.Context(), orders); err != nil {
			t.Fatal(err)
		}
		pass(time.Second)
		synctest.Wait()
		same(t, "ran", w.ran(), []string{"young"})
		// They are buried at once, whatever the rate.
		if d := w.dead(orders); len(d) != 100 || d[0].Reason != delivery.ReasonAge {
			t.Errorf("%d dead", len(d))
		}
	})
}

func TestPoisonDoesNotBlockNeighbours(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil, nil)
		defer w.stop()
		w.answer = func(_ context.Context, c delivery.Call) (delivery.Outcome, error) {
			if strings.HasPrefix(c.Messages[0].ID, "poison") {
				if c.Attempt > 1 {
					pass(time.Second)
				}
				return code(problem.FunctionCrashed)
			}
			return delivery.Outcome{Status: 200}, nil
		}
		w.set(binding(func(d *function.Delivery) { d.Concurrency, d.Backoff = 1, time.Hour }))
		const many = 2000 // eight times the consumer's window
		for i := range many {
			w.publish(ordersChannel, fmt.Sprint("poison", i))
		}
		w.publish(ordersChannel, "good")
		synctest.Wait() // no time passes
		if ids := w.ran(); ids[len(ids)-1] != "good" {
			t.Errorf("the good one did not run after %d", len(ids))
		}
		if st, _ := w.engine.Status(t.Context(), orders); st.Retrying != many || st.OldestAge != 0 {
			t.Errorf("status %+v", st)
		}
		// Fresh ones and due retries take turns.
		pass(30*time.Minute + 5500*time.Millisecond)
		w.publish(ordersChannel, "second")
		pass(5 * time.Second)
		synctest.Wait()
		if i := slices.Index(w.ran(), "second"); i < 0 || i > many+10 {
			t.Errorf("a fresh event ran as number %d, behind all retries", i)
		}
	})
}

func TestParkedEventsAreBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, status(500), nil)
		defer w.stop()
		w.set(binding(func(d *function.Delivery) { d.Concurrency, d.Backoff = 1, time.Hour }))
		for i := range delivery.MaxParked + 50 {
			w.publish(ordersChannel, fmt.Sprint(i))
		}
		synctest.Wait()
		if n := len(w.ran()); n != delivery.MaxParked {
			t.Errorf("%d events begun, want %d", n, delivery.MaxParked)
		}
	})
}

func TestKeyHoldsOnlyItself(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil, nil)
		defer w.stop()
		w.answer = func(_ context.Context, c delivery.Call) (delivery.Outcome, error) {
			if c.Messages[0].ID == "a:1" {
				return code(problem.FunctionCrashed)
			}
			return delivery.Outcome{Status: 200}, nil
		}
		w.set(binding(func(d *function.Delivery) { d.Ordered, d.Attempts, d.Backoff = true, 3, 10*time.Second }))
		w.publish(ordersChannel, "a:1", "a:2", "b:1", "a:3", "b:2", "free")
		synctest.Wait()
		ids := w.ran()
		slices.Sort(ids)
		same(t, "ran at once", ids, []string{"a:1", "b:1", "b:2", "free"})
		pass(time.Minute)
		synctest.Wait()
		same(t, "ran later", w.ran()[4:], []string{"a:1", "a:1", "a:2", "a:3"})
	})
}

func TestFollowersOfAStuckKeyLeaveTheWindow(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil, nil)
		w.answer = func(_ context.Context, c delivery.Call) (delivery.Outcome, error) {
			if m := c.Messages[0]; m.ID == "a:0" && c.Attempt < 3 {
				return code(problem.FunctionCrashed)
			}
			return delivery.Outcome{Status: 200}, nil
		}
		b := binding(func(d *function.Delivery) { d.Ordered, d.Backoff = true, time.Hour })
		w.set(b)
		var want []string
		for i := range 1000 {
			id := fmt.Sprint("a:", i)
			w.publish(ordersChannel, id)
			want = append(want, id)
		}
		w.publish(ordersChannel, "b:1")
		synctest.Wait()
		same(t, "ran at once", w.ran(), []string{"a:0", "b:1"})
		// And they are still there, in order, after a crash.
		w.crash()
		w.start()
		defer w.stop()
		w.set(b)
		pass(3 * time.Hour)
		synctest.Wait()
		same(t, "ran", w.ran()[3:], want) // after a:0, b:1, a:0
	})
}

// TestParkingThatSeemedToFailLeavesNoGhost: the disk took the records of parked events
// and said that it had not. They must not come back after the events are done.
func TestParkingThatSeemedToFailLeavesNoGhost(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil, nil)
		w.answer = func(_ context.Context, c delivery.Call) (delivery.Outcome, error) {
			if m := c.Messages[0]; m.ID == "a:0" && c.Attempt == 1 {
				return code(problem.FunctionCrashed)
			}
			return delivery.Outcome{Status: 200}, nil
		}
		b := binding(func(d *function.Delivery) { d.Ordered, d.Backoff = true, time.Minute })
		w.set(b)
		w.publish(ordersChannel, "a:0")
		synctest.Wait()
		w.node.mu.Lock()
		w.node.fault = func(what string) (bool, bool) { return what == "events", true }
		w.node.mu.Unlock()
		for i := range 250 {
			w.publish(ordersChannel, fmt.Sprint("a:", i+1))
		}
		synctest.Wait()
		w.node.mu.Lock()
		w.node.fault = nil
		w.node.mu.Unlock()
		pass(10 * time.Minute)
		synctest.Wait()
		w.stop()
		w.start()
		defer w.stop()
		w.set(b)
		pass(time.Minute)
		synctest.Wait()
		if n := len(w.ran()); n != 252 {
			t.Errorf("%d invocations of 251 events, one of them tried twice", n)
		}
	})
}

func TestOrderHoldsOverACrash(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		block := make(chan struct{})
		w := newWorld(t, func(ctx context.Context, _ delivery.Call) (delivery.Outcome, error) {
			select {
			case <-block:
				return delivery.Outcome{Status: 200}, nil
			case <-ctx.Done():
				return delivery.Outcome{}, problem.New(problem.ClientGone, "gone")
			}
		}, nil)
		b := binding(func(d *function.Delivery) { d.Ordered = true })
		w.set(b)
		w.publish(ordersChannel, "a:1", "a:2")
		synctest.Wait()
		w.crash()
		close(block)
		w.publish(ordersChannel, "a:3") // delivered before the other two come again
		began := len(w.ran())
		w.start()
		defer w.stop()
		w.set(b)
		synctest.Wait()
		same(t, "ran before the unsettled ones were back", w.ran()[began:], nil)
		pass(delivery.AckWait + time.Second)
		synctest.Wait()
		same(t, "ran after the crash", w.ran()[began:], []string{"a:1", "a:2", "a:3"})
	})
}

func TestConcurrencyIsBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var now, most atomic.Int32
		w := newWorld(t, func(context.Context, delivery.Call) (delivery.Outcome, error) {
			most.Store(max(most.Load(), now.Add(1)))
			pass(time.Second)
			now.Add(-1)
			return delivery.Outcome{Status: 200}, nil
		}, nil)
		defer w.stop()
		w.set(binding(func(d *function.Delivery) { d.Concurrency = 3 }))
		for i := range 30 {
			w.publish(ordersChannel, fmt.Sprint(i))
		}
		pass(4500 * time.Millisecond)
		if most.Load() != 3 || len(w.ran()) != 15 {
			t.Errorf("%d at once, %d begun, want 3 and 15", most.Load(), len(w.ran()))
		}
		// More is possible while it runs, and nothing is disturbed.
		w.set(binding(func(d *function.Delivery) { d.Concurrency = 10 }))
		synctest.Wait()
		if most.Load() != 10 || len(w.ran()) != 22 {
			t.Errorf("%d at once, %d begun, want 10 and 15 + 7", most.Load(), len(w.ran()))
		}
		pass(10 * time.Second)
		synctest.Wait()
		if most.Load() != 10 || len(w.ran()) != 30 {
			t.Errorf("%d at once, %d begun", most.Load(), len(w.ran()))
		}
	})
}

func TestRateIsBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil, nil)
		defer w.stop()
		w.set(binding(func(d *function.Delivery) { d.Rate = 10 }))
		for i := range 100 {
			w.publish(ordersChannel, fmt.Sprint(i))
		}
		pass(4950 * time.Millisecond)
		synctest.Wait()
		if n := len(w.ran()); n != 50 {
			t.Errorf("%d begun in 5 seconds at 10 a second", n)
		}
	})
}

func TestBatchFillsOrItsWindowEnds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil, nil)
		defer w.stop()
		w.set(binding(func(d *function.Delivery) { d.Batch, d.BatchWindow = 3, time.Minute }))
		w.publish(ordersChannel, "1", "2", "3", "4")
		synctest.Wait()
		calls, _ := w.made()
		if len(calls) != 1 || len(calls[0].Messages) != 3 {
			t.Fatalf("a full batch: %d calls, %q", len(calls), w.ran())
		}
		began := time.Now()
		pass(2 * time.Minute)
		synctest.Wait()
		calls, times := w.made()
		if len(calls) != 2 || len(calls[1].Messages) != 1 || times[1].Sub(began) != time.Minute {
			t.Errorf("the rest: %d calls at %v", len(calls), times)
		}
	})
}

func TestBatchIsBoundedInBytes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, func(context.Context, delivery.Call) (delivery.Outcome, error) {
			pass(time.Minute)
			return delivery.Outcome{Status: 200}, nil
		}, nil)
		defer w.stop()
		for i := range 20 {
			w.publishMessage(ordersChannel, &event.Message{Event: event.Event{ID: fmt.Sprint(i), Source: "s", Type: "t"}, Data: make([]byte, 1<<20)})
		}
		w.set(binding(func(d *function.Delivery) { d.Batch, d.Concurrency = 100, 1 }))
		pass(time.Hour)
		synctest.Wait()
		most := 0
		for _, c := range w.calls {
			most = max(most, len(c.Messages))
		}
		if most != 5 || len(w.ran()) != 20 {
			t.Errorf("%d events of a MiB each in one invocation, %d ran", most, len(w.ran()))
		}
	})
}

func TestOneTriggerHoldsFewBytes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, func(context.Context, delivery.Call) (delivery.Outcome, error) {
			pass(time.Minute)
			return delivery.Outcome{Status: 200}, nil
		}, nil)
		defer w.stop()
		for i := range 20 {
			w.publishMessage(ordersChannel, &event.Message{Event: event.Event{ID: fmt.Sprint(i), Source: "s", Type: "t"}, Data: make([]byte, 1<<20)})
		}
		w.set(binding(func(d *function.Delivery) { d.Concurrency = 20 }))
		synctest.Wait()
		if n := len(w.ran()); n != 7 {
			t.Errorf("%d events of a MiB and a little are in hand, want 7", n)
		}
		pass(time.Hour)
	})
}

func TestChangedTriggerDoesNotOvertakeItself(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, func(context.Context, delivery.Call) (delivery.Outcome, error) {
			pass(time.Minute)
			return delivery.Outcome{Status: 200}, nil
		}, nil)
		defer w.stop()
		b := binding(func(d *function.Delivery) { d.Ordered = true })
		w.set(b)
		w.publish(ordersChannel, "a:1", "a:2")
		pass(time.Second)
		w.set() // it is taken away and comes back while an event is under way
		w.set(b)
		synctest.Wait()
		same(t, "begun", w.ran(), []string{"a:1"})
		pass(10 * time.Minute)
		synctest.Wait()
		same(t, "ran", w.ran(), []string{"a:1", "a:2"})
	})
}

func TestParkedEventThatComesAgainIsSettled(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil, nil)
		defer w.stop()
		w.answer = func(_ context.Context, c delivery.Call) (delivery.Outcome, error) {
			return delivery.Outcome{Status: 500 - 300*min(1, c.Attempt-1)}, nil
		}
		acks := 0
		w.node.fault = func(what string) (bool, bool) {
			if what == "ack" {
				acks++
			}
			return what == "ack" && acks == 1, false
		}
		w.set(binding(func(d *function.Delivery) { d.Backoff = time.Hour }))
		w.publish(ordersChannel, "1")
		pass(2 * time.Minute)
		synctest.Wait()
		if n := w.unsettled(); n != 0 {
			t.Error("what came again was not settled")
		}
		pass(2 * time.Hour)
		synctest.Wait()
		same(t, "ran", w.ran(), []string{"1", "1"})
	})
}

// TestDoneEventThatComesAgainIsSettled loses the word that an event was done: its copy is
// settled, and not run.
func TestDoneEventThatComesAgainIsSettled(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil, nil)
		defer w.stop()
		acks := 0
		w.node.fault = func(what string) (bool, bool) {
			if what == "ack" {
				acks++
			}
			return what == "ack" && acks == 1, false
		}
		w.set(binding(nil))
		w.publish(ordersChannel, "1")
		pass(5 * time.Minute)
		synctest.Wait()
		same(t, "ran", w.ran(), []string{"1"})
		if n := w.unsettled(); n != 0 || acks < 2 {
			t.Errorf("%d are not settled after %d words", n, acks)
		}
	})
}

func TestPartOfABatchFails(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, func(_ context.Context, c delivery.Call) (delivery.Outcome, error) {
			out := delivery.Outcome{Status: 200}
			for _, m := range c.Messages {
				if m.ID == "2" {
					out.Failed = []string{"2"}
				}
			}
			return out, nil
		}, nil)
		defer w.stop()
		w.publish(ordersChannel, "1", "2", "3")
		w.set(binding(func(d *function.Delivery) { d.Batch, d.BatchWindow, d.Attempts = 3, time.Second, 3 }))
		pass(time.Hour)
		synctest.Wait()
		same(t, "ran", w.ran(), []string{"1", "2", "3", "2", "2"})
		if d := w.dead(orders); len(d) != 1 || d[0].Message.ID != "2" || d[0].Attempts != 3 {
			t.Errorf("dead: %+v", d)
		} else if d[0].Status != 200 || !strings.Contains(d[0].Detail, "names the event as failed") {
			t.Errorf("the letter does not say why: status %d, %q", d[0].Status, d[0].Detail)
		}
	})
}

func TestFailureOfWhomNobodySentFailsTheBatch(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, func(context.Context, delivery.Call) (delivery.Outcome, error) {
			return delivery.Outcome{Status: 200, Failed: []string{"nobody"}}, nil
		}, nil)
		defer w.stop()
		w.publish(ordersChannel, "1", "2")
		w.set(binding(func(d *function.Delivery) { d.Batch, d.BatchWindow, d.Backoff = 2, time.Second, time.Hour }))
		pass(time.Minute)
		synctest.Wait()
		if st, _ := w.engine.Status(t.Context(), orders); st.Retrying != 2 {
			t.Errorf("status %+v", st)
		}
	})
}

func TestFailedBatchIsTriedOneByOne(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, func(_ context.Context, c delivery.Call) (delivery.Outcome, error) {
			for _, m := range c.Messages {
				if m.ID == "2" {
					return delivery.Outcome{Status: 400}, nil
				}
			}
			return delivery.Outcome{Status: 200}, nil
		}, nil)
		defer w.stop()
		w.publish(ordersChannel, "1", "2", "3")
		w.set(binding(func(d *function.Delivery) { d.Batch, d.BatchWindow = 3, time.Second }))
		pass(time.Hour)
		synctest.Wait()
		if len(w.calls) != 4 {
			t.Errorf("%d calls, want one of all and one of each", len(w.calls))
		}
		if d := w.dead(orders); len(d) != 1 || d[0].Message.ID != "2" || d[0].Reason != delivery.ReasonPermanent {
			t.Errorf("dead: %+v", d)
		}
	})
}

func TestFilterSettlesWhatItRefuses(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil, nil)
		defer w.stop()
		b := binding(nil)
		b.Channel = "topic.news"
		b.Filter = func(m *event.Message) bool { return m.ID != "no" }
		w.publish("topic.news", "before")
		pass(time.Second)
		b.Paused = true
		w.set(b) // from here on it is subscribed, paused or not
		w.publish("topic.news", "no", "yes")
		pass(time.Hour)
		b.Paused = false
		w.set(b)
		synctest.Wait()
		same(t, "ran", w.ran(), []string{"yes"})
		if st, _ := w.engine.Status(t.Context(), orders); st.Filtered != 1 || w.unsettled() != 0 {
			t.Errorf("status %+v, %d unsettled", st, w.unsettled())
		}
	})
}

func TestLongInvocationIsNotDeliveredTwice(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, func(context.Context, delivery.Call) (delivery.Outcome, error) {
			pass(10 * time.Minute)
			return delivery.Outcome{Status: 200}, nil
		}, nil)
		defer w.stop()
		w.set(binding(func(d *function.Delivery) { d.Concurrency = 1 }))
		w.publish(ordersChannel, "1", "2")
		pass(30 * time.Minute)
		synctest.Wait()
		same(t, "ran", w.ran(), []string{"1", "2"})
		c := w.disk.consumers["shop.trigger.ship.orders"]
		if c.words == 0 || len(c.pending) != 0 {
			t.Errorf("%d words, %d pending", c.words, len(c.pending))
		}
	})
}

// TestDueRetryWaitsForAPlaceInSilence would never end if the alarm rang again and again
// for an event that is due and has no place: fake time stands still then.
func TestDueRetryWaitsForAPlaceInSilence(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, func(_ context.Context, c delivery.Call) (delivery.Outcome, error) {
			if c.Messages[0].ID == "bad" {
				return delivery.Outcome{Status: 500}, nil
			}
			pass(time.Minute)
			return delivery.Outcome{Status: 200}, nil
		}, nil)
		defer w.stop()
		w.set(binding(func(d *function.Delivery) { d.Concurrency, d.Attempts = 1, 2 }))
		w.publish(ordersChannel, "bad", "long")
		pass(2 * time.Minute)
		synctest.Wait()
		same(t, "ran", w.ran(), []string{"bad", "long", "bad"})
	})
}

func TestAttemptsSurviveACrash(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, status(500), nil)
		b := binding(func(d *function.Delivery) { d.Attempts, d.Backoff, d.BackoffMost = 4, time.Minute, time.Minute })
		w.set(b)
		w.publish(ordersChannel, "1")
		for range 3 {
			synctest.Wait()
			w.crash()
			w.start()
			w.set(b)
			pass(30 * time.Second)
		}
		defer w.stop()
		pass(time.Hour)
		synctest.Wait()
		if n := len(w.ran()); n != 4 {
			t.Errorf("%d attempts over three crashes, want 4", n)
		}
		if d := w.dead(orders); len(d) != 1 || d[0].Attempts != 4 {
			t.Errorf("dead: %+v", d)
		}
	})
}

func TestStopLetsFinishWhatIsUnderWay(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, func(ctx context.Context, _ delivery.Call) (delivery.Outcome, error) {
			pass(5 * time.Second)
			return delivery.Outcome{Status: 200}, ctx.Err()
		}, nil)
		b := binding(func(d *function.Delivery) { d.Concurrency = 1 })
		w.set(b)
		w.publish(ordersChannel, "1", "2")
		pass(time.Second)
		began := time.Now()
		w.stop()
		if d := time.Since(began); d != 4*time.Second {
			t.Errorf("stopped after %v", d)
		}
		same(t, "ran", w.ran(), []string{"1"})
		if n := w.unsettled(); n != 1 {
			t.Errorf("%d unsettled", n)
		}
		if err := w.engine.Set(t.Context(), nil); err == nil {
			t.Error("a stopped engine takes bindings")
		}
		// What was in hand comes again at once, and not after AckWait.
		w.start()
		w.set(b)
		pass(6 * time.Second)
		synctest.Wait()
		same(t, "ran", w.ran(), []string{"1", "2"})
		w.stop()
	})
}

func TestStopCutsOffWhatTakesTooLong(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, func(ctx context.Context, _ delivery.Call) (delivery.Outcome, error) {
			<-ctx.Done()
			return code(problem.ClientGone)
		}, nil)
		b := binding(func(d *function.Delivery) { d.Attempts = 1 })
		w.set(b)
		w.publish(ordersChannel, "1")
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := w.engine.Stop(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("stopped with %v", err)
		}
		if len(w.dead(orders)) > 0 || w.unsettled() != 1 {
			t.Errorf("being cut off was counted as an attempt")
		}
	})
}

func TestFullDiskLosesNothing(t *testing.T) {
	t.Parallel()
	for _, what := range []string{"events", "deads", "results"} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				var full atomic.Bool
				full.Store(true)
				fault := func(which string) (bool, bool) { return which == what && full.Load(), false }
				w := newWorld(t, status(500), func(c *delivery.Config) {
					c.Results = results(func() error {
						if fail, _ := fault("results"); fail {
							return errFault
						}
						return nil
					})
				})
				defer w.stop()
				w.node.fault = fault
				async := delivery.Key{Namespace: "shop", Function: "ship"}
				w.set(delivery.Binding{Key: async, Delivery: function.Delivery{
					Attempts: 1, OnFailure: []function.Destination{{Topic: "failures"}},
				}})
				w.publish("async.ship", "1")
				pass(10 * time.Minute)
				synctest.Wait()
				if w.unsettled() != 1 {
					t.Error("the event was settled before its end was on disk")
				}
				if st, _ := w.engine.Status(t.Context(), async); st.LastError.Detail == "" {
					t.Error("the status says nothing of it")
				}
				full.Store(false)
				pass(time.Minute)
				synctest.Wait()
				if len(w.dead(async)) != 1 || len(w.on("topic.failures")) != 1 || w.unsettled() != 0 {
					t.Errorf("%d dead, %d told, %d unsettled", len(w.dead(async)), len(w.on("topic.failures")), w.unsettled())
				}
				if n := len(w.ran()); n != 1 {
					t.Errorf("ran %d times while the disk was full", n)
				}
			})
		})
	}
}

type results func() error

func (r results) Done(context.Context, function.Ref, string, delivery.Result) error { return r() }

func TestMalformedRecordIsBuried(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil, nil)
		defer w.stop()
		s := stream{&node{d: w.disk}, w.disk.events, ""}
		if _, err := s.Publish(t.Context(), []delivery.Entry{{Namespace: "shop", Channel: ordersChannel, ID: "x", Data: []byte("junk")}}); err != nil {
			t.Fatal(err)
		}
		w.set(binding(nil))
		synctest.Wait()
		if d := w.dead(orders); len(d) != 1 || d[0].Reason != delivery.ReasonMalformed || w.unsettled() != 0 || len(w.ran()) > 0 {
			t.Errorf("dead: %+v", d)
		}
	})
}

func TestWhatBreaksTheRulesIsBuriedAndNeverRuns(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil, nil)
		defer w.stop()
		b := binding(nil)
		b.Check = func(m *event.Message) (field, reason string) {
			if m.ID == "2" {
				return "data/price", "must be a number"
			}
			return "", ""
		}
		w.publish(ordersChannel, "1", "2", "3")
		w.set(b)
		synctest.Wait()
		got := w.ran()
		slices.Sort(got)
		same(t, "ran", got, []string{"1", "3"})
		d := w.dead(orders)
		if len(d) != 1 || d[0].Reason != delivery.ReasonInvalid || d[0].Field != "data/price" || d[0].Detail != "must be a number" || w.unsettled() != 0 {
			t.Errorf("dead letters %+v, %d not settled", d, w.unsettled())
		}
	})
}

func TestPurgedEventIsBuriedAsLost(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, status(500), nil)
		defer w.stop()
		w.set(binding(nil))
		w.publish(ordersChannel, "1")
		synctest.Wait()
		if _, err := (stream{w.node, w.disk.events, ""}).Purge(t.Context(), "shop", ordersChannel, 1); err != nil {
			t.Fatal(err)
		}
		pass(time.Minute)
		synctest.Wait()
		if d := w.dead(orders); len(d) != 1 || d[0].Reason != delivery.ReasonLost {
			t.Errorf("dead: %+v", d)
		}
	})
}

func TestBytesInHandAreBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		block := make(chan struct{})
		var once sync.Once
		w := newWorld(t, func(context.Context, delivery.Call) (delivery.Outcome, error) {
			<-block
			return delivery.Outcome{Status: 200}, nil
		}, func(c *delivery.Config) { c.Memory = 3 << 20 })
		defer w.stop()
		defer once.Do(func() { close(block) })
		other := delivery.Key{Namespace: "shop", Function: "mail", Trigger: "orders"}
		w.set(binding(nil), delivery.Binding{Key: other})
		for i := range 10 {
			m := &event.Message{Event: event.Event{ID: fmt.Sprint(i), Source: "s", Type: "t"}, Data: make([]byte, 1<<20)}
			w.publishMessage(ordersChannel, m)
		}
		synctest.Wait()
		w.publishMessage("trigger.mail.orders", &event.Message{Event: event.Event{ID: "m", Source: "s", Type: "t"}, Data: make([]byte, 1<<20)})
		synctest.Wait()
		ids := w.ran()
		if len(ids) != 3 || ids[2] != "m" {
			t.Errorf("ran %q, want two that fit and one of the neighbour, who may always hold one", ids)
		}
		once.Do(func() { close(block) })
		synctest.Wait()
		if n := len(w.ran()); n != 11 {
			t.Errorf("%d ran", n)
		}
	})
}

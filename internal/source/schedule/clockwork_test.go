package schedule

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/casemate-dev/casemate/internal/event"
	"github.com/casemate-dev/casemate/internal/function"
	"github.com/casemate-dev/casemate/internal/source"
)

// far is the other side of a schedule: a sink that knows ids again, as the bus does, a
// store, and a wall clock that can be put forward and back. The bubble's clock begins at
// 2000-01-01T00:00:00Z.
type far struct {
	mu     sync.Mutex
	offset time.Duration
	fail   error
	block  chan struct{} // Accept waits for it, when not nil
	ids    []string      // in the order of their first coming
	again  int           // ids that came again
	kept   map[string][]byte
	health []source.Health
	last   event.Message
}

func newFar() *far { return &far{kept: map[string][]byte{}} }

func (f *far) now() time.Time {
	f.mu.Lock()
	defer f.mu.Unlock()
	return time.Now().Add(f.offset)
}

func (f *far) shift(d time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.offset += d
}

func (f *far) failing(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fail = err
}

func (f *far) Accept(ctx context.Context, events []event.Message) error {
	f.mu.Lock()
	block, fail := f.block, f.fail
	f.mu.Unlock()
	if block != nil {
		select {
		case <-block:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if fail != nil {
		return fail
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, m := range events {
		f.last = m
		if slices.Contains(f.ids, m.ID) {
			f.again++
			continue
		}
		f.ids = append(f.ids, m.ID)
	}
	return nil
}

func (f *far) Get(_ context.Context, key string) ([]byte, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.kept[key], nil
}

func (f *far) Put(_ context.Context, key string, value []byte) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.kept[key] = value
	return nil
}

func (f *far) Delete(context.Context, string) error { return nil }

func (f *far) binding(settings string) source.Binding {
	return source.Binding{
		Ref:     function.Ref{Namespace: "shop", Name: "report"},
		Trigger: function.Trigger{Name: "nightly", Kind: "schedule", Settings: json.RawMessage(settings)},
		Sink:    f, Store: f, Clock: f.now,
		Report: func(h source.Health) {
			f.mu.Lock()
			defer f.mu.Unlock()
			f.health = append(f.health, h)
		},
	}
}

// start runs a schedule by itself; what it returns stops it.
func (f *far) start(t *testing.T, settings string) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- Kind{}.Run(ctx, f.binding(settings)) }()
	synctest.Wait()
	return func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

// pass lets time pass, of the bubble's clock.
func pass(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

// take gives what fired since the last call.
func (f *far) take() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	ids := f.ids
	f.ids = nil
	return ids
}

func (f *far) expect(t *testing.T, when string, want ...string) {
	t.Helper()
	if got := f.take(); !slices.Equal(got, want) {
		t.Errorf("%s: fired %v, want %v", when, got, want)
	}
}

func bubble(t *testing.T, run func(*testing.T, *far)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) { run(t, newFar()) })
}

func TestFiresEachTickOnce(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T, f *far) {
		defer f.start(t, `{"cron":"0 * * * *","zone":"Asia/Kathmandu"}`)() // +05:45
		pass(2 * time.Hour)
		f.expect(t, "two hours", "2000-01-01T00:15:00Z", "2000-01-01T01:15:00Z")
		m := f.last
		if m.Type != Type || m.Subject != "nightly" || !m.Time.Equal(time.Date(2000, 1, 1, 1, 15, 0, 0, time.UTC)) || m.DataContentType != "application/json" ||
			string(m.Data) != `{"scheduled":"2000-01-01T07:00:00+05:45","zone":"Asia/Kathmandu","name":"nightly","cron":"0 * * * *"}` {
			t.Errorf("got %+v %s", m, m.Data)
		}
		m.Source = "/x"
		if err := m.Validate(); err != nil {
			t.Error(err)
		}
	})
}

func TestAt(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T, f *far) {
		stop := f.start(t, `{"at":"2000-01-01T06:00:00Z"}`)
		pass(time.Hour)
		stop()
		pass(24 * time.Hour) // nobody was there when its time came
		stop = f.start(t, `{"at":"2000-01-01T06:00:00Z"}`)
		pass(time.Minute)
		f.expect(t, "after the downtime", "2000-01-01T06:00:00Z")
		stop()
		stop = f.start(t, `{"at":"2000-01-01T06:00:00Z"}`)
		pass(time.Hour)
		f.expect(t, "after another start")
		stop()
		// Of a moment that had passed before there was the schedule, nothing is due.
		defer f.start(t, `{"at":"2000-01-01T07:00:00Z"}`)()
		pass(time.Hour)
		f.expect(t, "a moment in the past")
		if h := f.health[len(f.health)-1]; h.State != source.Running || h.Reason == "" {
			t.Errorf("got %+v", h)
		}
	})
}

func TestMissedTicks(t *testing.T) {
	t.Parallel()
	for policy, want := range map[string][]string{
		"skip": nil,
		"once": {"2000-01-01T05:00:00Z"},
		"all":  {"2000-01-01T02:00:00Z", "2000-01-01T03:00:00Z", "2000-01-01T04:00:00Z", "2000-01-01T05:00:00Z"},
	} {
		t.Run(policy, func(t *testing.T) {
			t.Parallel()
			settings := fmt.Sprintf(`{"every":"1h","missed":%q}`, policy)
			bubble(t, func(t *testing.T, f *far) {
				stop := f.start(t, settings)
				pass(90 * time.Minute)
				f.expect(t, "before", "2000-01-01T01:00:00Z")
				stop()
				pass(4 * time.Hour)
				stop = f.start(t, settings)
				pass(time.Minute)
				f.expect(t, "after the downtime", want...)
				pass(time.Hour)
				f.expect(t, "an hour later", "2000-01-01T06:00:00Z")
				stop()
				// A machine that slept is the same.
				pass(10 * time.Minute)
				stop = f.start(t, settings)
				f.shift(2*time.Hour - time.Minute)
				pass(longestSleep)
				if got := f.take(); len(got) != map[string]int{"skip": 0, "once": 1, "all": 2}[policy] {
					t.Errorf("after sleep: %v", got)
				}
				stop()
			})
		})
	}
	t.Run("a restart in the moment of a tick", func(t *testing.T) {
		t.Parallel()
		bubble(t, func(t *testing.T, f *far) {
			stop := f.start(t, `{"every":"1h"}`)
			pass(time.Hour - time.Second)
			stop()
			pass(30 * time.Second)
			defer f.start(t, `{"every":"1h"}`)()
			f.expect(t, "within the grace", "2000-01-01T01:00:00Z")
		})
	})
	t.Run("all is bounded", func(t *testing.T) {
		t.Parallel()
		bubble(t, func(t *testing.T, f *far) {
			stop := f.start(t, `{"every":"1s","missed":"all"}`)
			stop()
			f.take()
			pass(10 * 24 * time.Hour)
			defer f.start(t, `{"every":"1s","missed":"all"}`)()
			if got := f.take(); len(got) != MaxMissed+60 || !slices.IsSorted(got) || got[len(got)-1] != "2000-01-11T00:00:00Z" {
				t.Errorf("%d fired, up to %s", len(got), got[len(got)-1])
			}
		})
	})
	t.Run("other settings missed nothing", func(t *testing.T) {
		t.Parallel()
		bubble(t, func(t *testing.T, f *far) {
			f.start(t, `{"every":"1h","missed":"all"}`)()
			pass(5 * time.Hour)
			defer f.start(t, `{"every":"30m","missed":"all"}`)()
			f.expect(t, "new settings")
		})
	})
}

// Two nodes and a restart in between: the ids are the same, and ordered.
func TestOnceHoweverManyNodes(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T, f *far) {
		a, b := f.start(t, `{"every":"1m"}`), f.start(t, `{"every":"1m"}`)
		pass(3*time.Minute + time.Second)
		a()
		a = f.start(t, `{"every":"1m"}`)
		pass(2 * time.Minute)
		a()
		b()
		f.expect(t, "five minutes", "2000-01-01T00:01:00Z", "2000-01-01T00:02:00Z", "2000-01-01T00:03:00Z", "2000-01-01T00:04:00Z", "2000-01-01T00:05:00Z")
		if f.again != 5 {
			t.Errorf("%d ids came again", f.again)
		}
	})
}

func TestClockJumps(t *testing.T) {
	t.Parallel()
	t.Run("back by hours", func(t *testing.T) {
		t.Parallel()
		bubble(t, func(t *testing.T, f *far) {
			defer f.start(t, `{"every":"1h"}`)()
			pass(3*time.Hour + time.Minute)
			f.expect(t, "before", "2000-01-01T01:00:00Z", "2000-01-01T02:00:00Z", "2000-01-01T03:00:00Z")
			f.shift(-2 * time.Hour)
			pass(2 * time.Hour)
			f.expect(t, "the same hours again")
			if f.again != 0 {
				t.Errorf("%d ticks were handed in again", f.again)
			}
			pass(time.Hour)
			f.expect(t, "then", "2000-01-01T04:00:00Z")
		})
	})
	t.Run("back by years", func(t *testing.T) {
		t.Parallel()
		bubble(t, func(t *testing.T, f *far) {
			f.shift(20 * 365 * 24 * time.Hour)
			defer f.start(t, `{"every":"1h"}`)()
			pass(2 * time.Hour)
			if got := f.take(); len(got) != 2 {
				t.Errorf("got %v", got)
			}
			f.shift(-20 * 365 * 24 * time.Hour)
			pass(time.Hour)
			f.expect(t, "after the clock was mended", "2000-01-01T03:00:00Z")
			if !slices.ContainsFunc(f.health, func(h source.Health) bool { return h.State == source.Alert }) {
				t.Errorf("no alert: %+v", f.health)
			}
		})
	})
	t.Run("back by years while nobody was there", func(t *testing.T) {
		t.Parallel()
		bubble(t, func(t *testing.T, f *far) {
			f.shift(20 * 365 * 24 * time.Hour)
			f.start(t, `{"every":"1h"}`)()
			f.shift(-20 * 365 * 24 * time.Hour)
			defer f.start(t, `{"every":"1h"}`)()
			pass(time.Hour)
			f.expect(t, "after the clock was mended", "2000-01-01T01:00:00Z")
		})
	})
	t.Run("forward", func(t *testing.T) {
		t.Parallel()
		bubble(t, func(t *testing.T, f *far) {
			defer f.start(t, `{"cron":"0 12 * * *"}`)()
			pass(time.Minute)
			f.shift(12*time.Hour - time.Minute) // noon, at once
			pass(longestSleep)
			f.expect(t, "noticed soon", "2000-01-01T12:00:00Z")
			f.shift(24*time.Hour + 30*time.Minute) // past the next one
			pass(longestSleep)
			f.expect(t, "missed")
			pass(24 * time.Hour)
			f.expect(t, "the next one", "2000-01-03T12:00:00Z")
		})
	})
}

func TestFailureIsTriedAgain(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T, f *far) {
		defer f.start(t, `{"every":"1h"}`)()
		f.failing(errors.New("disk"))
		pass(time.Hour + 10*time.Minute) // longer than the grace
		f.expect(t, "while it fails")
		if h := f.health[len(f.health)-1]; h.State != source.Failing || h.Reason != "disk" {
			t.Errorf("got %+v", h)
		}
		f.failing(nil)
		pass(2 * time.Minute)
		f.expect(t, "afterwards", "2000-01-01T01:00:00Z")
		if h := f.health[len(f.health)-1]; h.State != source.Running {
			t.Errorf("got %+v", h)
		}
	})
}

// A thousand schedules on one clockwork, one of which has a sink that does not let go.
func TestClockwork(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		stuck, all := newFar(), make([]*far, 1000)
		stuck.block = make(chan struct{})
		c := NewClockwork(stuck.now)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- c.Run(ctx) }()
		if _, err := c.Add(ctx, stuck.binding(`{"every":"1m"}`)); err != nil {
			t.Fatal(err)
		}
		removes := make([]func(), len(all))
		for i := range all {
			all[i] = newFar()
			var err error
			if removes[i], err = c.Add(ctx, all[i].binding(fmt.Sprintf(`{"every":"%dm"}`, i%10+1))); err != nil {
				t.Fatal(err)
			}
		}
		pass(10*time.Minute + time.Second)
		for i, f := range all {
			if got := f.take(); len(got) != 10/(i%10+1) {
				t.Fatalf("schedule %d: fired %v", i, got)
			}
		}
		removes[0]()
		removes[0]()
		pass(time.Minute)
		all[0].expect(t, "removed")
		all[10].expect(t, "its neighbour", "2000-01-01T00:11:00Z")
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func BenchmarkThousandAtRest(b *testing.B) {
	now := time.Date(2026, 1, 1, 0, 0, 1, 0, time.UTC)
	f := newFar()
	c := NewClockwork(func() time.Time { return now })
	for i := range 1000 {
		if _, err := c.Add(b.Context(), f.binding(fmt.Sprintf(`{"cron":"%d 3 * * *","zone":"Europe/Berlin"}`, i%60))); err != nil {
			b.Fatal(err)
		}
	}
	var wg sync.WaitGroup
	b.ReportAllocs()
	for b.Loop() {
		c.turn(&wg)
	}
}

package bus

import (
	"context"
	"fmt"
	"hash/maphash"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/casemate-dev/casemate/internal/state"
)

func eventsConfig(change ...func(*EventsConfig)) EventsConfig {
	cfg := EventsConfig{Name: "main", SubjectPrefix: "event", MaxAge: time.Hour, MaxBytes: 1 << 30, Dedup: 10 * time.Minute}
	for _, f := range change {
		f(&cfg)
	}
	return cfg
}

func openEvents(t testing.TB, b *Bus, change ...func(*EventsConfig)) *Events {
	t.Helper()
	e, err := b.Events(t.Context(), eventsConfig(change...))
	ok(t, err)
	return e
}

// entry makes one from "namespace/channel/id"; its data is the id.
func entry(text string) Entry {
	p := strings.SplitN(text, "/", 3)
	return Entry{Namespace: p[0], Channel: p[1], ID: p[2], Data: []byte("data of " + p[2])}
}

func publishAll(t testing.TB, e *Events, texts ...string) []Stored {
	t.Helper()
	var in []Entry
	for _, s := range texts {
		in = append(in, entry(s))
	}
	out, err := e.Publish(t.Context(), in)
	ok(t, err)
	return out
}

func readEvents(t testing.TB, e *Events, f EventFilter) string {
	t.Helper()
	var out []string
	ok(t, e.Read(t.Context(), f, func(r EventRecord) bool {
		if string(r.Data) != "data of "+r.ID || r.Sequence == 0 || r.Time.IsZero() {
			t.Errorf("%+v", r)
		}
		out = append(out, r.Namespace+"/"+r.Channel+"/"+r.ID)
		return true
	}))
	return strings.Join(out, " ")
}

func TestEventsAreReadInOrderByFilter(t *testing.T) {
	t.Parallel()
	b := start(t, t.TempDir())
	e := openEvents(t, b)
	if got := readEvents(t, e, EventFilter{}); got != "" {
		t.Fatal(got)
	}
	publishAll(t, e, "a/topic.x/0")
	publishAll(t, e, "a/trigger.fn.t/1", "b/topic.x/2", "a/topic.x/3")
	for want, f := range map[string]EventFilter{
		"a/topic.x/0 a/trigger.fn.t/1 b/topic.x/2 a/topic.x/3": {},
		"a/topic.x/0 a/trigger.fn.t/1 a/topic.x/3":             {Namespace: "a"},
		"a/topic.x/0 a/topic.x/3":                              {Namespace: "a", Channel: "topic.x"},
		"a/topic.x/0 b/topic.x/2 a/topic.x/3":                  {Channel: "topic.x"},
		"b/topic.x/2 a/topic.x/3":                              {After: 2},
		"a/topic.x/3":                                          {Last: 1},
		"a/trigger.fn.t/1 a/topic.x/3":                         {Namespace: "a", Last: 2},
		"a/trigger.fn.t/1":                                     {Namespace: "a", Last: 2, Limit: 1},
		"a/topic.x/0":                                          {Limit: 1},
		"":                                                     {Namespace: "c"},
	} {
		if got := readEvents(t, e, f); got != want {
			t.Errorf("%+v: got %s, want %s", f, got, want)
		}
	}
	if got := readEvents(t, e, EventFilter{Since: time.Now().Add(time.Hour)}); got != "" {
		t.Error(got)
	}
	if got := readEvents(t, e, EventFilter{After: 99}); got != "" {
		t.Error(got)
	}
	third, err := e.Get(t.Context(), 3)
	ok(t, err)
	if third.Namespace != "b" || third.Channel != "topic.x" || third.ID != "2" || string(third.Data) != "data of 2" {
		t.Errorf("%+v", third)
	}
	if got := readEvents(t, e, EventFilter{Until: third.Time, Namespace: "a", Channel: "topic.x"}); got != "a/topic.x/0" {
		t.Error(got)
	}
	_, err = e.Get(t.Context(), 99)
	wantErr(t, err, state.ErrNotFound)
	if err := b.Check(t.Context()); err != nil || len(b.Warnings()) != 0 {
		t.Fatal(err, b.Warnings())
	}
}

func TestEventsReadsManyPages(t *testing.T) {
	t.Parallel()
	e := openEvents(t, start(t, t.TempDir()))
	const n = 3*pageEvents + 7
	for i := 0; i < n; {
		var in []Entry
		for ; i < n && len(in) < 100; i++ {
			in = append(in, entry(fmt.Sprintf("a/topic.x%d/%d", i%3, i)))
		}
		_, err := e.Publish(t.Context(), in)
		ok(t, err)
	}
	for _, f := range []EventFilter{{}, {Namespace: "a", Channel: "topic.x1"}, {Last: pageEvents + 1}} {
		want := n
		if f.Channel != "" {
			want = n / 3
		}
		if f.Last > 0 {
			want = f.Last
		}
		if got := len(strings.Fields(readEvents(t, e, f))); got != want {
			t.Errorf("%+v: %d, want %d", f, got, want)
		}
	}
}

func TestEventsRefuseWhatIsMalformed(t *testing.T) {
	t.Parallel()
	b := start(t, t.TempDir())
	e := openEvents(t, b)
	good := entry("a/topic.x/1")
	for name, spoil := range map[string]func(*Entry){
		"namespace":  func(n *Entry) { n.Namespace = "*" },
		"one label":  func(n *Entry) { n.Channel = "topic" },
		"four":       func(n *Entry) { n.Channel = "a.b.c.d" },
		"wildcard":   func(n *Entry) { n.Channel = "topic.>" },
		"empty part": func(n *Entry) { n.Channel = "topic." },
		"no id":      func(n *Entry) { n.ID = "" },
		"long id":    func(n *Entry) { n.ID = strings.Repeat("x", MaxEventID+1) },
		"large":      func(n *Entry) { n.Data = make([]byte, MaxValue+1) },
	} {
		bad := good
		spoil(&bad)
		if _, err := e.Publish(t.Context(), []Entry{good, bad}); err == nil {
			t.Errorf("%s was taken", name)
		}
	}
	if _, err := e.Publish(t.Context(), make([]Entry, MaxPublish+1)); err == nil {
		t.Error("too many were taken")
	}
	if got := readEvents(t, e, EventFilter{}); got != "" {
		t.Errorf("of refused entries, %s was stored", got)
	}
	for field, spoil := range map[string]func(*EventsConfig){
		"SubjectPrefix": func(c *EventsConfig) { c.SubjectPrefix = "a.b" },
		"MaxAge":        func(c *EventsConfig) { c.MaxAge = 0 },
		"MaxBytes":      func(c *EventsConfig) { c.MaxBytes = 0 },
		"Dedup":         func(c *EventsConfig) { c.Dedup = 2 * time.Hour },
		"Keep":          func(c *EventsConfig) { c.Keep = -1 },
	} {
		cfg := eventsConfig(spoil)
		cfg.Name = "other"
		if _, err := b.Events(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), "EventsConfig."+field) {
			t.Errorf("%s: %v", field, err)
		}
	}
}

func TestEventsTakeAnIDOnceInItsChannel(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	now := time.Now()
	clock := func(c *Config) { c.Clock = func() time.Time { return now } }
	b := start(t, dir, clock)
	e := openEvents(t, b)
	first := publishAll(t, e, "a/topic.x/1", "a/topic.x/1", "a/topic.y/1", "b/topic.x/1", "a/topic.x/2")
	if want := "[{1 false} {1 true} {2 false} {3 false} {4 false}]"; fmt.Sprint(first) != want {
		t.Fatal(first)
	}
	if again := publishAll(t, e, "a/topic.x/2", "a/topic.x/3"); fmt.Sprint(again) != "[{4 true} {5 false}]" {
		t.Fatal(again)
	}
	stop(t, b)
	b = start(t, dir, clock)
	e = openEvents(t, b)
	if again := publishAll(t, e, "a/topic.x/1", "b/topic.x/1", "a/topic.x/3"); fmt.Sprint(again) != "[{1 true} {3 true} {5 true}]" {
		t.Fatal("after a restart:", again)
	}
	// Purged in between, it is a duplicate all the same.
	n, err := e.Purge(t.Context(), "a", "topic.x", 4)
	ok(t, err)
	if again := publishAll(t, e, "a/topic.x/1"); n != 2 || !again[0].Duplicate {
		t.Fatal(n, again)
	}
	now = now.Add(10*time.Minute + time.Second)
	if late := publishAll(t, e, "a/topic.x/1"); late[0].Duplicate {
		t.Fatal("beyond the window:", late)
	}
}

// Two ids may share a hash; then what is stored decides.
func TestEventsWithOneHashAreNotTakenForDuplicates(t *testing.T) {
	t.Parallel()
	e := openEvents(t, start(t, t.TempDir()))
	publishAll(t, e, "a/topic.x/1")
	e.stop()
	e.seen.add(e.seen.hash("a", "topic.x", "other"), 1, time.Now())
	e.closed, e.closing, e.once = make(chan struct{}), make(chan struct{}), sync.Once{}
	go e.run()
	if got := publishAll(t, e, "a/topic.x/other", "a/topic.x/1"); fmt.Sprint(got) != "[{2 false} {1 true}]" {
		t.Fatal(got)
	}
}

func TestRememberedIsBounded(t *testing.T) {
	t.Parallel()
	s := newRemembered(maphash.MakeSeed(), time.Minute, 80)
	now := time.Unix(0, 0)
	for i := range uint64(1000) {
		s.add(i, i, now)
		if s.count > 80 {
			t.Fatalf("%d ids after %d", s.count, i)
		}
		if got, found := s.find(i); !found || got != i {
			t.Fatal(i, got, found)
		}
	}
	if !s.forgot || s.count < 60 {
		t.Fatal(s.forgot, s.count)
	}
	s.expire(now.Add(time.Minute))
	if _, found := s.find(999); !found {
		t.Fatal("forgotten early")
	}
	s.expire(now.Add(time.Minute + 1))
	if _, found := s.find(999); found || s.count != 0 {
		t.Fatal("not forgotten", s.count)
	}
}

// Many callers, some with several entries, some with ids that others use too: each
// id is stored once, and entries of one call stand next to each other.
func TestEventsHammer(t *testing.T) {
	t.Parallel()
	b := start(t, t.TempDir())
	e := openEvents(t, b)
	const callers, rounds = 32, 20
	var mu sync.Mutex
	at := map[string]uint64{}
	var wg sync.WaitGroup
	for c := range callers {
		wg.Go(func() {
			for i := range rounds {
				in := []Entry{
					entry(fmt.Sprintf("a/topic.own%d/%d", c, 2*i)), entry(fmt.Sprintf("a/topic.shared/%d", i)),
					entry(fmt.Sprintf("a/topic.own%d/%d", c, 2*i+1)),
				}
				out, err := e.Publish(context.Background(), in)
				if err != nil {
					t.Error(err)
					return
				}
				if out[2].Sequence-out[0].Sequence > 2 || out[0].Duplicate || out[2].Duplicate {
					t.Errorf("caller %d, round %d: %v", c, i, out)
				}
				mu.Lock()
				for j, n := range in {
					k := n.Channel + "/" + n.ID
					if old, has := at[k]; has && old != out[j].Sequence {
						t.Errorf("%s is at %d and at %d", k, old, out[j].Sequence)
					}
					at[k] = out[j].Sequence
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	count := 0
	ok(t, e.Read(t.Context(), EventFilter{}, func(r EventRecord) bool {
		count++
		if at[r.Channel+"/"+r.ID] != r.Sequence {
			t.Errorf("%s/%s is at %d", r.Channel, r.ID, r.Sequence)
		}
		return true
	}))
	if want := callers*rounds*2 + rounds; count != want {
		t.Errorf("%d events, want %d", count, want)
	}
	rep, err := e.Verify(t.Context(), nil)
	if err != nil || rep.Damaged || rep.Missing != 0 || rep.Events != uint64(count) || rep.Channels != callers+1 {
		t.Errorf("%+v, %v", rep, err)
	}
}

func TestEventsGiveUpTheirTurnWithTheContext(t *testing.T) {
	t.Parallel()
	e := openEvents(t, start(t, t.TempDir()))
	e.stop() // so that nobody takes what waits
	e.closed, e.closing, e.once = make(chan struct{}), make(chan struct{}), sync.Once{}
	ctx, cancel := context.WithCancel(t.Context())
	failed := make(chan error)
	go func() {
		_, err := e.Publish(ctx, []Entry{entry("a/topic.x/1")})
		failed <- err
	}()
	for len(e.queue) == 0 {
		runtime.Gosched() // until it waits
	}
	cancel()
	wantErr(t, <-failed, context.Canceled)
	go e.run()
	publishAll(t, e, "a/topic.x/2")
	if got := readEvents(t, e, EventFilter{}); got != "a/topic.x/2" {
		t.Fatal(got)
	}
}

func TestEventsFollowHasNoGapAndNoDuplicate(t *testing.T) {
	t.Parallel()
	e := openEvents(t, start(t, t.TempDir()))
	const n = 200
	go func() {
		for i := range n {
			if _, err := e.Publish(context.Background(), []Entry{entry(fmt.Sprintf("a/topic.x/%d", i))}); err != nil {
				t.Error(err)
			}
		}
	}()
	next := 0
	ok(t, e.Read(t.Context(), EventFilter{Follow: true}, func(r EventRecord) bool {
		if r.ID != fmt.Sprint(next) {
			t.Errorf("got %s, want %d", r.ID, next)
		}
		next++
		return next < n
	}))
	ctx, cancel := context.WithCancel(t.Context())
	ok(t, e.Read(ctx, EventFilter{Follow: true, Last: 1}, func(EventRecord) bool { cancel(); return true }))
}

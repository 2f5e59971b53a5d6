package bus

import (
	"context"
	"fmt"
	"math"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/casemate-dev/casemate/internal/state"
)

func TestEventsFullRefuseAndKeepWhatThereIs(t *testing.T) {
	t.Parallel()
	b := start(t, t.TempDir())
	e := openEvents(t, b, func(c *EventsConfig) { c.MaxBytes = 64 << 10 })
	n := entry("a/topic.x/0")
	n.Data = make([]byte, 4000)
	count := 0
	var err error
	for ; err == nil && count < 100; count++ {
		n.ID = fmt.Sprint(count)
		_, err = e.Publish(t.Context(), []Entry{n})
	}
	wantErr(t, err, state.ErrFull)
	_, err = e.Publish(t.Context(), []Entry{n, entry("a/topic.x/more")}) // as a batch, too
	wantErr(t, err, state.ErrFull)
	got := 0
	ok(t, e.Read(t.Context(), EventFilter{}, func(r EventRecord) bool {
		if r.ID != fmt.Sprint(got) {
			t.Errorf("%s instead of %d", r.ID, got)
		}
		got++
		return true
	}))
	if got != count-1 || got < 10 {
		t.Fatalf("%d of %d stored", got, count-1)
	}
	_, err = e.Purge(t.Context(), "a", "topic.x", 5)
	ok(t, err)
	if s, err := e.Publish(t.Context(), []Entry{n}); err != nil || s[0].Duplicate {
		t.Fatal(s, err)
	}
}

// With Keep, settled events make room, unsettled ones never do.
func TestEventsTrimOnlyWhatIsSettled(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	now := time.Now()
	var mu sync.Mutex
	later := func(d time.Duration) { mu.Lock(); defer mu.Unlock(); now = now.Add(d) }
	clock := func(c *Config) { c.Clock = func() time.Time { mu.Lock(); defer mu.Unlock(); return now } }
	b := start(t, dir, clock)
	e := openEvents(t, b, func(c *EventsConfig) { c.MaxBytes, c.Keep = 64<<10, time.Minute })
	put := func(id int) error {
		_, err := e.Publish(t.Context(), []Entry{{"a", "topic.x", fmt.Sprint(id), make([]byte, 4000)}})
		return err
	}
	cfg := ConsumerConfig{Name: "c", Namespace: "a", Channel: "topic.x", Window: 100, AckWait: time.Hour}
	id := 0
	fill := func() (err error) {
		for range 100 {
			if err = put(id); err != nil {
				return err
			}
			id++
		}
		return nil
	}
	consume := func(settle int) { // the next so many
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		var last uint64
		ok(t, e.Consume(ctx, cfg, func(d *Delivered) {
			ok(t, d.Ack())
			if settle--; settle == 0 {
				last = d.Sequence
				cancel()
			}
		}))
		for { // an acknowledgement has no answer
			info, err := e.consumer(t.Context(), "c")
			ok(t, err)
			if info.AckFloor.Stream >= last {
				return
			}
		}
	}
	ok(t, put(id))
	id++
	consume(1)
	wantErr(t, fill(), ErrFull) // all too young
	young := id
	later(2 * time.Minute)
	wantErr(t, fill(), ErrFull) // one settled: room for one
	after := id
	if after != young+1 {
		t.Fatalf("one settled event made room for %d", after-young)
	}
	later(2 * time.Minute)
	if wantErr(t, fill(), ErrFull); id != after {
		t.Fatalf("%d unsettled events made room", id-after)
	}
	consume(8)
	later(2 * time.Minute)
	if wantErr(t, fill(), ErrFull); id == after {
		t.Fatal("settled events made no room")
	}
	first := -1
	ok(t, e.Read(t.Context(), EventFilter{}, func(r EventRecord) bool { _, _ = fmt.Sscan(r.ID, &first); return false }))
	if first < 1 || first > 9 {
		t.Fatalf("the first left is %d", first)
	}
	stop(t, b)
	b = start(t, dir, clock)
	openEvents(t, b, func(c *EventsConfig) { c.MaxBytes, c.Keep = 64<<10, time.Minute })
	if w := b.Warnings(); len(w) != 0 {
		t.Fatal(w)
	}
}

func TestEventsPurgeIsNoLoss(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	b := start(t, dir)
	e := openEvents(t, b)
	for i := range 10 {
		publishAll(t, e, fmt.Sprintf("a/topic.x/%d", i), fmt.Sprintf("a/topic.y/%d", i))
	}
	n, err := e.Purge(t.Context(), "a", "topic.x", 12)
	if err != nil || n != 6 {
		t.Fatal(n, err)
	}
	if got := readEvents(t, e, EventFilter{Namespace: "a", Channel: "topic.x"}); got != "a/topic.x/6 a/topic.x/7 a/topic.x/8 a/topic.x/9" {
		t.Fatal(got)
	}
	if n, err = e.Purge(t.Context(), "a", "topic.x", 0); n != 0 || err != nil {
		t.Fatal(n, err)
	}
	n, err = e.Purge(t.Context(), "a", "topic.y", math.MaxUint64)
	if err != nil || n != 10 {
		t.Fatal(n, err, readEvents(t, e, EventFilter{}))
	}
	publishAll(t, e, "a/topic.y/new")
	want := "a/topic.x/6 a/topic.x/7 a/topic.x/8 a/topic.x/9 a/topic.y/new"
	for range 2 {
		if got := readEvents(t, e, EventFilter{}); got != want {
			t.Fatal(got)
		}
		if rep, err := e.Verify(t.Context(), nil); err != nil || rep.Damaged || rep.Events != 5 {
			t.Fatalf("%+v, %v", rep, err)
		}
		_, err = e.Get(t.Context(), 1)
		wantErr(t, err, state.ErrNotFound)
		if err := b.Check(t.Context()); err != nil || len(b.Warnings()) != 0 {
			t.Fatal(err, b.Warnings())
		}
		stop(t, b)
		b = start(t, dir)
		e = openEvents(t, b)
	}
}

// planted makes the server lose a message without a word, as its repair of a
// damaged file does.
func planted(t *testing.T, e *Events, sequence uint64) {
	t.Helper()
	ok(t, e.stream.DeleteMsg(t.Context(), sequence))
}

func TestEventsLeftOutByTheServerAreFoundByEveryone(t *testing.T) {
	t.Parallel()
	for name, look := range map[string]func(*testing.T, *Events) error{
		"read one channel": func(t *testing.T, e *Events) error {
			return e.Read(t.Context(), EventFilter{Namespace: "a", Channel: "topic.x"}, func(EventRecord) bool { return true })
		},
		"read all": func(t *testing.T, e *Events) error {
			return e.Read(t.Context(), EventFilter{}, func(EventRecord) bool { return true })
		},
		"get": func(t *testing.T, e *Events) error { _, err := e.Get(t.Context(), 3); return err },
		"verify": func(t *testing.T, e *Events) error {
			rep, err := e.Verify(t.Context(), nil)
			ok(t, err)
			if rep.Missing != 1 || !rep.Damaged || rep.Events != 5 {
				t.Errorf("%+v", rep)
			}
			return e.bus.Check(t.Context())
		},
		"consume": func(t *testing.T, e *Events) error {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			ok(t, e.Consume(ctx, ConsumerConfig{Name: "c", Namespace: "a", Channel: "topic.x", Window: 1, AckWait: time.Hour}, func(d *Delivered) {
				ok(t, d.Ack())
				if d.ID == "3" {
					cancel()
				}
			}))
			return e.bus.Check(t.Context())
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := start(t, t.TempDir())
			e := openEvents(t, b)
			publishAll(t, e, "a/topic.x/0", "a/topic.y/0", "a/topic.x/1", "a/topic.y/1", "a/topic.x/3", "a/topic.y/2")
			planted(t, e, 3)
			wantErr(t, look(t, e), ErrCorrupt)
			wantErr(t, b.Check(t.Context()), ErrCorrupt)
			if len(b.Warnings()) == 0 || b.Damages() == 0 {
				t.Error("no warning")
			}
		})
	}
	for _, gone := range []uint64{1, 4, 5} { // the first, one in between, the last of its channel
		t.Run(fmt.Sprint("start without ", gone), func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			b := start(t, dir)
			e := openEvents(t, b)
			publishAll(t, e, "a/topic.x/0", "a/topic.y/0", "a/topic.x/1", "a/topic.y/1", "a/topic.x/3", "a/topic.y/2")
			planted(t, e, gone)
			stop(t, b)
			b = start(t, dir)
			openEvents(t, b)
			if len(b.Warnings()) == 0 {
				t.Error("no warning")
			}
		})
	}
}

// What comes while a reader asks whether anything is left is not taken for damage.
func TestEventsThatComeMeanwhileAreNotDamaged(t *testing.T) {
	t.Parallel()
	b := start(t, t.TempDir())
	e := openEvents(t, b)
	r := &scanner{e: e, scan: scan{filter: "event.>", from: 1}, in: make(chan *nats.Msg, pageEvents+8), last: map[string]uint64{}}
	var err error
	r.sub, err = b.conn.ChanSubscribe(nats.NewInbox(), r.in)
	ok(t, err)
	if page, _, err := r.page(t.Context()); len(page) != 0 || err != nil {
		t.Fatal(page, err)
	}
	publishAll(t, e, "a/topic.x/0")
	if found, err := r.skip(t.Context()); !found || err != nil || r.corrupt != nil || r.scan.from != 1 {
		t.Fatal(found, err, r.corrupt, r.scan.from)
	}
	ok(t, r.sub.Unsubscribe())
}

package bus

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/casemate-dev/casemate/internal/state"
)

func consumer(change ...func(*ConsumerConfig)) ConsumerConfig {
	cfg := ConsumerConfig{Name: "trigger.a.fn.t", Namespace: "a", Channel: "topic.x", Window: 100, AckWait: time.Hour}
	for _, f := range change {
		f(&cfg)
	}
	return cfg
}

// consume hands over so many and returns their ids with the attempt, where that is
// not the first.
func consume(t *testing.T, e *Events, cfg ConsumerConfig, n int, settle func(*Delivered) error) string {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var got []string
	ok(t, e.Consume(ctx, cfg, func(d *Delivered) {
		if d.Namespace != "a" || string(d.Data) != "data of "+d.ID || d.Time.IsZero() || d.Sequence == 0 {
			t.Errorf("%+v", d)
		}
		if settle != nil {
			ok(t, settle(d))
		}
		s := d.ID
		if d.Attempt > 1 {
			s += fmt.Sprint("#", d.Attempt)
		}
		if got = append(got, s); len(got) == n {
			cancel()
		}
	}))
	return strings.Join(got, " ")
}

func numbered(from, to int) (out []string) {
	for i := from; i < to; i++ {
		out = append(out, fmt.Sprintf("a/topic.x/%d", i), fmt.Sprintf("a/topic.other/%d", i))
	}
	return out
}

// untilSettled waits for acknowledgements, which have no answer.
func untilSettled(t *testing.T, e *Events, name string, waiting, underWay int64) {
	t.Helper()
	for {
		w, u, err := e.Backlog(t.Context(), name)
		ok(t, err)
		if w == waiting && u == underWay {
			return
		}
		if t.Context().Err() != nil {
			t.Fatal(w, u)
		}
	}
}

func TestConsumersGetTheirChannelInOrder(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	b := start(t, dir)
	e := openEvents(t, b)
	publishAll(t, e, numbered(0, 5)...)
	if got := consume(t, e, consumer(), 3, (*Delivered).Ack); got != "0 1 2" {
		t.Fatal(got)
	}
	// Those on their way when it ended come to the next one, in order.
	if got := consume(t, e, consumer(), 2, (*Delivered).Ack); got != "3 4" {
		t.Fatal(got)
	}
	untilSettled(t, e, "trigger.a.fn.t", 0, 0)
	publishAll(t, e, numbered(5, 8)...)
	stop(t, b)
	b = start(t, dir)
	e = openEvents(t, b)
	if w, _, err := e.Backlog(t.Context(), "trigger.a.fn.t"); w != 3 || err != nil {
		t.Fatal(w, err)
	}
	if got := consume(t, e, consumer(), 3, (*Delivered).Ack); got != "5 6 7" {
		t.Fatal(got)
	}
	for from, want := range map[From]string{
		{}:                                 "0 1",
		{Sequence: 7}:                      "3 4",
		{Time: time.Now().Add(-time.Hour)}: "0 1",
	} {
		cfg := consumer(func(c *ConsumerConfig) { c.Name, c.From = "other", from })
		if got := consume(t, e, cfg, 2, nil); got != want {
			t.Errorf("from %+v: %s, want %s", from, got, want)
		}
		ok(t, e.DropConsumer(t.Context(), "other"))
	}
	if err := b.Check(t.Context()); err != nil || len(b.Warnings()) != 0 {
		t.Fatal(err, b.Warnings())
	}
}

func TestConsumersOfWhatIsNew(t *testing.T) {
	t.Parallel()
	e := openEvents(t, start(t, t.TempDir()))
	publishAll(t, e, numbered(0, 5)...)
	ctx, cancel := context.WithCancel(t.Context())
	got := make(chan string, 10)
	ended := make(chan error)
	go func() {
		ended <- e.Consume(ctx, consumer(func(c *ConsumerConfig) { c.From.New = true }), func(d *Delivered) { got <- d.ID })
	}()
	for {
		if _, _, err := e.Backlog(ctx, "trigger.a.fn.t"); err == nil {
			break // it is made
		}
	}
	publishAll(t, e, numbered(5, 6)...)
	if id := <-got; id != "5" {
		t.Fatal(id)
	}
	if err := e.Consume(ctx, consumer(), nil); err == nil {
		t.Error("a second one at the same time")
	}
	cancel()
	ok(t, <-ended)
}

func TestUnsettledEventsComeAgain(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	b := start(t, dir)
	e := openEvents(t, b)
	publishAll(t, e, numbered(0, 3)...)
	// Later: the neighbours go on meanwhile.
	first := true
	got := consume(t, e, consumer(), 4, func(d *Delivered) error {
		if d.ID == "0" && first {
			first = false
			return d.Later(time.Millisecond)
		}
		return d.Ack()
	})
	if got != "0 1 2 0#2" && got != "0 1 0#2 2" && got != "0 0#2 1 2" {
		t.Fatal(got)
	}
	// AckWait without a word.
	publishAll(t, e, numbered(3, 4)...)
	short := func(c *ConsumerConfig) { c.AckWait = 50 * time.Millisecond }
	if got := consume(t, e, consumer(short), 2, func(d *Delivered) error {
		if d.Attempt == 1 {
			return nil
		}
		return d.Ack()
	}); got != "3 3#2" {
		t.Fatal(got)
	}
	untilSettled(t, e, "trigger.a.fn.t", 0, 0)
	// A restart.
	publishAll(t, e, numbered(4, 6)...)
	if got := consume(t, e, consumer(), 2, (*Delivered).Working); got != "4 5" {
		t.Fatal(got)
	}
	stop(t, b)
	e = openEvents(t, start(t, dir))
	if got, _ := consumeAll(t, e, consumer(short), 2); got != "4 5" {
		t.Fatal(got)
	}
}

func TestWindowBoundsWhatIsUnsettled(t *testing.T) {
	t.Parallel()
	e := openEvents(t, start(t, t.TempDir()))
	publishAll(t, e, numbered(0, 20)...)
	cfg := consumer(func(c *ConsumerConfig) { c.Window = 3 })
	var held []*Delivered
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	count := 0
	ok(t, e.Consume(ctx, cfg, func(d *Delivered) {
		held = append(held, d)
		if count++; count == 20 {
			cancel()
		}
		if len(held) > 3 {
			t.Errorf("%d are unsettled", len(held))
		}
		if len(held) == 3 {
			_, u, err := e.Backlog(ctx, cfg.Name)
			if err == nil && u > 3 {
				t.Errorf("%d are under way", u)
			}
			for _, h := range held {
				ok(t, h.Ack())
			}
			held = nil
		}
	}))
	if count != 20 {
		t.Fatal(count)
	}
}

func TestConsumersThatAreDroppedEnd(t *testing.T) {
	t.Parallel()
	e := openEvents(t, start(t, t.TempDir()))
	publishAll(t, e, numbered(0, 1)...)
	err := e.Consume(t.Context(), consumer(), func(d *Delivered) { ok(t, e.DropConsumer(t.Context(), "trigger.a.fn.t")) })
	wantErr(t, err, state.ErrNotFound)
	_, _, err = e.Backlog(t.Context(), "trigger.a.fn.t")
	wantErr(t, err, state.ErrNotFound)
	ok(t, e.DropConsumer(t.Context(), "trigger.a.fn.t"))
	for name, spoil := range map[string]func(*ConsumerConfig){
		"name":    func(c *ConsumerConfig) { c.Name = "a_b" },
		"channel": func(c *ConsumerConfig) { c.Channel = "topic.*" },
		"window":  func(c *ConsumerConfig) { c.Window = 0 },
		"wait":    func(c *ConsumerConfig) { c.AckWait = 0 },
	} {
		if err := e.Consume(t.Context(), consumer(spoil), nil); err == nil {
			t.Errorf("%s was taken", name)
		}
	}
}

// A message whose bytes changed, or that was put into another place, is reported, and only
// its place is handed over; its neighbours come.
func TestConsumersAreToldWhatIsDamaged(t *testing.T) {
	t.Parallel()
	b := start(t, t.TempDir())
	e := openEvents(t, b)
	publishAll(t, e, "a/topic.x/0")
	framed := e.frame("event.a.topic.x", 1, 0, "0", []byte("data of 0")) // the first one, put back as the second
	_, err := b.js.Publish(t.Context(), "event.a.topic.x", framed)
	ok(t, err)
	publishAll(t, e, "a/topic.x/2") // the committer finds somebody else's message
	got, damaged := consumeAll(t, e, consumer(), 3)
	if got != "0 2" || damaged != "2" {
		t.Fatal(got, damaged)
	}
	wantErr(t, b.Check(t.Context()), ErrCorrupt)
	untilSettled(t, e, "trigger.a.fn.t", 0, 0)
}

func TestAckSubjects(t *testing.T) {
	t.Parallel()
	for _, s := range []string{"$JS.ACK.S.c.3.44.5.1700000000.7", "$JS.ACK.domain.hash.S.c.3.44.5.1700000000.7", "$JS.ACK._.hash.S.c.3.44.5.1700000000.7.token"} {
		if a, good := parseAck(s); !good || a != (acked{"c", 3, 44, 1700000000}) {
			t.Errorf("%s: %+v, %v", s, a, good)
		}
	}
	for _, s := range []string{"", "$JS.ACK.S.c.3.44", "_INBOX.x", "$JS.ACK.S.c.x.44.5.1.7"} {
		if _, good := parseAck(s); good {
			t.Errorf("%s was taken", s)
		}
	}
}

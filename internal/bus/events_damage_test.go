package bus

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/casemate-dev/casemate/internal/state"
)

// flipIn turns a bit over in one of n messages of one length, counted from 0, in the
// block of a stream that is not open.
func flipIn(t *testing.T, dir, stream string, n, message int) {
	t.Helper()
	blocks, err := filepath.Glob(filepath.Join(dir, "jetstream", "*", "streams", stream, "msgs", "*.blk"))
	if err != nil || len(blocks) != 1 {
		t.Fatal(blocks, err)
	}
	b, err := os.ReadFile(blocks[0])
	ok(t, err)
	if len(b)%n != 0 {
		t.Fatalf("%d bytes for %d messages of one length", len(b), n)
	}
	b[len(b)/n*(message+1)-30] ^= 0x10
	ok(t, os.WriteFile(blocks[0], b, 0o600))
}

// consumeAll settles n events and returns the ids of those that are whole, and the
// sequences of those that are not.
func consumeAll(t *testing.T, e *Events, cfg ConsumerConfig, n int) (whole, damaged string) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var ids, places []string
	came := map[uint64]bool{}
	ok(t, e.Consume(ctx, cfg, func(d *Delivered) {
		ok(t, d.Ack())
		if came[d.Sequence] && cfg.AckWait < time.Minute {
			return // the machine was too busy to settle it in time
		}
		came[d.Sequence] = true
		if d.Damaged {
			if d.Data != nil || d.ID != "" || d.Namespace != cfg.Namespace || d.Channel != cfg.Channel {
				t.Errorf("%+v", d)
			}
			places = append(places, fmt.Sprint(d.Sequence))
		} else {
			ids = append(ids, d.ID)
		}
		if len(ids)+len(places) == n {
			cancel()
		}
	}))
	return strings.Join(ids, " "), strings.Join(places, " ")
}

// A damaged event that was under way is handed over as damaged, once, and is no more under
// way when it is settled. It stays on record until it is purged.
func TestDamagedEventsAreSettledAndStayOnRecordUntilPurged(t *testing.T) {
	t.Parallel()
	for _, at := range []int{0, 2, 5} { // before the ones that are whole, between them, and behind
		t.Run(fmt.Sprint(at), func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			b := start(t, dir)
			e := openEvents(t, b)
			for i := range 6 {
				publishAll(t, e, fmt.Sprintf("a/topic.x/%d", i))
			}
			cfg := consumer(func(c *ConsumerConfig) { c.AckWait = 300 * time.Millisecond })
			if got := consume(t, e, consumer(), 6, nil); got != "0 1 2 3 4 5" {
				t.Fatal(got)
			}
			stop(t, b)
			flipIn(t, dir, "EVENTS_main", 6, at)
			b = start(t, dir)
			e = openEvents(t, b)
			got, damaged := consumeAll(t, e, cfg, 6)
			if damaged != fmt.Sprint(at+1) {
				t.Errorf("%s came, and %s as damaged", got, damaged)
			}
			untilSettled(t, e, cfg.Name, 0, 0)
			_ = e.Read(t.Context(), EventFilter{}, func(EventRecord) bool { return true })
			_, err := e.Get(t.Context(), uint64(at+1))
			wantErr(t, err, ErrCorrupt)
			if b.Damages() != 1 || len(b.Warnings()) != 1 || !strings.Contains(b.Warnings()[0], fmt.Sprintf("event %d of main", at+1)) || !strings.Contains(b.Warnings()[0], "events purge") {
				t.Errorf("%d damages, and %q", b.Damages(), b.Warnings())
			}
			wantErr(t, b.Check(t.Context()), ErrCorrupt)
			stop(t, b)

			b = start(t, dir)
			e = openEvents(t, b)
			wantErr(t, b.Check(t.Context()), ErrCorrupt)
			n, err := e.Purge(t.Context(), "a", "topic.x", 5)
			if ok(t, err); at == 5 && n != 6 || n < 5 {
				t.Errorf("purged %d", n)
			}
			ok(t, b.Check(t.Context()))
			_, err = e.Get(t.Context(), uint64(at+1))
			wantErr(t, err, state.ErrNotFound)
			stop(t, b)

			b = start(t, dir)
			e = openEvents(t, b)
			_, err = e.Publish(t.Context(), []Entry{entry("a/topic.x/6")})
			ok(t, err)
			if rep, err := e.Verify(t.Context(), nil); err != nil || rep.Damaged {
				t.Errorf("%+v, %v", rep, err)
			}
			if err := b.Check(t.Context()); err != nil || len(b.Warnings()) > 0 {
				t.Error(err, b.Warnings())
			}
		})
	}
}

// An event that is purged while it is damaged and under way is not under way for ever.
func TestDamagedEventsThatArePurgedAreNotUnderWay(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	b := start(t, dir)
	e := openEvents(t, b)
	for i := range 4 {
		publishAll(t, e, fmt.Sprintf("a/topic.x/%d", i))
	}
	cfg := consumer(func(c *ConsumerConfig) { c.AckWait = 200 * time.Millisecond })
	if got := consume(t, e, consumer(), 4, nil); got != "0 1 2 3" {
		t.Fatal(got)
	}
	stop(t, b)
	flipIn(t, dir, "EVENTS_main", 4, 1)
	b = start(t, dir)
	e = openEvents(t, b)
	_, err := e.Get(t.Context(), 2)
	wantErr(t, err, ErrCorrupt)
	_, err = e.Purge(t.Context(), "a", "topic.x", 4)
	ok(t, err)
	ok(t, b.Check(t.Context()))
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- e.Consume(ctx, cfg, func(d *Delivered) { t.Errorf("%+v came", d) })
	}()
	untilSettled(t, e, cfg.Name, 0, 0)
	cancel()
	ok(t, <-ended)
}

// Whatever happens to the files of a consumer, the bus starts, the consumer goes on behind
// what it had settled for certain, and it is reported.
func TestConsumersGoOnAfterTheirFilesAreDamaged(t *testing.T) {
	t.Parallel()
	for name, hurt := range map[string]func(obs string) error{
		"cut short": func(obs string) error { return os.Truncate(filepath.Join(obs, fileState), 7) },
		"cut":       func(obs string) error { return os.Truncate(filepath.Join(obs, fileState), 30) },
		"empty":     func(obs string) error { return os.Truncate(filepath.Join(obs, fileState), 0) },
		"gone":      func(obs string) error { return os.Remove(filepath.Join(obs, fileState)) },
		"all gone":  os.RemoveAll,
		"changed":   func(obs string) error { return flipFile(filepath.Join(obs, fileState)) },
		"key":       func(obs string) error { return flipFile(filepath.Join(obs, fileKey)) },
		"key cut":   func(obs string) error { return os.Truncate(filepath.Join(obs, fileKey), 9) },
		"config":    func(obs string) error { return flipFile(filepath.Join(obs, fileConfig)) },
		"no config": func(obs string) error { return os.Remove(filepath.Join(obs, fileConfig)) },
		"no sum":    func(obs string) error { return os.Remove(filepath.Join(obs, fileChecksum)) },
		"short":     func(obs string) error { return os.Truncate(filepath.Join(obs, fileConfig), 3) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			b := start(t, dir)
			e := openEvents(t, b)
			publishAll(t, e, numbered(0, 6)...)
			// 0 to 2 are settled, and 4.
			if got := consume(t, e, consumer(), 5, func(d *Delivered) error {
				if d.ID == "3" {
					return nil
				}
				return d.Ack()
			}); got != "0 1 2 3 4" {
				t.Fatal(got)
			}
			untilSettled(t, e, consumer().Name, 0, 2)
			stop(t, b)
			ok(t, hurt(filepath.Join(dir, "jetstream", "$G", "streams", "EVENTS_main", "obs", "trigger_a_fn_t")))
			b = start(t, dir)
			e = openEvents(t, b)
			wantErr(t, b.Check(t.Context()), ErrCorrupt)
			if w := b.Warnings(); len(w) != 1 || !strings.Contains(w[0], "trigger_a_fn_t") || b.Damages() != 1 {
				t.Errorf("%d damages, and %q", b.Damages(), w)
			}
			waiting, underWay, err := e.Backlog(t.Context(), consumer().Name)
			if wantErr(t, err, ErrCorrupt); waiting != 3 || underWay != 0 {
				t.Errorf("%d waiting, %d under way", waiting, underWay)
			}
			stop(t, b) // nobody has consumed in this run

			b = start(t, dir)
			e = openEvents(t, b)
			if got := consume(t, e, consumer(), 3, (*Delivered).Ack); got != "3#2 4#2 5#2" {
				t.Error(got)
			}
			untilSettled(t, e, consumer().Name, 0, 0)
			if name != "gone" && name != "all gone" && !strings.HasPrefix(name, "no ") && !isSetAside(t, dir, fileState) {
				t.Error("nothing was set aside")
			}
			stop(t, b)

			b = start(t, dir)
			e = openEvents(t, b)
			if err := b.Check(t.Context()); err != nil || len(b.Warnings()) > 0 {
				t.Error(err, b.Warnings())
			}
			publishAll(t, e, "a/topic.x/6")
			if got := consume(t, e, consumer(), 1, (*Delivered).Ack); got != "6" {
				t.Error(got)
			}
		})
	}
}

func flipFile(name string) error {
	b, err := os.ReadFile(name)
	if err == nil {
		b[len(b)/2] ^= 4
		err = os.WriteFile(name, b, 0o600)
	}
	return err
}

func isSetAside(t *testing.T, dir, name string) (found bool) {
	t.Helper()
	ok(t, filepath.WalkDir(filepath.Join(dir, quarantine), func(p string, d fs.DirEntry, err error) error {
		found = found || err == nil && d.Name() == name
		return err
	}))
	return found
}

// What is left of a consumer when the node is killed while it makes or drops it is no
// damage; nor is one that was dropped.
func TestConsumersHalfMadeOrDroppedAreNoDamage(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	b := start(t, dir)
	e := openEvents(t, b)
	publishAll(t, e, numbered(0, 2)...)
	for _, name := range []string{"made", "dropped"} {
		if got := consume(t, e, consumer(func(c *ConsumerConfig) { c.Name = name }), 2, (*Delivered).Ack); got != "0 1" {
			t.Fatal(got)
		}
		ok(t, e.look(t.Context()))
	}
	b.marking.Lock()
	ok(t, b.saveMarks(t.Context()))
	b.marking.Unlock()
	ok(t, e.DropConsumer(t.Context(), "dropped"))
	killed := t.TempDir()
	ok(t, os.CopyFS(killed, os.DirFS(dir)))
	after := start(t, killed)
	openEvents(t, after)
	if err := after.Check(t.Context()); err != nil || len(after.Warnings()) > 0 {
		t.Error("killed after it was dropped:", err, after.Warnings())
	}
	obs := filepath.Join(dir, "jetstream", "$G", "streams", "EVENTS_main", "obs")
	half := t.TempDir()
	ok(t, os.CopyFS(half, os.DirFS(filepath.Join(obs, "made"))))
	ok(t, e.DropConsumer(t.Context(), "made"))
	stop(t, b)
	ok(t, os.CopyFS(filepath.Join(obs, "made"), os.DirFS(half)))
	ok(t, os.Remove(filepath.Join(obs, "made", fileChecksum)))
	b = start(t, dir)
	e = openEvents(t, b)
	if err := b.Check(t.Context()); err != nil || len(b.Warnings()) > 0 {
		t.Error(err, b.Warnings())
	}
	if got := consume(t, e, consumer(func(c *ConsumerConfig) { c.Name = "made" }), 2, (*Delivered).Ack); got != "0 1" {
		t.Error(got)
	}
}

// A block whose key is damaged is set aside and reported, also an empty one, and writes
// go on.
func TestEventsGoOnAfterABlockKeyIsDamaged(t *testing.T) {
	t.Parallel()
	for name, hurt := range map[string]func(string) error{"changed": flipFile, "cut": func(f string) error { return os.Truncate(f, 10) }} {
		for _, events := range []int{0, 3} {
			t.Run(fmt.Sprint(name, " with ", events), func(t *testing.T) {
				t.Parallel()
				dir := t.TempDir()
				b := start(t, dir)
				e := openEvents(t, b)
				for i := range events {
					publishAll(t, e, fmt.Sprintf("a/topic.x/%d", i))
				}
				stop(t, b)
				ok(t, hurt(filepath.Join(dir, "jetstream", "$G", "streams", "EVENTS_main", "msgs", "1.key")))
				b = start(t, dir)
				wantErr(t, b.Check(t.Context()), ErrCorrupt)
				e = openEvents(t, b)
				if len(b.Warnings()) == 0 || b.Damages() == 0 || !isSetAside(t, dir, "1.key") {
					t.Error("nothing was said, or nothing set aside", b.Warnings())
				}
				if s := publishAll(t, e, "a/topic.x/more"); s[0].Sequence <= uint64(events) {
					t.Error(s)
				}
				if got := readEvents(t, e, EventFilter{}); got != "a/topic.x/more" {
					t.Error(got)
				}
			})
		}
	}
}

// What is kept of a stream beside its messages may be damaged: it is reported and made
// anew, the messages are there, and consumers go on where they were.
func TestStreamsOutliveTheirConfiguration(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		hurt   func(dir string) error
		silent bool // the node may have been killed there
	}{
		"key":     {func(dir string) error { return flipFile(filepath.Join(dir, fileKey)) }, false},
		"key cut": {func(dir string) error { return os.Truncate(filepath.Join(dir, fileKey), 5) }, false},
		"config":  {func(dir string) error { return flipFile(filepath.Join(dir, fileConfig)) }, false},
		"cut":     {func(dir string) error { return os.Truncate(filepath.Join(dir, fileConfig), 5) }, false},
		"sum":     {func(dir string) error { return flipFile(filepath.Join(dir, fileChecksum)) }, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			b := start(t, dir)
			e, kv := openEvents(t, b), openKV(t, b, "registry")
			_, err := kv.Create(t.Context(), "key", []byte("value"))
			ok(t, err)
			publishAll(t, e, numbered(0, 3)...)
			if got := consume(t, e, consumer(), 3, func(d *Delivered) error {
				if d.ID == "1" {
					return nil
				}
				return d.Ack()
			}); got != "0 1 2" {
				t.Fatal(got)
			}
			untilSettled(t, e, consumer().Name, 0, 1)
			stop(t, b)
			for _, s := range []string{"EVENTS_main", "KV_registry"} {
				ok(t, c.hurt(filepath.Join(dir, "jetstream", "$G", "streams", s)))
			}
			b = start(t, dir)
			e, kv = openEvents(t, b), openKV(t, b, "registry")
			if err := b.Check(t.Context()); (err == nil) != c.silent || !c.silent && (len(b.Warnings()) != 2 || !isSetAside(t, dir, fileConfig)) {
				t.Error(err, b.Warnings())
			}
			if v, err := kv.Get(t.Context(), "key"); err != nil || string(v.Value) != "value" {
				t.Error(v, err)
			}
			if got := readEvents(t, e, EventFilter{Channel: "topic.x"}); got != "a/topic.x/0 a/topic.x/1 a/topic.x/2" {
				t.Error(got)
			}
			if waiting, underWay, err := e.Backlog(t.Context(), consumer().Name); waiting != 0 || underWay != 1 || err != nil {
				t.Error(waiting, underWay, err)
			}
			publishAll(t, e, "a/topic.x/3")
			if got := consume(t, e, consumer(), 1, (*Delivered).Ack); got != "3" {
				t.Error(got)
			}
			stop(t, b)
			b = start(t, dir)
			e = openEvents(t, b)
			cfg := consumer(func(c *ConsumerConfig) { c.AckWait = 100 * time.Millisecond })
			if got := consume(t, e, cfg, 1, (*Delivered).Ack); !strings.HasPrefix(got, "1#") {
				t.Error(got)
			}
			if err := b.Check(t.Context()); err != nil || len(b.Warnings()) > 0 {
				t.Error(err, b.Warnings())
			}
		})
	}
}

// What the server says when the disk is full is understood as that, and as nothing else
// while there is space.
func TestAnswersOnAFullDiskMeanFull(t *testing.T) {
	t.Parallel()
	full := start(t, t.TempDir(), func(c *Config) { c.MinFree = 1 << 60 })
	roomy := start(t, t.TempDir())
	for _, err := range []error{
		&refusal{&jetstream.APIError{Code: 500, ErrorCode: 10049, Description: "error creating store for stream"}},
		&refusal{&jetstream.APIError{Code: 500, ErrorCode: 10012, Description: "error creating store for consumer"}},
		&refusal{&jetstream.APIError{Code: 503, ErrorCode: 10077, Description: "write failed"}},
		jetstream.ErrJetStreamNotEnabled,
	} {
		wantErr(t, full.failure("doing", err), ErrFull)
		if got := roomy.failure("doing", err); errors.Is(got, ErrFull) {
			t.Error(got)
		}
	}
	said := &refusal{&jetstream.APIError{Code: 500, ErrorCode: 10049, Description: "write x: no space left on device"}}
	wantErr(t, roomy.failure("doing", said), ErrFull)
	no := &refusal{&jetstream.APIError{Code: 404, ErrorCode: 10059, Description: "stream not found"}}
	if got := full.failure("doing", no); errors.Is(got, ErrFull) {
		t.Error(got)
	}
}

package keyvalue_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/casemate-dev/casemate/internal/keyvalue"
	"github.com/casemate-dev/casemate/internal/keyvalue/keyvaluetest"
	"github.com/casemate-dev/casemate/internal/state"
)

var errDisk = errors.New("the disk is in a bad mood")

// TestNothingAnsweredIsLostAndAllIsTold has writes of records and of the log fail, before
// and after they were done, and has the process die, and compares with a model: what was
// answered is there; what was refused is not; what was left open is one or the other; the
// log tells of each, in order, with the right value of before; and no slot is lost.
func TestNothingAnsweredIsLostAndAllIsTold(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(r *rapid.T) {
		rnd := rand.New(rand.NewPCG(rapid.Uint64().Draw(r, "seed"), 1)) //nolint:gosec // a test's own
		w := newWorld(t)
		possible := map[string]map[string]bool{} // what a key may hold; "" is nothing
		of := func(key string) map[string]bool {
			if possible[key] == nil {
				possible[key] = map[string]bool{"": true}
			}
			return possible[key]
		}
		look := func(key string) {
			v, err := w.store.Get(context.Background(), "ns", "b", key)
			if errors.Is(err, keyvalue.ErrUndecided) {
				return // a change is still to be finished, and the disk still fails
			}
			if err != nil && !errors.Is(err, keyvalue.ErrNoKey) {
				r.Fatalf("reading %s: %v", key, err)
			}
			if !of(key)[string(v.Data)] {
				r.Fatalf("%s holds %q, not one of %v", key, v.Data, of(key))
			}
			possible[key] = map[string]bool{string(v.Data): true} // seen, and so it stays
		}
		done := func(key, value string, err error) {
			switch {
			case err == nil:
				possible[key] = map[string]bool{value: true}
			case errors.Is(err, keyvalue.ErrUndecided):
				of(key)[value] = true
			case errors.Is(err, state.ErrFull), errors.Is(err, keyvalue.ErrBusy):
			default:
				r.Fatalf("changing %s: %v", key, err)
			}
		}
		for i := range rapid.IntRange(1, 60).Draw(r, "steps") {
			key := strconv.Itoa(rnd.IntN(4))
			switch n := rnd.IntN(20); {
			case n < 9:
				value := fmt.Sprintf("%s %d", key, i)
				_, err := w.tryPut("b/"+key, value)
				done(key, value, err)
			case n < 13:
				_, err := w.tryDelete("b/"+key, keyvalue.Condition{})
				if errors.Is(err, keyvalue.ErrNoKey) {
					if !of(key)[""] {
						r.Fatalf("%s is not there, it should hold %v", key, of(key))
					}
					err = nil
				}
				done(key, "", err)
			case n < 15:
				look(key)
			case n < 17:
				fails := rnd.IntN(3)
				w.disk.SetFail(func(operation string, after bool) error {
					switch rnd.IntN(6) {
					case 0:
						return errDisk
					case 1:
						if fails == 0 && operation == "publish" && !after {
							return fmt.Errorf("storing: %w", state.ErrFull)
						}
					}
					return nil
				})
			case n < 18:
				w.disk.SetFail(nil)
			case n < 19:
				_ = w.store.Sweep(context.Background())
			default:
				w.crash()
				for key := range possible {
					look(key)
				}
			}
		}
		w.disk.SetFail(nil)
		if rnd.IntN(2) == 0 {
			w.crash()
		} else if err := w.store.Sweep(context.Background()); err != nil {
			r.Fatal(err)
		}
		keys := 0
		for key := range possible {
			look(key)
			if !possible[key][""] {
				keys++
			}
		}
		if w.disk.Records() != keys {
			r.Fatalf("%d records for %d keys", w.disk.Records(), keys)
		}
		// The log, played from its beginning, gives what there is, and each change says
		// what was before it.
		now, revs := map[string]string{}, map[string]uint64{}
		upTo, err := w.store.Changes(context.Background(), "ns", "b", 0, func(c keyvalue.Change) error {
			if c.Previous != revs[c.Key] || c.Old != nil && string(c.Old.Data) != now[c.Key] {
				return fmt.Errorf("change %d of %s follows %d, not %d", c.Revision, c.Key, c.Previous, revs[c.Key])
			}
			now[c.Key], revs[c.Key] = "", 0
			if c.New != nil {
				now[c.Key], revs[c.Key] = string(c.New.Data), c.Revision
			}
			return nil
		})
		if err != nil {
			r.Fatal(err)
		}
		for key := range possible {
			if !possible[key][now[key]] {
				r.Fatalf("%s holds %v, the log says %q", key, possible[key], now[key])
			}
		}
		if upTo != w.store.Settled() {
			r.Fatalf("told up to %d, settled at %d", upTo, w.store.Settled())
		}
	})
}

// TestADiskThatFailsForLongIsNotWrittenToForLong: changes that are left half done are few,
// and are finished when the disk is well.
func TestADiskThatFailsForLongIsNotWrittenToForLong(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.put("b/seen", "x")
	w.disk.SetFail(func(string, bool) error { return errDisk })
	undecided, busy := 0, 0
	for i := range 100 {
		switch _, err := w.tryPut(fmt.Sprintf("b/%d", i), "x"); {
		case errors.Is(err, keyvalue.ErrUndecided):
			undecided++
		case errors.Is(err, keyvalue.ErrBusy):
			busy++
		default:
			t.Fatal(err)
		}
	}
	if undecided != 64 || busy != 36 {
		t.Errorf("%d are undecided, %d were refused", undecided, busy)
	}
	if got := w.get("b/0"); !strings.Contains(got, keyvalue.ErrUndecided.Error()) {
		t.Errorf("what may be there is answered for: %s", got)
	}
	w.is("others", w.get("b/seen"), "x@1")
	w.disk.SetFail(nil)
	if err := w.store.Sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := w.get("b/0"); !strings.HasPrefix(got, "x@") {
		t.Error(got)
	}
	w.put("b/99", "x")
	if u := w.store.Used("ns"); u.Keys != 66 || w.disk.Records() != 66 {
		t.Errorf("%+v, %d records", u, w.disk.Records())
	}
}

// TestDamageInTheLogIsReported, and costs no value.
func TestDamageInTheLogIsReported(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.put("b/1", "x")
	w.put("b/2", "x")
	w.put("b/3", "x")
	w.disk.Damage(2)
	var told []string
	upTo, err := w.store.Changes(t.Context(), "ns", "b", 0, func(c keyvalue.Change) error { told = append(told, c.Key); return nil })
	wants(t, err, state.ErrCorrupt)
	if upTo != 3 || strings.Join(told, " ") != "1 3" {
		t.Errorf("told %v up to %d", told, upTo)
	}
	w.crash()
	w.is("the value", w.get("b/2"), "x@2")
}

// TestWhoIsToldSeesTheChange: what is in the log alone is carried out before it is told.
func TestWhoIsToldSeesTheChange(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.disk.SetFail(func(operation string, _ bool) error {
		if operation == "create" {
			return errDisk
		}
		return nil
	})
	_, err := w.tryPut("b/k", "new")
	wants(t, err, keyvalue.ErrUndecided)
	told := 0
	look := func(keyvalue.Change) error {
		if told++; w.disk.Records() != 1 {
			t.Error("a change was told that is not in its record")
		}
		return nil
	}
	if _, err := w.store.Changes(t.Context(), "ns", "b", 0, look); !errors.Is(err, keyvalue.ErrUndecided) || told != 0 {
		t.Errorf("%d changes were told, %v", told, err)
	}
	w.disk.SetFail(nil)
	if _, err := w.store.Changes(t.Context(), "ns", "b", 0, look); err != nil || told != 1 {
		t.Errorf("%d changes were told, %v", told, err)
	}
}

// TestSlotsAreUsedAgain: a KV remembers each name that was ever used.
func TestSlotsAreUsedAgain(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for i := range 3000 {
		w.put(fmt.Sprintf("b/%d", i), "x")
		if _, err := w.tryDelete(fmt.Sprintf("b/%d", i), keyvalue.Condition{}); err != nil {
			t.Fatal(err)
		}
		if i == 1500 {
			w.crash()
		}
	}
	e, err := keyvaluetest.KV{Disk: w.disk}.Get(t.Context(), "pages")
	if err != nil || string(e.Value) != "8" {
		t.Errorf("%s pages for one key at a time, %v", e.Value, err)
	}
}

// TestAttackRecordsChangedRound: the record of another key is not handed out.
func TestAttackRecordsChangedRound(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.put("b/a", "public")
	w.put("b/b", "secret", func(p *keyvalue.Put) { p.Namespace = "other" })
	kv := keyvaluetest.KV{Disk: w.disk}
	mine, err := kv.Get(t.Context(), "v.0.0")
	if err != nil {
		t.Fatal(err)
	}
	theirs, err := kv.Get(t.Context(), "v.0.1")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := kv.Update(t.Context(), "v.0.0", theirs.Value, mine.Revision); err != nil {
		t.Fatal(err)
	}
	_, err = w.store.Get(t.Context(), "ns", "b", "a")
	wants(t, err, state.ErrCorrupt)
	_, err = w.tryPut("b/a", "x")
	wants(t, err, state.ErrCorrupt)
}

// TestThoseWhoWaitAreWoken before Settled says so.
func TestThoseWhoWaitAreWoken(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	mine, other := w.store.Changed("ns", "b"), w.store.Changed("ns", "other")
	w.put("b/k", "x", func(p *keyvalue.Put) { p.TTL = time.Hour })
	select {
	case <-mine:
	default:
		t.Error("a change woke nobody")
	}
	select {
	case <-other:
		t.Error("a change woke those of another bucket")
	default:
	}
	if w.store.Settled() != 1 {
		t.Error(w.store.Settled())
	}
}

package bus

import (
	"errors"
	"fmt"
	"strconv"
	"sync"
	"testing"

	"pgregory.net/rapid"

	"github.com/casemate-dev/casemate/internal/state"
)

func TestKVComparesAndSets(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	kv := openKV(t, start(t, t.TempDir()), "registry")
	_, err := kv.Get(ctx, "a.b")
	wantErr(t, err, state.ErrNotFound)
	wantErr(t, kv.Delete(ctx, "a.b", 1), state.ErrNotFound)
	_, err = kv.Update(ctx, "a.b", nil, 0)
	wantErr(t, err, state.ErrConflict)
	rev, err := kv.Create(ctx, "a.b", []byte("1"))
	ok(t, err)
	_, err = kv.Create(ctx, "a.b", []byte("2"))
	wantErr(t, err, state.ErrConflict)
	rev2, err := kv.Update(ctx, "a.b", []byte("2"), rev)
	ok(t, err)
	if rev2 <= rev {
		t.Fatalf("revision went from %d to %d", rev, rev2)
	}
	for _, stale := range []uint64{0, rev, rev2 + 1} {
		_, err = kv.Update(ctx, "a.b", []byte("3"), stale)
		wantErr(t, err, state.ErrConflict)
		wantErr(t, kv.Delete(ctx, "a.b", stale), state.ErrConflict)
	}
	e, err := kv.Get(ctx, "a.b")
	ok(t, err)
	if string(e.Value) != "2" || e.Revision != rev2 || e.Key != "a.b" {
		t.Fatalf("%+v", e)
	}
	ok(t, kv.Delete(ctx, "a.b", rev2))
	_, err = kv.Get(ctx, "a.b")
	wantErr(t, err, state.ErrNotFound)
	_, err = kv.Create(ctx, "a.b", []byte("4")) // a deleted key is free again
	ok(t, err)
	for _, bad := range []string{"", ".", "a..b", "a.", "a*", "a.>", "a b", "ä", "a.\x00"} {
		if _, err := kv.Create(ctx, bad, nil); err == nil {
			t.Errorf("key %q was taken", bad)
		}
	}
}

func TestKVListsByPrefixInKeyOrder(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	kv := openKV(t, start(t, t.TempDir()), "registry")
	for _, key := range []string{"fn.b.x", "fn.a.y", "fn.a.x", "fn.ab.x", "fn", "version.a.x", "fn.a.gone"} {
		rev, err := kv.Create(ctx, key, []byte(key))
		ok(t, err)
		if key == "fn.a.gone" {
			ok(t, kv.Delete(ctx, key, rev))
		}
	}
	for prefix, want := range map[string]string{
		"":        "[fn fn.a.x fn.a.y fn.ab.x fn.b.x version.a.x]",
		"fn.":     "[fn.a.x fn.a.y fn.ab.x fn.b.x]",
		"fn.a":    "[fn.a.x fn.a.y fn.ab.x]",
		"fn.a.":   "[fn.a.x fn.a.y]",
		"nothing": "[]",
	} {
		entries, err := kv.List(ctx, prefix)
		ok(t, err)
		keys := []string{}
		for _, e := range entries {
			keys = append(keys, e.Key)
			if string(e.Value) != e.Key || e.Revision == 0 {
				t.Errorf("%+v", e)
			}
		}
		if got := fmt.Sprint(keys); got != want {
			t.Errorf("List(%q) = %s, want %s", prefix, got, want)
		}
	}
}

// Every increment that was acknowledged counts exactly once, whoever raced.
func TestKVHammerLosesNoUpdate(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	kv := openKV(t, start(t, t.TempDir()), "registry")
	_, err := kv.Create(ctx, "counter", []byte("0"))
	ok(t, err)
	const workers, each = 8, 25
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			for done := 0; done < each; {
				e, err := kv.Get(ctx, "counter")
				if err != nil {
					t.Error(err)
					return
				}
				n, _ := strconv.Atoi(string(e.Value))
				rev, err := kv.Update(ctx, "counter", []byte(strconv.Itoa(n+1)), e.Revision)
				if errors.Is(err, state.ErrConflict) {
					continue
				}
				if err != nil {
					t.Error(err)
					return
				}
				// Read-your-writes: the state seen now is this one or a later one.
				if now, err := kv.Get(ctx, "counter"); err != nil || now.Revision < rev {
					t.Errorf("wrote revision %d and then read %d, %v", rev, now.Revision, err)
				}
				done++
			}
		})
	}
	wg.Wait()
	if e, err := kv.Get(ctx, "counter"); err != nil || string(e.Value) != strconv.Itoa(workers*each) {
		t.Fatalf("counted %s, %v", e.Value, err)
	}
}

// A model of the contract, against the real thing, with restarts in between.
func TestKVFollowsItsModelAcrossRestarts(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	b := start(t, dir)
	run := 0
	rapid.Check(t, func(rt *rapid.T) {
		run++
		bucket := fmt.Sprint("m", run)
		kv := openKV(t, b, bucket)
		model := map[string]state.Entry{}
		for range rapid.IntRange(1, 12).Draw(rt, "steps") {
			key := rapid.SampledFrom([]string{"a", "a.b", "c"}).Draw(rt, "key")
			old, exists := model[key]
			rev := old.Revision + uint64(rapid.IntRange(0, 1).Draw(rt, "off"))
			value := []byte(rapid.String().Draw(rt, "value"))
			var want, err error
			var got uint64
			switch rapid.SampledFrom([]string{"create", "create", "update", "update", "update", "delete", "restart"}).Draw(rt, "op") {
			case "create":
				if exists {
					want = state.ErrConflict
				}
				if got, err = kv.Create(t.Context(), key, value); err == nil {
					model[key] = state.Entry{Key: key, Value: value, Revision: got}
				}
			case "update":
				if !exists || rev != old.Revision {
					want = state.ErrConflict
				}
				if got, err = kv.Update(t.Context(), key, value, rev); err == nil {
					model[key] = state.Entry{Key: key, Value: value, Revision: got}
				}
				if !exists && rev == 1 { // may hit the revision of a deletion by chance
					continue
				}
			case "delete":
				if !exists {
					want = state.ErrNotFound
				} else if rev != old.Revision {
					want = state.ErrConflict
				}
				if err = kv.Delete(t.Context(), key, rev); err == nil {
					delete(model, key)
				}
			case "restart":
				if run%10 != 0 { // restarts are slow
					continue
				}
				stop(t, b)
				b = start(t, dir)
				kv = openKV(t, b, bucket)
			}
			if !errors.Is(err, want) || want == nil && err != nil {
				rt.Fatalf("got %v, want %v", err, want)
			}
			entries, err := kv.List(t.Context(), "")
			if err != nil || len(entries) != len(model) {
				rt.Fatalf("listed %d of %d, %v", len(entries), len(model), err)
			}
			for _, e := range entries {
				if m := model[e.Key]; m.Revision != e.Revision || string(m.Value) != string(e.Value) {
					rt.Fatalf("%+v, want %+v", e, m)
				}
			}
		}
	})
}

// A damaged message is one that does not exist, says the server. We must not.
func TestKVBitsFlippedOnDiskAreNeverNotFound(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	b := start(t, dir)
	kv := openKV(t, b, "registry")
	values := map[string]string{}
	for i := range 6 {
		key := fmt.Sprint("key.", i)
		values[key] = "value of " + key
		_, err := kv.Create(t.Context(), key, []byte(values[key]))
		ok(t, err)
	}
	stop(t, b)
	flipEverywhere(t, dir, "KV_registry", 6, 12, func(at string, damaged *Bus) {
		kv, err := damaged.KV(t.Context(), "registry")
		if err != nil {
			wantErr(t, err, ErrCorrupt)
			return
		}
		for key, want := range values {
			if e, err := kv.Get(t.Context(), key); err == nil && string(e.Value) != want || errors.Is(err, state.ErrNotFound) {
				t.Errorf("%s: %s is %q, %v", at, key, e.Value, err)
			}
			if _, err := kv.Create(t.Context(), key, []byte("again")); err == nil {
				t.Errorf("%s: %s could be created anew", at, key)
			}
		}
		if entries, err := kv.List(t.Context(), ""); err == nil && len(entries) != len(values) {
			t.Errorf("%s: listed %d of %d", at, len(entries), len(values))
		}
	})
}

// The attack: somebody who can write the stream puts one key's value, digest and
// all, under another key.
func TestKVValueMovedToAnotherKeyIsCorrupt(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	b := start(t, t.TempDir())
	kv := openKV(t, b, "registry")
	_, err := kv.Create(ctx, "role.guest", []byte("none"))
	ok(t, err)
	_, err = kv.Create(ctx, "role.admin", []byte("all"))
	ok(t, err)
	e, err := kv.kv.Get(ctx, "role.admin")
	ok(t, err)
	_, err = kv.kv.Put(ctx, "role.guest", e.Value())
	ok(t, err)
	_, err = kv.Get(ctx, "role.guest")
	wantErr(t, err, ErrCorrupt)
	_, err = kv.List(ctx, "role.")
	wantErr(t, err, ErrCorrupt)
	wantErr(t, b.Check(ctx), ErrCorrupt)
	if len(b.Warnings()) == 0 {
		t.Error("nothing in Warnings")
	}
}

func TestKVChangedBitIsCorrupt(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	kv := openKV(t, start(t, t.TempDir()), "registry")
	framed := kv.bus.seal.frame(kv.place("a"), []byte("value"))
	for i := range framed {
		bad := append([]byte(nil), framed...)
		bad[i] ^= 1 << (i % 8)
		_, err := kv.kv.Put(ctx, "a", bad)
		ok(t, err)
		_, err = kv.Get(ctx, "a")
		wantErr(t, err, ErrCorrupt)
	}
	for n := range frameSize {
		_, err := kv.kv.Put(ctx, "a", framed[:n])
		ok(t, err)
		_, err = kv.Get(ctx, "a")
		wantErr(t, err, ErrCorrupt)
	}
}

func BenchmarkKVUpdate(b *testing.B) {
	kv := openKV(b, start(b, b.TempDir()), "registry")
	rev, err := kv.Create(b.Context(), "a", make([]byte, 1000))
	ok(b, err)
	for b.Loop() {
		rev, err = kv.Update(b.Context(), "a", make([]byte, 1000), rev)
		ok(b, err)
	}
}

func BenchmarkKVGet(b *testing.B) {
	kv := openKV(b, start(b, b.TempDir()), "registry")
	_, err := kv.Create(b.Context(), "a", make([]byte, 1000))
	ok(b, err)
	for b.Loop() {
		_, err = kv.Get(b.Context(), "a")
		ok(b, err)
	}
}

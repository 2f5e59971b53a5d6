package keyvalue

import (
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"pgregory.net/rapid"
)

func TestKeys(t *testing.T) {
	t.Parallel()
	for _, key := range []string{"a", "a/b", "a.b/..c/d..", "é漢", "a b", "%2e", "a;b", "*", ">", "$KV.x", strings.Repeat("k", MaxKey), ".hidden"} {
		if err := CheckKey(key); err != nil {
			t.Errorf("%q: %v", key, err)
		}
	}
	for _, key := range []string{
		"", "/a", "a/", "a//b", ".", "..", "a/../b", "a/.", "..;x/b", "a/.;x", "a\\b", "a\x00b", "a\nb", "a\x7f", "a\u0085", "\xff", strings.Repeat("k", MaxKey+1),
	} {
		if err := CheckKey(key); err == nil {
			t.Errorf("%q is accepted", key)
		}
	}
}

// FuzzKey: whatever is accepted is text, means one thing as a path, and comes back from a
// record as it went in.
func FuzzKey(f *testing.F) {
	for _, key := range []string{"a/b", "..", "a//b", "\u0085", "a;b/..;c", "<>&\u2028"} {
		f.Add(key, "text/plain")
	}
	f.Fuzz(func(t *testing.T, key, contentType string) {
		if CheckKey(key) != nil {
			return
		}
		if len(key) == 0 || len(key) > MaxKey || !utf8.ValidString(key) || strings.Contains("/"+key+"/", "/../") || strings.Contains("/"+key+"/", "//") {
			t.Fatalf("%q is accepted", key)
		}
		if CheckPrefix(key) != nil {
			t.Fatalf("%q is a key and no prefix", key)
		}
		if checkType(contentType) != nil {
			return
		}
		h := &head{Namespace: "n", Bucket: "b", Key: key, Operation: OpPut, Type: contentType, Modified: time.Unix(1, 0).UTC(), Previous: 3, OldSize: 1}
		b, err := h.encode([]byte("\nvalue"), []byte("o"))
		if err != nil {
			t.Fatal(err)
		}
		got, value, old, err := decode(b)
		if err != nil || *got != *h || string(value) != "\nvalue" || string(old) != "o" {
			t.Fatalf("%q came back as %+v, %v", key, got, err)
		}
	})
}

// FuzzRecord: whatever is read holds what a store would have written.
func FuzzRecord(f *testing.F) {
	h := &head{Namespace: "n", Bucket: "b", Key: "k", Operation: OpPut}
	b, err := h.encode([]byte("v"), nil)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte(`{"v":1,"ns":"n","bucket":"b","key":"k","op":"put","time":"2026-01-01T00:00:00Z","length":-1,"oldLength":2}` + "\nx"))
	f.Add([]byte("{}\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		h, value, old, err := decode(b)
		if err != nil {
			return
		}
		if CheckKey(h.Key) != nil || CheckBucket(h.Namespace, h.Bucket) != nil || len(value) != h.Length || len(value)+len(old) > len(b) {
			t.Fatalf("%q is read as %+v", b, h)
		}
		h.change(1, value, old)
	})
}

func TestSlotNames(t *testing.T) {
	t.Parallel()
	for _, slot := range []uint32{0, 1, pageSlots - 1, pageSlots, maxPages*pageSlots - 1} {
		if got, ok := slotOf(slotName(slot)); !ok || got != slot {
			t.Errorf("%d came back as %d", slot, got)
		}
	}
	for _, name := range []string{"", "v.0", "v.0." + strconv.Itoa(pageSlots), "v.00.1", "v.+1.1", "v.1.1.1", "w.1.1", "v." + strconv.Itoa(maxPages) + ".0"} {
		if _, ok := slotOf(name); ok {
			t.Errorf("%s is a slot", name)
		}
	}
}

func TestIndexAgainstAModel(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		x, model := &index{}, map[string]item{}
		key := rapid.Custom(func(t *rapid.T) string { return strconv.Itoa(rapid.IntRange(0, 3000).Draw(t, "n")) })
		for range rapid.IntRange(0, 8).Draw(t, "rounds") {
			first := rapid.IntRange(0, 3000).Draw(t, "first")
			for i := range rapid.IntRange(0, 1500).Draw(t, "many") {
				k := strconv.Itoa((first + i*7) % 3001)
				if rapid.Bool().Draw(t, "set") {
					it := item{key: k, rev: uint64(i + 1), expires: int64(i % 2)} //nolint:gosec // small
					x.set(it)
					model[k] = it
				} else {
					x.remove(k)
					delete(model, k)
				}
			}
			want := make([]string, 0, len(model))
			timed := 0
			for k, it := range model {
				want = append(want, k)
				if it.expires != 0 {
					timed++
				}
			}
			slices.Sort(want)
			from, n := key.Draw(t, "from"), rapid.IntRange(0, 700).Draw(t, "n")
			at, _ := slices.BinarySearch(want, from)
			got := x.from(from, n)
			for i, it := range got {
				if it != model[want[at+i]] {
					t.Fatalf("at %d is %+v, not %s", i, it, want[at+i])
				}
			}
			if len(got) != min(n, len(want)-at) || x.keys != len(model) || x.timed != timed {
				t.Fatalf("%d of %d keys, %d timed", len(got), x.keys, x.timed)
			}
			for _, b := range x.blocks {
				if len(b) == 0 || len(b) > blockSize {
					t.Fatalf("a block of %d", len(b))
				}
			}
		}
	})
}

// TestSettledWaitsForWhatIsUnderWay: a checkpoint must not pass a change that is in the
// log alone.
func TestSettledWaitsForWhatIsUnderWay(t *testing.T) {
	t.Parallel()
	f := &flight{under: map[*uint64]struct{}{}}
	f.saw(3)
	first := f.begin()
	second := f.begin()
	f.saw(5) // the second's
	second()
	if got := f.settled(); got != 3 {
		t.Errorf("settled at %d while one is under way, not 3", got)
	}
	f.saw(4)
	first()
	if got := f.settled(); got != 5 {
		t.Errorf("settled at %d, not 5", got)
	}
}

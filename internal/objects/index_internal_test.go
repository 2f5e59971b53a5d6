package objects

import (
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// TestIndexIsASortedMap compares the index with a map.
func TestIndexIsASortedMap(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		var x index
		model := map[string]item{}
		for range rapid.IntRange(0, 3000).Draw(t, "steps") {
			key := fmt.Sprint(rapid.IntRange(0, 2000).Draw(t, "key"))
			if rapid.IntRange(0, 3).Draw(t, "op") == 0 {
				x.remove(key)
				delete(model, key)
				continue
			}
			it := item{key: key, rev: rapid.Uint64().Draw(t, "rev"), hidden: rapid.Bool().Draw(t, "hidden"), gone: rapid.Bool().Draw(t, "gone")}
			x.set(it)
			model[key] = it
		}
		var want []item
		there, shown := 0, 0
		from := fmt.Sprint(rapid.IntRange(0, 2000).Draw(t, "from"))
		for k, it := range model {
			if k >= from {
				want = append(want, it)
			}
			if !it.gone {
				there++
				if !it.hidden {
					shown++
				}
			}
		}
		slices.SortFunc(want, func(a, b item) int {
			if a.key < b.key {
				return -1
			}
			return 1
		})
		n := rapid.IntRange(0, 3000).Draw(t, "n")
		if got := x.from(from, n); !slices.Equal(got, want[:min(n, len(want))]) {
			t.Fatalf("from %s: %d items, want %d", from, len(got), min(n, len(want)))
		}
		if x.there != there || x.shown != shown {
			t.Fatalf("counts %d and %d, want %d and %d", x.there, x.shown, there, shown)
		}
	})
}

package node

import (
	"runtime"
	"runtime/debug"
	"sync"
	"testing"
	"weak"
)

func TestMemoryIsHandedBackAtRest(t *testing.T) {
	t.Parallel()
	const mib = 1 << 20
	// Each look: what was allocated since the one before, what there is to spare, and
	// whether that is to be handed back.
	type look struct {
		since, spare uint64
		due          bool
	}
	for name, looks := range map[string][]look{
		"after a burst, once":     {{40 * mib, 50 * mib, false}, {calm, 50 * mib, true}, {calm, mib, false}},
		"not during one":          {{40 * mib, 50 * mib, false}, {calm + 1, 90 * mib, false}, {5 * mib, 50 * mib, false}},
		"not for little":          {{calm, worthwhile - 1, false}, {0, worthwhile - 1, false}},
		"again when more is free": {{0, worthwhile, true}, {0, 0, false}, {0, worthwhile, true}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var r rest
			var allocated uint64
			for i, l := range looks {
				allocated += l.since
				if got := r.due(heap{allocated: allocated, spare: l.spare}); got != l.due {
					t.Errorf("look %d: due is %v", i, got)
				}
			}
		})
	}
}

func TestHandingBackLeavesLittleToSpare(t *testing.T) {
	// Not parallel: it looks at the whole process.
	const pieces, piece = 16, 4 << 20
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	alive := make([]byte, 4*worthwhile)
	before := readHeap()
	litter(pieces, piece)
	after := readHeap()
	if got := after.allocated - before.allocated; got < pieces*piece {
		t.Errorf("%d bytes were allocated, and seen were %d", pieces*piece, got)
	}
	if after.spare < pieces*piece {
		t.Errorf("%d bytes of garbage lie about, and seen were %d", pieces*piece, after.spare)
	}
	runtime.GC() // then all of it is free, and still ours
	if got := readHeap().spare; got < pieces*piece/2 {
		t.Errorf("%d bytes of garbage were collected, and seen were %d", pieces*piece, got)
	}
	var pool sync.Pool
	pooled := putInto(&pool)
	handBack()
	if got := readHeap().spare; got >= worthwhile {
		t.Errorf("%d bytes are spare still", got)
	}
	if pooled.Value() != nil {
		t.Error("what a pool held is there still")
	}
	runtime.KeepAlive(alive)
	runtime.KeepAlive(&pool)
}

// litter leaves garbage.
func litter(pieces, piece int) {
	kept := make([][]byte, pieces)
	for i := range kept {
		kept[i] = make([]byte, piece)
	}
	runtime.KeepAlive(kept)
}

func putInto(p *sync.Pool) weak.Pointer[[]byte] {
	b := make([]byte, 64<<10)
	p.Put(&b)
	return weak.Make(&b)
}

package memory

import "sync/atomic"

// Budget is what all guests of a process may use of linear memory together.
type Budget struct {
	limit uint64
	used  atomic.Uint64
}

// NewBudget gives a budget of limit bytes.
func NewBudget(limit uint64) *Budget { return &Budget{limit: limit} }

// Used is what is taken now, in bytes.
func (b *Budget) Used() uint64 { return b.used.Load() }

// take reports whether n more bytes may be used, and counts them if so.
func (b *Budget) take(n uint64) bool {
	for {
		used := b.used.Load()
		if n > b.limit || used > b.limit-n {
			return false
		}
		if b.used.CompareAndSwap(used, used+n) {
			return true
		}
	}
}

// give returns n bytes.
func (b *Budget) give(n uint64) { b.used.Add(-n) }

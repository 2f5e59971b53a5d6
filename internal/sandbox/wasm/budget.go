package wasm

import "sync/atomic"

// budget is what all guests of the process may use of linear memory together.
type budget struct {
	limit uint64
	used  atomic.Uint64
}

// take reports whether n more bytes may be used, and counts them if so.
func (b *budget) take(n uint64) bool {
	for {
		used := b.used.Load()
		if used+n > b.limit {
			return false
		}
		if b.used.CompareAndSwap(used, used+n) {
			return true
		}
	}
}

// give returns n bytes.
func (b *budget) give(n uint64) { b.used.Add(-n) }

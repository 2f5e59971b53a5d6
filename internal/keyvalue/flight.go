package keyvalue

import "sync"

// flight knows up to which revision all changes have been carried out.
type flight struct {
	mu    sync.Mutex
	last  uint64 // the greatest revision seen
	under map[*uint64]struct{}
}

// begin counts a change as under way. Its revision will be greater than all that were
// seen before.
func (f *flight) begin() (end func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	low := f.last
	f.under[&low] = struct{}{}
	return func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		delete(f.under, &low)
	}
}

func (f *flight) saw(rev uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.last = max(f.last, rev)
}

func (f *flight) settled() uint64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	settled := f.last
	for low := range f.under {
		settled = min(settled, *low)
	}
	return settled
}

package delivery

import (
	"context"
	"sync"
)

// budget bounds the bytes of events in hand, all triggers together.
type budget struct {
	mu    sync.Mutex
	most  int64
	used  int64
	freed chan struct{} // closed, and made anew, when bytes come back and somebody waits
}

func (b *budget) take(n int64) {
	b.mu.Lock()
	b.used += n
	b.mu.Unlock()
}

func (b *budget) give(n int64) {
	if n == 0 {
		return
	}
	b.mu.Lock()
	b.used -= n
	if b.freed != nil {
		close(b.freed)
		b.freed = nil
	}
	b.mu.Unlock()
}

// wait returns when there is room, or somebody else has what it waits for: may is asked
// each time bytes come back. It fails when ctx ends.
func (b *budget) wait(ctx context.Context, may func(roomy bool) bool, n int64) error {
	b.mu.Lock()
	roomy := b.used+n <= b.most
	b.mu.Unlock()
	if may(roomy) {
		return nil
	}
	for {
		b.mu.Lock()
		roomy := b.used+n <= b.most
		if b.freed == nil {
			b.freed = make(chan struct{})
		}
		freed := b.freed
		b.mu.Unlock()
		if may(roomy) {
			return nil
		}
		select {
		case <-freed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

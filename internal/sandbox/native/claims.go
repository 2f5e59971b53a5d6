package native

import "sync"

// claims keeps what all sandboxes together may use of the machine's memory within a
// bound: each one claims its limit for as long as it lives, whether it needs it or not.
// So no combination of guests can take more than was promised to them together.
// The mutex guards the fields below it.
type claims struct {
	budget int64

	mu     sync.Mutex
	total  int64
	by     map[string]int64 // namespace
	ending int              // claims that are about to be released
	change chan struct{}    // closed at the next release
}

// ownShare is how much of the budget one namespace may claim while there are others,
// in percent, so that there is always room for somebody else.
const ownShare = 75

func newClaims(budget int64) *claims {
	return &claims{budget: budget, by: map[string]int64{}, change: make(chan struct{})}
}

// room is what became of a claim.
type room int

const (
	granted  room = iota
	noRoom        // the budget is spent
	ownLimit      // the namespace holds as much as one may beside others
)

// claim takes n bytes for a namespace, if there is room.
func (c *claims) claim(namespace string, n int64) room {
	c.mu.Lock()
	defer c.mu.Unlock()
	others := len(c.by) > 1 || len(c.by) == 1 && c.by[namespace] == 0
	switch {
	case others && c.by[namespace]+n > c.budget/100*ownShare:
		return ownLimit
	case c.total+n > c.budget:
		return noRoom
	}
	c.total += n
	c.by[namespace] += n
	return granted
}

// announce says that a claim will be released soon.
func (c *claims) announce() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ending++
}

// soon gives what is closed at the next release, nil when none was announced.
func (c *claims) soon() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ending == 0 {
		return nil
	}
	return c.change
}

// release gives a claim back; announced says that announce was called for it.
func (c *claims) release(namespace string, n int64, announced bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if announced {
		c.ending--
	}
	close(c.change)
	c.change = make(chan struct{})
	c.total -= n
	c.by[namespace] -= n
	if c.by[namespace] == 0 {
		delete(c.by, namespace)
	}
}

// held gives what a namespace has claimed, in bytes.
func (c *claims) held(namespace string) int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.by[namespace]
}

// sum gives what all have claimed together, in bytes.
func (c *claims) sum() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.total
}

package invoke

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/casemate-dev/casemate/api/problem"
	"github.com/casemate-dev/casemate/internal/function"
)

// DefaultCapacity is how many invocations a node runs at once, all functions
// together.
const DefaultCapacity = 512

// retryAfter is what a caller who was turned away is asked to wait.
const retryAfter = time.Second

// Admission bounds how many invocations run at once: for each function by its
// maximum, and for the node by its capacity, of which a function's reserved
// places are kept free for it alone. Nobody queues: who does not fit is told so
// at once, and when to come back. It may be used from many goroutines.
type Admission struct {
	mu       sync.Mutex
	capacity int
	reserved map[function.Ref]int
	pledged  int // sum of reserved
	inFlight map[function.Ref]int
	shared   int // invocations under way beyond their function's reservation
	total    int
	served   int64
	draining bool
	idle     chan struct{} // closed when draining and nothing is in flight
}

// NewAdmission makes an Admission with the node's capacity, which must be positive.
func NewAdmission(capacity int) (*Admission, error) {
	if capacity < 1 {
		return nil, fmt.Errorf("making the admission: capacity is %d; it must be at least 1", capacity)
	}
	return &Admission{
		capacity: capacity,
		reserved: map[function.Ref]int{},
		inFlight: map[function.Ref]int{},
		idle:     make(chan struct{}),
	}, nil
}

// Reservable is how many places can be reserved altogether: half of the
// capacity, so that functions without a reservation always find some.
func (a *Admission) Reservable() int { return a.capacity / 2 }

// CheckReserve reports, as a *problem.Error, whether these functions can reserve
// their places together, beside what the others have reserved.
func (a *Admission) CheckReserve(wanted map[function.Ref]int) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	free, asked := a.Reservable()-a.pledged, 0
	for ref, n := range wanted {
		free += a.reserved[ref]
		asked += n
	}
	if asked > 0 && asked > free {
		return problem.New(problem.InvalidManifest, "this deployment reserves %d places and %d are left on this node", asked, max(0, free)).
			At("concurrency.reserved").Fix("Reserve at most %d altogether, or lower another function's reservation.", max(0, free))
	}
	return nil
}

// Reserve replaces all reservations. They were checked with CheckReserve when they
// were deployed; should two deployments have raced past that, what goes beyond
// Reservable, in order of name, is not kept, and it is returned.
func (a *Admission) Reserve(reserved map[function.Ref]int) (dropped []function.Ref) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.reserved = make(map[function.Ref]int, len(reserved))
	a.pledged, a.shared = 0, 0
	byName := slices.SortedFunc(maps.Keys(reserved), func(x, y function.Ref) int { return strings.Compare(x.String(), y.String()) })
	for _, ref := range byName {
		n := reserved[ref]
		switch {
		case n <= 0:
		case a.pledged+n > a.Reservable():
			dropped = append(dropped, ref)
		default:
			a.reserved[ref] = n
			a.pledged += n
		}
	}
	for ref, n := range a.inFlight {
		a.shared += max(0, n-a.reserved[ref])
	}
	return dropped
}

// enter takes a place, or fails with a *problem.Error. The place must be given
// back by calling release once.
func (a *Admission) enter(ref function.Ref, lim *function.Limits) (release func(), err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.draining {
		return nil, problem.New(problem.Draining, "the node is shutting down and takes no new work").After(retryAfter)
	}
	n := a.inFlight[ref]
	if n >= lim.Concurrency {
		return nil, problem.New(problem.TooManyRequests, "%s already runs %d invocations, which is its limit", ref, lim.Concurrency).After(retryAfter)
	}
	if n >= a.reserved[ref] {
		if a.shared >= a.capacity-a.pledged {
			return nil, problem.New(problem.Overloaded, "the node already runs as many invocations as it can").After(retryAfter)
		}
		a.shared++
	}
	a.inFlight[ref] = n + 1
	a.total++
	a.served++
	return func() { a.leave(ref) }, nil
}

func (a *Admission) leave(ref function.Ref) {
	a.mu.Lock()
	defer a.mu.Unlock()
	n := a.inFlight[ref]
	if n > a.reserved[ref] {
		a.shared--
	}
	if n == 1 {
		delete(a.inFlight, ref)
	} else {
		a.inFlight[ref] = n - 1
	}
	a.total--
	if a.draining && a.total == 0 {
		close(a.idle)
	}
}

// Load says how many invocations are under way, and how many were admitted since
// the start.
func (a *Admission) Load() (inFlight int, admitted int64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.total, a.served
}

// Drain refuses new invocations from now on and waits until none is under way,
// or until ctx ends, in which case it reports how many were left. Further calls
// wait like the first.
func (a *Admission) Drain(ctx context.Context) error {
	a.mu.Lock()
	if !a.draining {
		a.draining = true
		if a.total == 0 {
			close(a.idle)
		}
	}
	a.mu.Unlock()
	select {
	case <-a.idle:
		return nil
	case <-ctx.Done():
		left, _ := a.Load()
		return fmt.Errorf("draining: %d invocations still under way: %w", left, ctx.Err())
	}
}

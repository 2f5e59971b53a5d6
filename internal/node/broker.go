package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/casemate-dev/casemate/internal/sandbox/box"
)

// A new broker is tried at once when one has ended, and then with waits that double. One
// that has lived for so long began a new count.
const (
	firstBrokerWait = 100 * time.Millisecond
	mostBrokerWait  = 10 * time.Second
	brokerProven    = time.Minute
)

// afterEnd is how long a start that failed looks for the broker's end as the reason.
const afterEnd = 100 * time.Millisecond

// keeper keeps one broker for both tiers: every sandbox of the node is started by it.
// When the broker ends, by the machine's memory running out for example, every sandbox
// ends with it, by the kernel's hand. The node goes on: it holds what was acknowledged,
// and what its callers wait for is lost or not whether it ends too. It starts a new
// broker, which must enforce what the first one did, and the tiers start anew on that.
// Until it is there, starts wait.
type keeper struct {
	open  func(context.Context) (*box.Broker, error)
	log   *slog.Logger
	clock func() time.Time
	stop  context.CancelFunc
	done  chan struct{}

	mu      sync.Mutex
	current *box.Broker
	next    chan struct{} // closed when current is another one
	closed  bool
}

// keepBroker opens the first broker. An error means that this machine has none.
func keepBroker(ctx context.Context, log *slog.Logger, clock func() time.Time, open func(context.Context) (*box.Broker, error)) (*keeper, error) {
	first, err := open(ctx)
	if err != nil {
		return nil, err
	}
	k := &keeper{open: open, log: log, clock: clock, done: make(chan struct{}), current: first, next: make(chan struct{})}
	ctx, k.stop = context.WithCancel(context.WithoutCancel(ctx))
	go k.run(ctx, first)
	return k, nil
}

// Broker gives the broker, when there is one.
func (k *keeper) Broker(ctx context.Context) (*box.Broker, error) {
	for {
		k.mu.Lock()
		b, next, closed := k.current, k.next, k.closed
		k.mu.Unlock()
		select {
		case <-b.Done():
		default:
			return b, nil
		}
		if closed {
			return nil, box.ErrEnded
		}
		select {
		case <-next:
		case <-k.done:
			return nil, box.ErrEnded
		case <-ctx.Done():
			return nil, fmt.Errorf("waiting for a new broker: %w", context.Cause(ctx))
		}
	}
}

// Start implements process.Boxes. A start that failed because the broker ended is tried
// again on the next one.
func (k *keeper) Start(ctx context.Context, s box.Spec) (*box.Box, error) {
	for {
		b, err := k.Broker(ctx)
		if err != nil {
			return nil, err
		}
		x, err := b.Start(ctx, s)
		if err == nil || !(errors.Is(err, box.ErrEnded) || errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNRESET)) {
			return x, err
		}
		select { // the box ended, or the broker, which may take a moment to be seen
		case <-b.Done():
		case <-time.After(afterEnd):
			return nil, err
		}
	}
}

// Posture implements process.Boxes.
func (k *keeper) Posture() box.Posture {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.current.Posture()
}

// close ends the broker, and every box that is left.
func (k *keeper) close() error {
	k.mu.Lock()
	k.closed = true
	k.mu.Unlock()
	k.stop()
	<-k.done
	return k.current.Close()
}

// run replaces the broker whenever it has ended.
func (k *keeper) run(ctx context.Context, b *box.Broker) {
	defer close(k.done)
	wait := firstBrokerWait
	for began := k.clock(); ; began = k.clock() {
		select {
		case <-ctx.Done():
			return
		case <-b.Done():
		}
		lived := k.clock().Sub(began)
		k.log.Error("the broker ended, and every sandbox with it; a new one is started", "lived", lived)
		if lived >= brokerProven {
			wait = firstBrokerWait
		} else if !k.pause(ctx, &wait) {
			return
		}
		if b = k.replace(ctx, b, &wait); b == nil {
			return
		}
	}
}

// pause waits, longer the next time, and reports whether to go on.
func (k *keeper) pause(ctx context.Context, wait *time.Duration) bool {
	t := time.NewTimer(*wait)
	defer t.Stop()
	*wait = min(2**wait, mostBrokerWait)
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// replace opens brokers until one is as good as the last; nil means that the node stops.
func (k *keeper) replace(ctx context.Context, last *box.Broker, wait *time.Duration) *box.Broker {
	for {
		b, err := k.open(ctx)
		if err == nil {
			err = noWeaker(last.Posture(), b.Posture())
			if err != nil {
				_ = b.Close()
			}
		}
		if err == nil {
			k.mu.Lock()
			k.current = b
			close(k.next)
			k.next = make(chan struct{})
			k.mu.Unlock()
			k.log.Warn("there is a new broker; sandboxes can be started again")
			return b
		}
		k.log.Error("a new broker cannot be started; nothing can run until one is", "error", err)
		if !k.pause(ctx, wait) {
			return nil
		}
	}
}

// noWeaker refuses a broker that enforces less than the last one did: code that was
// deployed under one promise does not run under another.
func noWeaker(last, next box.Posture) error {
	var lost []string
	for _, m := range last.Enforced {
		if !next.Has(m) {
			lost = append(lost, m)
		}
	}
	if len(lost) == 0 {
		return nil
	}
	slices.Sort(lost)
	reasons := maps.Clone(next.Missing)
	return fmt.Errorf("it does not enforce %s, which the last one did: %s", strings.Join(lost, ", "), reasons[lost[0]])
}

package process

import (
	"errors"
	"log/slog"
	"sync"
	"time"
)

// Waits between attempts to start a process ahead, when the last one failed.
const (
	firstBackoff = 200 * time.Millisecond
	mostBackoff  = 10 * time.Second
)

// pool keeps processes ready that no namespace has used. The mutex guards the
// fields below it.
type pool struct {
	start  func() (*process, error)
	want   int
	logger *slog.Logger
	wake   chan struct{} // room for one
	stop   chan struct{}
	done   chan struct{}

	mu     sync.Mutex
	ready  []*process
	closed bool
}

func newPool(want int, start func() (*process, error), logger *slog.Logger) *pool {
	return &pool{
		start: start, want: want, logger: logger,
		wake: make(chan struct{}, 1), stop: make(chan struct{}), done: make(chan struct{}),
	}
}

// take gives a process that nobody used: one that is ready, or a new one. The next is
// started when what this one is for has been loaded (process.load calls refill), since
// somebody waits for that, or at once when there was none.
func (p *pool) take() (*process, error) {
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		return nil, errEnded
	}
	var found *process
	for found == nil && len(p.ready) > 0 {
		last := p.ready[len(p.ready)-1]
		p.ready = p.ready[:len(p.ready)-1]
		if last.alive() {
			found = last
		}
	}
	p.mu.Unlock()
	if found != nil {
		return found, nil
	}
	p.refill()
	return p.start()
}

// put adds a process, or gives it back when the pool is full or closed.
func (p *pool) put(b *process) {
	p.mu.Lock()
	full := p.closed || len(p.ready) >= p.want
	if !full {
		p.ready = append(p.ready, b)
	}
	p.mu.Unlock()
	if full {
		b.kill(reasonIdle)
		return
	}
	b.preload()
}

// refill has processes started until there are enough.
func (p *pool) refill() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

func (p *pool) missing() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return !p.closed && len(p.ready) < p.want
}

// run starts processes ahead until close.
func (p *pool) run() {
	defer close(p.done)
	backoff := firstBackoff
	for {
		var retry <-chan time.Time
		for p.missing() {
			b, err := p.start()
			if errors.Is(err, errEnded) {
				break
			}
			if err != nil {
				p.logger.Error("starting a sandbox process ahead", slog.Any("error", err))
				retry = time.After(backoff)
				backoff = min(2*backoff, mostBackoff)
				break
			}
			backoff = firstBackoff
			p.put(b)
		}
		select {
		case <-p.wake:
		case <-retry:
		case <-p.stop:
			return
		}
	}
}

// close makes take fail and stops starting. Processes in the pool are killed by
// their runner, with all others.
func (p *pool) close() {
	p.mu.Lock()
	p.closed = true
	p.ready = nil
	p.mu.Unlock()
	close(p.stop)
	<-p.done
}

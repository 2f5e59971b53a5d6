package gateway

import (
	"context"
	"fmt"
	"sync/atomic"

	"github.com/casemate-dev/casemate/api/problem"
)

// flight counts the requests under way. A request is counted before it looks at
// draining, and draining is set before the count is read, so none slips between.
// One that comes later is not counted, so that a flood cannot hold up the end.
type flight struct {
	count    atomic.Int64
	draining atomic.Bool
	landed   chan struct{} // capacity 1: the count may have reached zero
}

// begin reports whether one more request may begin; if so, end follows it.
func (f *flight) begin() bool {
	if f.draining.Load() {
		return false
	}
	f.count.Add(1)
	if f.draining.Load() {
		f.end()
		return false
	}
	return true
}

func (f *flight) end() {
	if f.count.Add(-1) == 0 && f.draining.Load() {
		select {
		case f.landed <- struct{}{}:
		default:
		}
	}
}

// admit refuses every request once Drain was called.
func (g *Gateway) admit(x *exchange) error {
	if x.admitted = g.flight.begin(); x.admitted {
		return nil
	}
	// Also makes HTTP/2 send GOAWAY, so that the client goes elsewhere at once.
	x.setHeader("Connection", "close")
	return problem.New(problem.Draining, "this node takes no new requests").After(drainRetry)
}

// Drain refuses new requests with 503 from now on and returns when those under
// way have been answered, or with the reason why ctx ended before that. There is
// no way back. Call http.Server.Shutdown after it.
func (g *Gateway) Drain(ctx context.Context) error {
	g.flight.draining.Store(true)
	for {
		n := g.flight.count.Load()
		if n == 0 {
			return nil
		}
		select {
		case <-g.flight.landed:
		case <-ctx.Done():
			return fmt.Errorf("draining gateway: %d requests still under way: %w", n, context.Cause(ctx))
		}
	}
}

package gateway

import (
	"errors"
	"io"
	"net"
	"os"
	"time"

	"github.com/casemate-dev/casemate/api/problem"
)

// startClock bounds the time for the body, if one was announced. Server has no
// ReadTimeout for it, since that one would also end the requests of functions
// that take their time.
func (g *Gateway) startClock(x *exchange) error {
	if x.r.ContentLength != 0 {
		g.setReadDeadline(x, x.start.Add(g.limits.BodyGrace))
	}
	return nil
}

// readBody takes in the whole body, within the route's limit and no slower than
// the minimum rate. Memory grows with what arrives, not with what is announced.
func (g *Gateway) readBody(x *exchange) error {
	announced := x.r.ContentLength
	if announced == 0 {
		x.bodyDone = true
		return nil
	}
	limit := x.target.bodyLimit
	if announced > limit {
		return tooLarge(limit)
	}
	size := int64(firstChunkBuffer)
	if announced > 0 {
		size = min(announced, firstBodyBuffer)
	}
	deadline := x.start.Add(g.limits.BodyGrace)
	for {
		if int64(len(x.body)) == int64(cap(x.body)) {
			// One byte over the limit is enough to know that it is exceeded.
			if err := g.growBody(x, min(max(size, 2*int64(cap(x.body))), limit+1)); err != nil {
				return err
			}
		}
		n, err := x.r.Body.Read(x.body[len(x.body):cap(x.body)])
		x.body = x.body[:len(x.body)+n]
		if int64(len(x.body)) > limit {
			return tooLarge(limit)
		}
		if errors.Is(err, io.EOF) || (err == nil && int64(len(x.body)) == announced) {
			break
		}
		if err != nil {
			return bodyError(err)
		}
		if later := g.bodyDeadline(x); later.Sub(deadline) > time.Second {
			deadline = later
			g.setReadDeadline(x, deadline)
		}
	}
	// net/http lifts the deadline when it sees the end of a body; else it would
	// strike while the function runs, and look like a lost client.
	x.bodyDone = true
	return nil
}

// bodyDeadline moves on with every byte that arrives, up to BodyTime.
func (g *Gateway) bodyDeadline(x *exchange) time.Time {
	return x.start.Add(min(g.limits.BodyTime, transferTime(g.limits.BodyGrace, int64(len(x.body)), g.limits.MinRate)))
}

// growBody makes room for size bytes, within what all requests may hold.
func (g *Gateway) growBody(x *exchange, size int64) error {
	more := size - int64(cap(x.body))
	x.reserved += more // given back in account, in any case
	full := g.bodyMemory.Add(more) > g.limits.BodyMemory
	if x.target.kind == toHook {
		full = g.hookMemory.Add(more) > g.hookShare() || full
	}
	if full {
		return problem.New(problem.Overloaded, "too many request bodies are held at once").After(memoryRetry)
	}
	grown := make([]byte, len(x.body), size)
	copy(grown, x.body)
	x.body = grown
	return nil
}

// hookShare is what the bodies for webhooks may take of the body memory. Nothing is known
// of their senders until a body is there, so they must leave room for the others.
func (g *Gateway) hookShare() int64 {
	return max(g.limits.BodyMemory/4, min(g.limits.BodyMemory, maxHookBody+1))
}

func tooLarge(limit int64) error {
	return problem.New(problem.BodyTooLarge, "this route accepts at most %d bytes", limit).At("body")
}

func bodyError(err error) error {
	var timeout net.Error
	if errors.Is(err, os.ErrDeadlineExceeded) || (errors.As(err, &timeout) && timeout.Timeout()) {
		return problem.New(problem.RequestTimeout, "the body did not arrive in time").Because(err)
	}
	return problem.New(problem.BadRequest, "the body is malformed or incomplete").At("body").Because(err)
}

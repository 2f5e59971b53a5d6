package delivery

import (
	"net/http"
	"time"

	"github.com/casemate-dev/casemate/api/problem"
)

// class says what an outcome means for the event.
type class int

const (
	succeeded class = iota
	failed          // by the function: try again, and count it
	permanent       // by the function or for its sake: trying again is of no use
	busy            // nothing ran for want of room: try again soon, without counting
	refused         // there is nothing to run, or it may not be: try again slowly, without counting
)

// classify reads an outcome. A function that answers is judged by its status, as HTTP
// means it: 4xx says that the event itself is wrong, but for the three that ask to come
// again. Failures before the function are judged by their code.
func classify(o *Outcome) class {
	switch o.Code {
	case "":
		switch s := o.Status; {
		case s < http.StatusBadRequest:
			return succeeded
		case s == http.StatusRequestTimeout, s == http.StatusTooEarly, s == http.StatusTooManyRequests:
			return failed
		case s < http.StatusInternalServerError:
			return permanent
		default:
			return failed
		}
	case problem.TooManyRequests, problem.Overloaded, problem.Draining, problem.StorageFull:
		return busy
	case problem.NotFound, problem.Forbidden, problem.Unauthenticated, problem.NotImplemented,
		problem.InvalidModule, problem.ArtifactTampered:
		return refused
	case problem.BadRequest, problem.InvalidPath, problem.InvalidHeader, problem.BodyTooLarge,
		problem.UnsupportedMedia, problem.HeadersTooLarge:
		return permanent
	default:
		return failed
	}
}

// Pauses of a trigger that is turned away: they double from the first to the last.
const (
	busyFirst    = 50 * time.Millisecond
	busyMost     = 5 * time.Second
	refusedFirst = 5 * time.Second
	refusedMost  = time.Minute
	// maxAsked bounds how long anybody may have an event wait by Retry-After.
	maxAsked = 15 * time.Minute
)

// doubled is first doubled n times, at most most.
func doubled(first, most time.Duration, n int) time.Duration {
	d := first
	for range min(n, 40) {
		if d >= most {
			break
		}
		d *= 2
	}
	return min(d, most)
}

// backoff is the pause before attempt number attempts+1: exponential with full jitter
// (Brooker, "Exponential Backoff and Jitter"), and not less than what was asked for.
func (b *Binding) backoff(attempts int, asked time.Duration, random func() float64) time.Duration {
	d := doubled(b.Delivery.Backoff, b.Delivery.BackoffMost, attempts-1)
	return max(time.Duration(random()*float64(d)), min(asked, maxAsked))
}

// soonest is when an event of the retry log is due. Its time was written by a clock that
// may have been ahead of ours: then it is due after the pause that was meant, and never
// later than the longest one there is.
func (b *Binding) soonest(tr *tried, now time.Time) time.Time {
	most := max(b.Delivery.BackoffMost, maxAsked)
	if !tr.Last.IsZero() {
		most = min(most, max(tr.Due.Sub(tr.Last), 0))
	}
	if at := now.Add(most); tr.Due.After(at) {
		return at
	}
	return tr.Due
}

// heldUp is how long the trigger waits after it was turned away for the n-th time in a
// row. It never waits less than half the pause: a trigger is no crowd.
func heldUp(c class, n int, asked time.Duration, random func() float64) time.Duration {
	d := doubled(busyFirst, busyMost, n)
	if c == refused {
		d = doubled(refusedFirst, refusedMost, n)
	}
	return max(d/2+time.Duration(random()*float64(d/2)), min(asked, maxAsked))
}

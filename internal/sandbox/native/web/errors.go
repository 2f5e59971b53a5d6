package web

import (
	"errors"
	"fmt"
)

// ErrNotListening says that nobody listens on the guest's port yet. Dial functions
// may return errors that match it, or the system's ECONNREFUSED.
var ErrNotListening = errors.New("nobody listens on the port")

// Kind says what went wrong between us and the guest.
type Kind string

// The ways to fail.
const (
	BadRequest  Kind = "bad-request" // the request cannot be written as HTTP/1.1; nothing was sent
	Unreachable Kind = "unreachable" // the guest could not be connected to; nothing was sent
	Closed      Kind = "closed"      // the guest closed the connection before its answer was complete
	BadAnswer   Kind = "bad-answer"  // the answer is not HTTP/1.1
	TooLarge    Kind = "too-large"   // the answer is larger than its limit
)

// Error is how a Client fails, unless its context ends. Detail may be shown to the
// caller; Cause may not.
type Error struct {
	Kind   Kind
	Detail string
	Cause  error
}

func (e *Error) Error() string {
	if e.Cause != nil {
		return fmt.Sprintf("calling the function's server: %s: %v", e.Detail, e.Cause)
	}
	return "calling the function's server: " + e.Detail
}

// Unwrap gives the cause.
func (e *Error) Unwrap() error { return e.Cause }

func badAnswer(format string, args ...any) error {
	return &Error{Kind: BadAnswer, Detail: "the answer " + fmt.Sprintf(format, args...)}
}

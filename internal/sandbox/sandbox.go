// Package sandbox says what it means to run guest code: the Runner contract, the
// form in which a request reaches a guest and an answer leaves it, and the
// ways in which an invocation ends. Implementations live below it: process
// starts and supervises the locked-down processes, wasm is the engine inside.
// sandboxtest is the suite that each Runner must pass.
//
// The deciders (invoke) may import it; doors may not. It imports leaves only.
//
// # The guest's side
//
// A guest reads one request on standard input: a line of JSON (Head), then the
// body's bytes until the end. It writes one answer on standard output: a line
// of JSON (ResponseHead), then the body's bytes. What it writes on standard
// error is its log, line by line.
package sandbox

import (
	"context"
	"fmt"
	"time"

	"github.com/casemate-dev/casemate/internal/function"
)

// Runner runs versions. All methods may be called from many goroutines.
type Runner interface {
	// Prepare makes the version ready to run, so that the first invocation need
	// not wait: the artifact is read, verified against its digest and compiled.
	// It does nothing when the version is ready already. It fails with an *Error.
	Prepare(ctx context.Context, v *function.Version) error
	// Invoke runs the version once. The Result's usage is filled in whether or not
	// the invocation failed. It fails with an *Error and nothing else. When ctx
	// ends, the Kind is Canceled, and the guest is stopped, unless its sandbox will be
	// used again and a caller waited for it: then it may finish within its limits,
	// and Invoke returns when it has. The limit on wall time in v.Config.Limits is
	// the Runner's own to keep.
	Invoke(ctx context.Context, inv *Invocation) (Result, error)
	// Retire drops what is held for a version. Invocations under way go on.
	Retire(namespace string, id function.Digest)
	// Close ends every sandbox, stopping what still runs. It is called once.
	Close() error
}

// Invocation is one run of one version.
type Invocation struct {
	ID      string
	Version *function.Version
	Alias   string // by which the version was chosen; empty where its digits did
	Head    Head
	Body    []byte
	// Log receives the guest's log lines in order, from one goroutine at a time,
	// none after Invoke has returned. It may be nil. It must not block for long.
	Log func(LogLine)
}

// Head is what a guest learns of its request besides the body.
type Head struct {
	ID       string              `json:"id"`
	Method   string              `json:"method"`
	Path     string              `json:"path"`            // decoded, canonical
	Query    string              `json:"query,omitempty"` // as sent, without "?"
	Headers  map[string][]string `json:"headers"`         // lower-case names
	Params   map[string]string   `json:"params,omitempty"`
	Trigger  string              `json:"trigger"`            // http, invoke, …; stamped by the platform
	Caller   string              `json:"caller,omitempty"`   // verified identity, or "anonymous"
	Deadline int64               `json:"deadline,omitempty"` // Unix milliseconds
}

// ResponseHead is the first line of a guest's answer. Header values are a
// string or a list of strings; names are case-insensitive.
type ResponseHead struct {
	Status  int                 `json:"status"`
	Headers map[string][]string `json:"headers,omitempty"`
}

// LogLine is one line that a guest wrote, cut at MaxLogLine bytes.
type LogLine struct {
	Time time.Time
	Text string
}

// MaxLogLine bounds one log line, in bytes; a longer one is split.
const MaxLogLine = 8 << 10

// MaxHeadLine bounds the first line of an answer, in bytes.
const MaxHeadLine = 64 << 10

// Result is what an invocation gave and what it took.
type Result struct {
	Response ResponseHead
	Body     []byte
	Usage    Usage
}

// Usage is what an invocation consumed. Sizes are bytes.
type Usage struct {
	Wall       time.Duration
	CPU        time.Duration // of the guest's thread
	Fuel       int64         // instructions executed, an upper bound
	Calls      int64         // of the host
	MemoryPeak int64         // linear memory at its largest
	BytesOut   int64         // on standard output
	LogBytes   int64         // kept
	LogDropped int64         // over the limit and dropped
	Sandbox    string        // which sandbox ran it
	Kind       string        // what separates it: "wasm/process", and what was not enforced
	Cold       bool          // the sandbox had to load the version first
}

// Kind says why an invocation, or a preparation, failed.
type Kind string

// The ways to fail.
const (
	Timeout     Kind = "timeout"     // the wall-time limit
	CPU         Kind = "cpu"         // the limit on processor time
	Calls       Kind = "calls"       // the limit on host calls
	Canceled    Kind = "canceled"    // the caller's context ended
	Memory      Kind = "memory"      // the guest needed more than its limit
	Stack       Kind = "stack"       // the guest's calls went too deep
	Output      Kind = "output"      // the answer exceeds its limit
	Trap        Kind = "trap"        // the guest trapped
	Exit        Kind = "exit"        // the guest exited with a non-zero code
	Fault       Kind = "fault"       // the guest reported that it failed; see Error.Fault
	BadAnswer   Kind = "bad-answer"  // the answer has no valid head
	BadModule   Kind = "bad-module"  // the artifact is not code we run
	Tampered    Kind = "tampered"    // the artifact does not match its digest
	Stale       Kind = "stale"       // compiled code must be made anew; a Runner never fails with it
	Lost        Kind = "lost"        // the sandbox process ended
	Unavailable Kind = "unavailable" // no sandbox could be had; the guest never started
	Refused     Kind = "refused"     // this node does not run such code; Public says why
)

// Error is how a Runner fails. Public may be shown to the caller; Cause may not.
type Error struct {
	Kind   Kind
	Public string
	Cause  error
	// Fault is what the guest says of its failure: JSON in the form of the Lambda
	// Runtime API. Only callers of the function's own raw interface may see it.
	Fault []byte
}

// Error is for logs.
func (e *Error) Error() string {
	s := fmt.Sprintf("sandbox: %s", e.Kind)
	if e.Public != "" {
		s += ": " + e.Public
	}
	if e.Cause != nil {
		s += ": " + e.Cause.Error()
	}
	return s
}

// Unwrap gives the cause.
func (e *Error) Unwrap() error { return e.Cause }

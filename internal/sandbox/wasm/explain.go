package wasm

import (
	"errors"
	"fmt"
	"strings"

	"github.com/tetratelabs/wazero/sys"

	"github.com/casemate-dev/casemate/internal/sandbox"
	"github.com/casemate-dev/casemate/internal/sandbox/wire"
)

// exitCode is the failure that a handle reports by its result.
type exitCode uint32

// Error is for logs.
func (e exitCode) Error() string { return fmt.Sprintf("the function returned %d", int32(e)) }

// explain says what the error of a run means, or nil when it means success. denied
// tells whether the guest was refused memory.
func (i *invocation) explain(err error, denied bool) *failure {
	if err == nil {
		return nil
	}
	var exit *sys.ExitError
	if errors.As(err, &exit) && exit.ExitCode() == 0 {
		return nil
	}
	limits := &i.v.spec.Limits
	f := &failure{cause: wire.Cut(err.Error(), 2<<10)}
	var halt *stopped
	var code exitCode
	switch {
	case errors.As(err, &halt):
		f.kind, f.public = halt.kind, i.v.stopText(halt.kind)
	case errors.Is(err, errNoMemory):
		f.kind, f.public = sandbox.Unavailable, "no memory is left for another invocation; try again later"
	case denied:
		// The guest asked for more, was refused, and then failed.
		f.kind, f.public = sandbox.Memory, fmt.Sprintf("the function needed more than its %s of memory", size(limits.Memory))
	case strings.HasPrefix(err.Error(), "stack overflow"):
		f.kind, f.public = sandbox.Stack, "the function's calls went too deep"
	case errors.As(err, &exit):
		f.kind, f.public = sandbox.Exit, fmt.Sprintf("the function exited with code %d", exit.ExitCode())
	case errors.As(err, &code):
		f.kind, f.public = sandbox.Exit, code.Error()
	default:
		f.kind, f.public = sandbox.Trap, "the function crashed"
		if why, ok := trapReason(err); ok {
			f.public += ": " + why
		}
	}
	return f
}

// stopText says for the caller why a guest was stopped.
func (v *version) stopText(kind sandbox.Kind) string {
	limits := &v.spec.Limits
	switch kind {
	case sandbox.Timeout:
		return fmt.Sprintf("the function did not finish within %v", limits.Timeout)
	case sandbox.CPU:
		return fmt.Sprintf("the function computed for longer than its limit of %v", limits.ComputeTime())
	case sandbox.Calls:
		return fmt.Sprintf("the function called its host more than %d times", limits.HostCalls())
	case sandbox.Canceled:
		return "the caller has gone"
	case sandbox.Output:
		return fmt.Sprintf("the answer exceeds the limit of %s", size(limits.Output))
	case sandbox.Stack:
		return "the function's calls went too deep"
	default:
		return fmt.Sprintf("the answer does not begin with a head line of at most %s", size(sandbox.MaxHeadLine))
	}
}

// trapReason finds the engine's words for a trap, which say nothing of the code.
func trapReason(err error) (string, bool) {
	_, after, ok := strings.Cut(err.Error(), "wasm error: ")
	if !ok {
		return "", false
	}
	line, _, _ := strings.Cut(after, "\n")
	return line, true
}

// maxSaid bounds what a deployment is told of a guest's own words, in bytes.
const maxSaid = 2 << 10

// explainBoot says why a function could not be made ready, for whoever deploys it.
func (v *version) explainBoot(err error) *failure {
	var exit *sys.ExitError
	var halt *stopped
	var code exitCode
	f := badModule("the function failed while it was initialised")
	f.cause = wire.Cut(err.Error(), 2<<10)
	switch {
	case errors.Is(err, errNoMemory):
		return unavailable(err)
	case errors.As(err, &halt) && (halt.kind == sandbox.Timeout || halt.kind == sandbox.CPU):
		f.public = fmt.Sprintf("the function was not initialised within %v; do less before the first request", bootTimeout)
	case errors.As(err, &halt) && halt.kind == sandbox.Canceled:
		return unavailable(err)
	case errors.As(err, &halt):
		f.public += ": " + v.stopText(halt.kind)
	case v.denied:
		f.kind = sandbox.Memory
		f.public = fmt.Sprintf("the function needs more than its %s of memory to start; raise memory in the manifest",
			size(v.spec.Limits.Memory))
	case errors.As(err, &exit):
		f.public += fmt.Sprintf(": it exited with code %d", exit.ExitCode())
	case errors.As(err, &code):
		// What it said is reason enough.
	default:
		if why, ok := trapReason(err); ok {
			f.public += ": " + why
		} else {
			f.public += ": " + wire.Cut(err.Error(), 512)
		}
	}
	if v.said != "" {
		f.public += ": " + wire.Cut(v.said, maxSaid)
	}
	return f
}

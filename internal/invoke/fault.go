package invoke

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"unicode/utf8"

	"github.com/casemate-dev/casemate/api/problem"
	"github.com/casemate-dev/casemate/internal/function"
	"github.com/casemate-dev/casemate/internal/sandbox"
)

// maxFaultText bounds what is taken over from an answer with an error status.
const maxFaultText = 4 << 10 // bytes

// toldInLog is what a failure has for the function's log alone, line by line: what the
// function said of it, or why it could not be started, with what it printed.
func toldInLog(err error) []string {
	if err == nil {
		return nil // most have nothing to report, and looking allocates
	}
	var se *sandbox.Error
	if !errors.As(err, &se) {
		return nil
	}
	var lines []string
	switch {
	case se.Kind == sandbox.Fault && len(se.Fault) > 0:
		lines = []string{string(se.Fault)}
	case se.Kind == sandbox.BadModule && se.Public != "":
		lines = strings.Split(se.Public, "\n")
	}
	for n := range lines {
		lines[n] = lines[n][:min(len(lines[n]), sandbox.MaxLogLine)]
	}
	return lines
}

// fault says how the function failed, in the words of AWS Lambda, or nil when it
// did not. Failures on this side of the sandbox are no faults: their caller is to
// see an error of the service, which clients try again.
func fault(c *Call, v *function.Version, out *Outcome, runErr, answer error) []byte {
	if runErr == nil {
		if v.Config.Runtime.Lambda() || out.Status < http.StatusBadRequest {
			return nil
		}
		return faultJSON(fmt.Sprintf("Function.Status%d", out.Status), statusText(out))
	}
	var se *sandbox.Error
	if !errors.As(runErr, &se) {
		return nil
	}
	if json.Valid(se.Fault) { // the function's own words, or the sandbox's, which knows how it ended
		return se.Fault
	}
	kind := ""
	switch se.Kind {
	case sandbox.Timeout:
		return faultJSON("Sandbox.Timedout", fmt.Sprintf("RequestId: %s Error: Task timed out after %.2f seconds", c.RequestID, v.Config.Limits.Timeout.Seconds()))
	case sandbox.Trap, sandbox.Exit, sandbox.Fault, sandbox.Stack, sandbox.CPU, sandbox.Calls, sandbox.Lost, sandbox.BadModule:
		// Lost too: the function may have done its work, or half of it, and a client of AWS
		// would have it done again without asking, were this an error of the service.
		kind = "Runtime.ExitError"
	case sandbox.Memory:
		kind = "Runtime.OutOfMemory"
	case sandbox.Output:
		kind = "Function.ResponseSizeTooLarge"
	case sandbox.BadAnswer:
		kind = "Runtime.InvalidResponse"
	case sandbox.Canceled, sandbox.Tampered, sandbox.Stale, sandbox.Unavailable:
		return nil
	default:
		return nil
	}
	return faultJSON(kind, "RequestId: "+c.RequestID+" Error: "+problem.From(answer).Detail)
}

// statusText is the answer as text, if it is one.
func statusText(out *Outcome) string {
	if len(out.Body) == 0 || len(out.Body) > maxFaultText || !utf8.Valid(out.Body) {
		return fmt.Sprintf("the function answered with the status %d", out.Status)
	}
	return string(out.Body)
}

func faultJSON(kind, message string) []byte {
	b, err := json.Marshal(struct {
		Type    string `json:"errorType"`
		Message string `json:"errorMessage"`
	}{kind, message})
	if err != nil { // cannot happen: both are strings
		return []byte(`{"errorType":"Runtime.ExitError"}`)
	}
	return b
}

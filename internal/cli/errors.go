package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/casemate-dev/casemate/api"
	"github.com/casemate-dev/casemate/api/manifest"
	"github.com/casemate-dev/casemate/api/problem"
	"github.com/casemate-dev/casemate/internal/cli/build"
	"github.com/casemate-dev/casemate/internal/cli/contexts"
	"github.com/casemate-dev/casemate/internal/cli/output"
)

// The exit codes. They are part of the interface and never change meaning.
const (
	exitOK          = 0
	exitFailed      = 1
	exitUsage       = 2
	exitNotFound    = 3
	exitForbidden   = 4
	exitConflict    = 5
	exitUnreachable = 6
	exitFunction    = 7
	exitInterrupted = 130
)

const exitCodes = `Exit codes:
  0    done
  1    failed
  2    the command line is not right
  3    not found
  4    the key is missing, not valid, or does not allow this
  5    conflict: somebody else changed it first
  6    the node cannot be reached
  7    the function answered with an error status, or failed (invoke)
  130  interrupted`

// failure is an error with an exit code and the next step.
type failure struct {
	Exit    int    `json:"exit"`
	Message string `json:"message"`
	Hint    string `json:"hint,omitempty"`
	silent  bool   // the result has said it all
}

func (f *failure) Error() string { return f.Message }

func usagef(format string, args ...any) *failure {
	return &failure{Exit: exitUsage, Message: fmt.Sprintf(format, args...)}
}

func failf(format string, args ...any) *failure {
	return &failure{Exit: exitFailed, Message: fmt.Sprintf(format, args...)}
}

func (f *failure) hint(format string, args ...any) *failure {
	f.Hint = fmt.Sprintf(format, args...)
	return f
}

// shown is an error as the user gets to see it.
type shown struct {
	failure
	Code      problem.Code    `json:"code,omitempty"`
	Field     string          `json:"field,omitempty"`
	Status    int             `json:"status,omitempty"`
	RequestID string          `json:"requestId,omitempty"`
	Receipt   string          `json:"receipt,omitempty"`
	Issues    manifest.Issues `json:"issues,omitempty"`
}

// interrupted reports whether err says no more than that ctx has ended.
func interrupted(ctx context.Context, err error) bool {
	return err != nil && ctx.Err() != nil && (errors.Is(err, context.Cause(ctx)) || errors.Is(err, ctx.Err()))
}

// explain turns any error into what the user sees. The context is the command's.
func explain(ctx context.Context, err error) shown {
	var (
		f       *failure
		refused *api.Error
		lost    *api.ConnectError
		private *contexts.PermissionError
		issues  manifest.Issues
		tool    *build.ToolchainError
		input   *build.InputError
	)
	switch {
	case interrupted(ctx, err):
		return shown{failure: failure{Exit: exitInterrupted, Message: "interrupted"}}
	case errors.As(err, &f):
		return shown{failure: *f}
	case errors.As(err, &refused):
		return explainRefusal(refused)
	case errors.As(err, &lost):
		text, _, _ := strings.Cut(lost.Error(), "\n")
		return shown{failure: failure{Exit: exitUnreachable, Message: text, Hint: lost.Hint}}
	case errors.As(err, &private):
		return shown{failure: failure{Exit: exitFailed, Message: private.Error(), Hint: private.Fix}}
	case errors.As(err, &issues):
		noun := "1 issue"
		if len(issues) != 1 {
			noun = fmt.Sprintf("%d issues", len(issues))
		}
		return shown{failure: failure{Exit: exitFailed, Message: "the manifest has " + noun}, Issues: issues}
	case errors.As(err, &tool):
		return shown{failure: failure{Exit: exitFailed, Message: fmt.Sprintf("building for %s: %s is not installed", tool.Runtime, tool.Missing), Hint: tool.Install}}
	case errors.As(err, &input):
		return shown{failure: failure{Exit: exitFailed, Message: fmt.Sprintf("building %s: %s: %s", input.Function, input.Field, input.Message), Hint: input.Remedy}}
	case errors.Is(err, contexts.ErrUnknown):
		return shown{failure: failure{Exit: exitNotFound, Message: err.Error(), Hint: "casemate config contexts"}}
	}
	return shown{failure: failure{Exit: exitFailed, Message: err.Error()}}
}

func explainRefusal(e *api.Error) shown {
	exit := exitFailed
	switch {
	case strings.HasPrefix(string(e.Code), "function_"):
		exit = exitFunction
	case e.Status == 401 || e.Status == 403:
		exit = exitForbidden
	case e.Status == 404:
		exit = exitNotFound
	case e.Status == 409 || e.Status == 412:
		exit = exitConflict
	}
	text := e.Title
	if e.Detail != "" {
		text += ": " + e.Detail
	}
	hint := e.Remedy
	if e.RetryAfter > 0 {
		hint += fmt.Sprintf(" (The node asks to wait %s.)", output.Span(e.RetryAfter))
	}
	return shown{
		failure: failure{Exit: exit, Message: text, Hint: hint},
		Code:    e.Code, Field: e.Field, Status: e.Status, RequestID: e.RequestID, Receipt: e.Receipt,
	}
}

// keyHint says where a key that was refused came from. The node's own remedy for a
// missing key speaks to those who write HTTP requests themselves.
func (a *app) keyHint(s shown) string {
	const fromEnvironment = "the key was that of CASEMATE_KEY; without the variable, the context's is used"
	switch given := a.env.Getenv("CASEMATE_KEY") != ""; {
	case given && s.Code == problem.Unauthenticated:
		return fromEnvironment
	case given:
		return s.Hint + " (" + fromEnvironment + ")"
	case s.Code == problem.Unauthenticated:
		return "the context's key is not valid, or no longer: `casemate up` makes a new one where the node runs, `casemate config add` takes one that you were given"
	}
	return s.Hint
}

// report shows err on standard error and gives the exit code.
func (a *app) report(ctx context.Context, err error) int {
	s := explain(ctx, err)
	if s.silent {
		return s.Exit
	}
	if s.Exit == exitForbidden {
		s.Hint = a.keyHint(s)
	}
	if a.p.JSON() {
		a.p.Problem(map[string]shown{"error": s})
		return s.Exit
	}
	c := a.p.Err()
	var b strings.Builder
	for _, i := range s.Issues {
		b.WriteString(c.Plain(i.String()) + "\n")
	}
	b.WriteString(c.Bad("error: ") + c.Plain(s.Message) + "\n")
	if s.Field != "" {
		b.WriteString(c.Dim("  field:   ") + c.Plain(s.Field) + "\n")
	}
	if s.RequestID != "" {
		b.WriteString(c.Dim("  request: ") + c.Plain(s.RequestID) + "\n")
	}
	if s.Receipt != "" {
		b.WriteString(c.Dim("  receipt: ") + c.Plain(s.Receipt) + "\n")
	}
	if s.Hint != "" {
		b.WriteString(c.Accent("hint:  ") + c.Plain(s.Hint) + "\n")
	}
	a.p.Notef("%s", b.String())
	return s.Exit
}

package build

import (
	"errors"
	"fmt"
	"strings"
)

// errTimedOut is the cause of a build context that ran into the build's own limit.
var errTimedOut = errors.New("the build took too long")

// ToolchainError says that a tool the runtime needs is not on this machine.
type ToolchainError struct {
	Runtime string
	Missing string // what is not there, such as "clang"
	Install string // what to do, in words or as a command
}

// Error names the missing tool and how to get it.
func (e *ToolchainError) Error() string {
	return fmt.Sprintf("building for %s: %s is not installed: %s", e.Runtime, e.Missing, e.Install)
}

// InputError says that the request or the function's folder is not in order.
type InputError struct {
	Function string
	Field    string // of the manifest
	Message  string
	Remedy   string
}

// Error names the function, the field and the remedy.
func (e *InputError) Error() string {
	s := "building"
	if e.Function != "" {
		s += " " + e.Function
	}
	return fmt.Sprintf("%s: %s: %s: %s", s, e.Field, e.Message, e.Remedy)
}

// CompileError says that a tool ran and refused the source, or ran too long. What
// the tool had to say went to Request.Out.
type CompileError struct {
	Function string
	Tool     string // such as "go"
	Args     []string
	ExitCode int  // -1 when the tool was stopped
	Found    int  // errors, of a tool that runs in this process and has no exit code
	TimedOut bool // it was stopped because the build's time was up
	Cause    error
}

// Error names the tool and how it ended; the arguments are for logs.
func (e *CompileError) Error() string {
	s := "building"
	if e.Function != "" {
		s += " " + e.Function
	}
	switch {
	case e.TimedOut:
		return fmt.Sprintf("%s: %s: %v", s, e.Tool, errTimedOut)
	case e.Found == 1:
		return fmt.Sprintf("%s: %s found an error; it is above", s, e.Tool)
	case e.Found > 1:
		return fmt.Sprintf("%s: %s found %d errors; they are above", s, e.Tool, e.Found)
	case e.ExitCode > 0:
		return fmt.Sprintf("%s: %s ended with exit code %d; its messages are above", s, e.Tool, e.ExitCode)
	default:
		return fmt.Sprintf("%s: running %s: %v", s, strings.Join(append([]string{e.Tool}, e.Args...), " "), e.Cause)
	}
}

// Unwrap gives the cause, so that a caller can match the end of its own context.
func (e *CompileError) Unwrap() error { return e.Cause }

func (j *job) input(field, message, remedy string) *InputError {
	return &InputError{Function: j.Name, Field: field, Message: message, Remedy: remedy}
}

func (j *job) missing(what, install string) *ToolchainError {
	return &ToolchainError{Runtime: j.Runtime, Missing: what, Install: install}
}

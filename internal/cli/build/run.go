package build

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"path/filepath"
	"time"
)

// stopGrace is how long a stopped tool has to close its output before the pipes
// are cut from it.
const stopGrace = 2 * time.Second

// tool is one program to run.
type tool struct {
	path   string // absolute
	args   []string
	dir    string
	env    []string
	stdout io.Writer // nil: the build's output
	quiet  bool      // probe only: its messages are dropped
}

// run runs a tool to its end and fails with a *CompileError. The tool gets no
// standard input. When ctx ends, the tool and all it started are killed.
func (j *job) run(ctx context.Context, t tool) error {
	cmd := exec.CommandContext(ctx, t.path, t.args...)
	cmd.Dir, cmd.Env = t.dir, t.env
	cmd.Stdout, cmd.Stderr = j.Out, j.Out
	if t.quiet {
		cmd.Stdout, cmd.Stderr = io.Discard, io.Discard
	}
	if t.stdout != nil {
		cmd.Stdout = t.stdout
	}
	cmd.WaitDelay = stopGrace
	ownGroup(cmd)

	err := cmd.Run()
	if err == nil {
		return nil
	}
	failed := &CompileError{
		Function: j.Name, Tool: filepath.Base(t.path), Args: t.args,
		ExitCode: -1, Cause: fmt.Errorf("running %s: %v", filepath.Base(t.path), err),
	}
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		failed.ExitCode = exit.ExitCode()
	}
	if ctx.Err() != nil {
		failed.ExitCode, failed.Cause = -1, context.Cause(ctx)
		failed.TimedOut = errors.Is(failed.Cause, errTimedOut)
	}
	return failed
}

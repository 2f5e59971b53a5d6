package native

import (
	"context"
	"errors"
	"fmt"
	"path"
	"time"

	"github.com/casemate-dev/casemate/internal/function"
	"github.com/casemate-dev/casemate/internal/sandbox"
	"github.com/casemate-dev/casemate/internal/sandbox/native/web"
)

// server speaks HTTP to code that listens on $PORT.
type server struct{ v *function.Version }

func newServer(v *function.Version, t Tree) (speech, error) {
	if err := checkCommand(v.Config.Command, t); err != nil {
		return nil, err
	}
	return &server{v: v}, nil
}

// Interpreters that a command may name in place of a file.
const (
	interpreterNode   = "node"
	interpreterPython = "python3"
)

func checkCommand(command []string, t Tree) error {
	if len(command) == 0 {
		return badCode("there is no command that starts the server; name one in the manifest")
	}
	switch first := command[0]; {
	case first == interpreterNode, first == interpreterPython:
		return nil
	case !executable(t, path.Clean(first)):
		return badCode("there is no executable file named %s in the code", first)
	}
	return nil
}

// commandLine puts paths as the guest sees them in front of a command.
func commandLine(v *function.Version, command []string, p Place) []string {
	switch command[0] {
	case interpreterNode:
		return append(nodeCommand(v, p), command[1:]...)
	case interpreterPython:
		return append([]string{p.Python}, command[1:]...)
	default:
		return append([]string{path.Join(p.Task, command[0])}, command[1:]...)
	}
}

func (s *server) dir() string { return "" }

func (s *server) terminates() bool { return true }

func (s *server) command(p Place) (args, env []string) {
	return commandLine(s.v, s.v.Config.Command, p), environment(s.v, p, web.Environment(s.v.Name, s.v.ID.Short(), p.Port))
}

func (s *server) open(c Cell, clock func() time.Time) guest {
	return &serverGuest{client: web.New(web.Options{
		Dial: c.Dial, Host: s.v.Name, MaxResponse: s.v.Config.Limits.Output, Clock: clock,
	})}
}

type serverGuest struct{ client *web.Client }

func (g *serverGuest) ready(ctx context.Context) error { return g.client.Await(ctx) }

func (g *serverGuest) close() { g.client.Close() }

func (g *serverGuest) invoke(ctx context.Context, inv *sandbox.Invocation) (sandbox.ResponseHead, []byte, error) {
	head, body, err := g.client.Invoke(ctx, &inv.Head, inv.Body)
	return head, body, webFailure(err)
}

// webFailure makes a *sandbox.Error of how a guest's server failed.
func webFailure(err error) error {
	var e *web.Error
	if !errors.As(err, &e) {
		return err
	}
	switch e.Kind {
	case web.Unreachable:
		return fmt.Errorf("%w: %w", errUntouched, err)
	case web.TooLarge:
		return &sandbox.Error{Kind: sandbox.Output, Cause: e}
	case web.BadAnswer, web.BadRequest:
		return &sandbox.Error{Kind: sandbox.BadAnswer, Public: e.Detail, Cause: e}
	default:
		return &sandbox.Error{Kind: sandbox.Lost, Cause: e}
	}
}

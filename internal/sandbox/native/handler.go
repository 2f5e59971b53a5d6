package native

import (
	"context"
	"errors"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/casemate-dev/casemate/internal/function"
	"github.com/casemate-dev/casemate/internal/sandbox"
	"github.com/casemate-dev/casemate/internal/sandbox/native/azure"
	"github.com/casemate-dev/casemate/internal/sandbox/native/web"
)

// handler speaks to an Azure Functions custom handler.
type handler struct {
	v   *function.Version
	app *azure.App
}

func newHandler(v *function.Version, t Tree) (speech, error) {
	app, err := azure.Load(t.Files())
	if err != nil {
		var wrong *azure.ConfigError
		if errors.As(err, &wrong) {
			return nil, badCode("%s", wrong.Error())
		}
		return nil, err
	}
	h := &handler{v: v, app: app}
	if err := checkCommand(h.words(Place{}), t); err != nil {
		return nil, err
	}
	return h, nil
}

// words is the command as host.json has it.
func (h *handler) words(p Place) []string {
	command := h.app.Command(func(name string) (string, bool) {
		v, ok := h.v.Config.Environment[name]
		return v, ok
	})
	if len(h.v.Config.Command) > 0 {
		command = slices.Clone(h.v.Config.Command)
	}
	switch strings.ToLower(path.Base(command[0])) {
	case "node":
		command[0] = interpreterNode
	case "python", "python3":
		command[0] = interpreterPython
	}
	return command
}

func (h *handler) terminates() bool { return true }

func (h *handler) command(p Place) (args, env []string) {
	return commandLine(h.v, h.words(p), p), environment(h.v, p, azure.Environment(p.Task, h.v.ID.Short(), p.Port))
}

func (h *handler) dir() string { return h.app.WorkingDirectory }

func (h *handler) open(c Cell, clock func() time.Time) guest {
	client := web.New(web.Options{Dial: c.Dial, Host: h.v.Name, MaxResponse: h.v.Config.Limits.Output, Clock: clock})
	return &handlerGuest{v: h.v, client: client, handler: azure.NewHandler(h.app, client, clock), clock: clock}
}

type handlerGuest struct {
	v       *function.Version
	client  *web.Client
	handler *azure.Handler
	clock   func() time.Time
}

func (g *handlerGuest) ready(ctx context.Context) error { return g.client.Await(ctx) }

func (g *handlerGuest) close() { g.client.Close() }

func (g *handlerGuest) invoke(ctx context.Context, inv *sandbox.Invocation) (sandbox.ResponseHead, []byte, error) {
	a, err := g.handler.Invoke(ctx, &inv.Head, inv.Body, g.v.Name)
	if err != nil {
		var e *azure.Error
		switch {
		case !errors.As(err, &e):
			return sandbox.ResponseHead{}, nil, webFailure(err)
		case e.Kind == azure.Failed:
			return sandbox.ResponseHead{}, nil, &sandbox.Error{Kind: sandbox.Fault, Cause: e, Fault: faultJSON("Handler.Failed", e.Detail)}
		default:
			return sandbox.ResponseHead{}, nil, &sandbox.Error{Kind: sandbox.BadAnswer, Public: e.Detail, Cause: e}
		}
	}
	for _, name := range a.Dropped {
		a.Logs = append(a.Logs, "casemate: the output "+name+" is bound to nothing here and was dropped")
	}
	if inv.Log != nil {
		left, now := g.v.Config.Limits.Log, g.clock()
		for _, line := range a.Logs {
			if left -= int64(len(line)) + 1; left < 0 {
				break
			}
			inv.Log(sandbox.LogLine{Time: now, Text: line})
		}
	}
	return a.Response, a.Body, nil
}

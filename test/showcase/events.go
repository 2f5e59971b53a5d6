package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/casemate-dev/casemate/internal/jsengine"
	"github.com/casemate-dev/casemate/test/farside"
)

// atOnce is how many sources are shown at the same time: their servers take seconds to
// start, and most of it is waiting.
const atOnce = 3

// act is one source and what became of its event.
type act struct {
	example farside.Example
	shown   farside.Shown
	end     func()
	skipped string
	err     error
}

// events shows one function for each kind of source, and gives how many went wrong. What
// they need on the far side runs until the function that it returns is called.
func (s *show) events(ctx context.Context, root string) (end func(), wrong int, err error) {
	examples, err := farside.Load(root)
	if err != nil {
		return func() {}, 0, err
	}
	n := &farside.Node{Gateway: s.node.GatewayURL, Client: s.client, Folder: s.inbox, Command: s.command}
	acts := make([]act, len(examples))
	var all sync.WaitGroup
	turns := make(chan struct{}, atOnce)
	for i, e := range examples {
		a := &acts[i]
		a.example = e
		all.Go(func() {
			turns <- struct{}{}
			defer func() { <-turns }()
			if _, none := jsengine.Module(); errors.Is(none, jsengine.ErrMissing) && isScript(e.Function.Config.Runtime) {
				a.end, a.skipped = func() {}, none.Error()
				return
			}
			a.end, a.skipped, a.err = perform(ctx, e.Function.Name, func(t testing.TB) { a.shown = e.Show(t, n, time.Now) })
		})
	}
	all.Wait()
	end = func() {
		for i := range acts {
			acts[i].end()
		}
	}
	if err := ctx.Err(); err != nil {
		return end, 0, errors.New("interrupted before every source was shown")
	}
	return end, s.playbill(acts), s.story(ctx, acts)
}

// playbill prints what each source led to, and counts what went wrong.
func (s *show) playbill(acts []act) (wrong int) {
	const line = "  %-10s %-10s %10s  %-36s  %s"
	s.say(line, "source", "function", "took", "receipt", "what the function said")
	for i := range acts {
		a := &acts[i]
		name, took := a.example.Function.Name, milliseconds(a.shown.Took)
		if a.example.Event.Every != "" {
			took = "-" // nobody brings a tick about
		}
		switch {
		case a.err != nil:
			wrong++
			s.say("  %-10s %-10s WRONG: %s", a.example.Kind, name, strings.Map(printableLine, a.err.Error()))
		case a.skipped != "":
			s.say("  %-10s %-10s left out: %s", a.example.Kind, name, a.skipped)
		default:
			s.say(line, a.example.Kind, name, took, a.shown.Receipt.ID, strings.Map(printable, a.shown.Said))
		}
	}
	return wrong
}

// printableLine is printable, but for the ends of lines.
func printableLine(r rune) rune {
	if r == '\n' {
		return r
	}
	return printable(r)
}

// story tells of one event from its source to its receipt, as the casemate program does.
func (s *show) story(ctx context.Context, acts []act) error {
	i := slices.IndexFunc(acts, func(a act) bool { return a.err == nil && a.skipped == "" && a.example.Kind == "topic" })
	if i < 0 {
		return nil
	}
	id := acts[i].shown.Event
	s.say("\n  casemate events show %s\n", id)
	cmd := s.command(ctx, "events", "show", id)
	out, err := cmd.Output()
	if err != nil {
		return fmt.Errorf("casemate events show: %v", err)
	}
	for line := range strings.Lines(string(out)) {
		s.say("    %s", strings.TrimRight(strings.Map(printableLine, line), "\n"))
	}
	return nil
}

// command prepares a run of the casemate program against the node.
func (s *show) command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, s.program, append(args, "--context", contextName)...)
	cmd.Env = s.environment()
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = endWithin
	return cmd
}

package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/casemate-dev/casemate/api"
	"github.com/casemate-dev/casemate/api/manifest"
	"github.com/casemate-dev/casemate/internal/cli/build"
	"github.com/casemate-dev/casemate/internal/cli/contexts"
	"github.com/casemate-dev/casemate/internal/cli/output"
)

// probe bounds how long dev waits to see whether its node runs already.
const probe = 2 * time.Second

// rejoin is how long dev waits before it follows a log again that broke off.
const rejoin = time.Second

// devDrain is how long work in flight may take when dev ends.
const devDrain = 2 * time.Second

func (a *app) devCommand() *cobra.Command {
	var gateway, control string
	cmd := &cobra.Command{
		Use:   "dev [PATH]",
		Short: "Serve a project here, and follow your changes",
		Long: text(`
			Dev deploys the functions of a manifest to a node for development, watches their
			files, builds and deploys again when one changes, and shows the logs. When a
			build fails it says why, and the version before goes on serving.

			The node is that of the context dev (or --context). If none answers, dev starts
			one that ends with it and keeps its state in .casemate/dev beside the manifest.
			It never asks: what the manifest says is deployed.
		`),
		Example: examples(`
			casemate dev
			casemate dev ./shop --gateway 127.0.0.1:9443
		`),
		Args: cobra.ArbitraryArgs,
		RunE: a.run(arguments{0, 1, "a PATH at most"}, func(ctx context.Context, args []string) error {
			if a.p.JSON() {
				return usagef("dev has no JSON form").hint("casemate logs -f -o json gives the logs")
			}
			return a.dev(ctx, args, gateway, control)
		}),
	}
	cmd.Flags().StringVar(&gateway, "gateway", "", "Where callers connect, host:port (default: the last one, or a free port)")
	cmd.Flags().StringVar(&control, "control", "", "Where operators connect, host:port (likewise)")
	return cmd
}

// devSession is one run of dev.
type devSession struct {
	a      *app
	path   string // of the manifest
	pr     *project
	node   contexts.Context
	client *api.Client
	gone   chan struct{} // closed when a node of our own has ended
	served bool          // something is deployed
}

func (a *app) dev(ctx context.Context, args []string, gateway, control string) error {
	if err := checkAddresses(UpOptions{Gateway: gateway, Control: control}); err != nil {
		return err
	}
	pr, err := a.loadProject(args)
	if err != nil {
		return err
	}
	inner, stop := context.WithCancel(ctx)
	defer stop()
	s := &devSession{a: a, path: pr.Path, pr: pr}
	ended, err := s.findOrStart(inner, gateway, control)
	if err == nil {
		err = s.work(inner)
	}
	stop()
	if ctx.Err() != nil { // we were asked to end
		err = nil
		a.p.Notef("\n") // the terminal has ^C on this line
	}
	if ended != nil {
		if nodeErr := <-ended; err == nil { // wait: the node must not outlive us half-drained
			err = nodeErr
		}
	}
	return err
}

// findOrStart connects to the node of the context, or starts one. The channel, nil
// for a node of somebody else's, yields once, when the node has ended.
func (s *devSession) findOrStart(ctx context.Context, gateway, control string) (<-chan error, error) {
	a := s.a
	name := cmp.Or(a.contextName(), devContext)
	dir := filepath.Join(s.pr.dir, ".casemate", "dev")
	old, err := a.contextNamed(name)
	if err == nil && s.answers(ctx, old) {
		s.node = old
		if s.client, err = a.clientFor(old); err != nil {
			return nil, err
		}
		a.p.Notef("%s %s\n", a.p.Err().Dim("using the node of context"), a.p.Err().Bold(name))
		return nil, nil
	}
	if err != nil && !errors.Is(err, contexts.ErrUnknown) {
		return nil, err
	}
	if a.env.Up == nil {
		return nil, failf("no node answers for the context %s, and this program was built without one", name)
	}
	if err := keepOut(filepath.Join(s.pr.dir, ".casemate")); err != nil {
		return nil, err
	}
	o := UpOptions{DataDir: dir, Objects: "127.0.0.1:0", Drain: devDrain, AdminKey: keyFor(old, dir)}
	o.Gateway = cmp.Or(gateway, lastAddr(ctx, old, dir, old.GatewayURL))
	o.Control = cmp.Or(control, lastAddr(ctx, old, dir, old.ControlURL))
	if old.Name != "" && old.DataDir == "" {
		return nil, (&failure{Exit: exitConflict, Message: fmt.Sprintf("the context %s is a node elsewhere, %s, which does not answer", name, old.ControlURL)}).
			hint("choose another name with --context NAME")
	}
	log, err := os.OpenFile(filepath.Join(s.pr.dir, ".casemate", "dev.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, failf("opening the node's log: %v", err)
	}
	if o.LogHandler, err = a.logHandler(log, "info", "text"); err != nil {
		return nil, err
	}
	ready := make(chan ReadyInfo, 1)
	o.Ready = func(info ReadyInfo) error {
		var err error
		if s.node, err = a.saveContext(name, dir, info); err == nil {
			ready <- info
		}
		return err
	}
	steps := a.p.Steps()
	step := steps.Start("start a node in " + dir)
	ended := make(chan error, 1)
	s.gone = make(chan struct{})
	go func() {
		err := a.serve(ctx, o)
		if err == nil && ctx.Err() == nil {
			err = failf("the node has ended").hint("see %s", log.Name())
		}
		_ = log.Close() // nothing is lost that anybody could still use
		ended <- err
		close(s.gone)
	}()
	select {
	case <-ready:
		step.Done(s.node.GatewayURL)
		steps.Close()
		s.client, err = a.clientFor(s.node)
		return ended, err
	case err := <-ended:
		step.Fail("")
		steps.Close()
		return nil, err
	}
}

func (a *app) contextNamed(name string) (contexts.Context, error) {
	path, err := contexts.Path(a.env.Getenv)
	if err != nil {
		return contexts.Context{}, err
	}
	f, err := contexts.Load(path)
	if err != nil {
		return contexts.Context{}, err
	}
	return f.Get(name)
}

func (s *devSession) answers(ctx context.Context, c contexts.Context) bool {
	client, err := s.a.clientFor(c)
	if err != nil {
		return false
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(ctx, probe)
	defer cancel()
	_, err = client.Status(ctx)
	return err == nil
}

// keepOut keeps a folder of ours out of version control.
func keepOut(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return failf("making %s: %v", dir, err)
	}
	if err := os.WriteFile(filepath.Join(dir, ".gitignore"), []byte("*\n"), 0o600); err != nil {
		return failf("making %s: %v", dir, err)
	}
	return nil
}

// lastAddr gives the address that this project's node had before, if it is free,
// so that addresses in a browser stay good; or any free port of this machine.
func lastAddr(ctx context.Context, old contexts.Context, dir, last string) string {
	const free = "127.0.0.1:0"
	u, err := url.Parse(last)
	if err != nil || old.DataDir != dir || u.Port() == "" {
		return free
	}
	addr := net.JoinHostPort("127.0.0.1", u.Port())
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", addr)
	if err != nil {
		return free
	}
	_ = l.Close() // if this fails, so will the node, and say so
	return addr
}

// work deploys, then follows changes and logs until ctx ends.
func (s *devSession) work(ctx context.Context) error {
	a := s.a
	defer s.client.Close()
	if err := s.deploy(ctx, s.pr.Functions, a.env.Clock(), true); err != nil {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		a.report(ctx, err)
	}
	w, err := s.watch()
	if err != nil {
		return err
	}
	defer func() { _ = w.close() }()
	ctx, stop := context.WithCancel(ctx)
	changes, failed, logsEnded := make(chan change), make(chan error, 1), make(chan struct{})
	go func() { failed <- w.run(ctx, a.env.Clock, changes) }()
	go func() { defer close(logsEnded); s.follow(ctx) }()
	defer func() { stop(); _, _ = <-failed, <-logsEnded }()
	a.p.Notef("%s\n", a.p.Err().Dim("watching for changes; Ctrl-C ends"))
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-s.gone:
			return nil // what its end was, dev will see
		case err := <-failed:
			failed <- nil
			return err
		case c := <-changes:
			if err := s.changed(ctx, c); err != nil && ctx.Err() == nil {
				a.report(ctx, err)
				if s.served {
					a.p.Notef("%s\n", a.p.Err().Dim("the version before goes on serving"))
				}
			}
		}
	}
}

// watch watches the manifest's folder and every source.
func (s *devSession) watch() (*watcher, error) {
	roots, exact := []string{s.pr.dir}, []string(nil)
	for _, f := range s.pr.Functions {
		src := filepath.Join(s.pr.dir, filepath.FromSlash(f.Source))
		if f.Config.Runtime == build.Wasm {
			exact = append(exact, src)
		} else {
			roots = append(roots, src) // it may lie elsewhere, or below a folder that is otherwise ignored
		}
	}
	return newWatcher(roots, exact)
}

// changed builds and deploys what a change concerns.
func (s *devSession) changed(ctx context.Context, c change) error {
	pr := s.pr
	all := false
	for _, p := range c.paths {
		all = all || filepath.Clean(p) == filepath.Clean(s.path)
		for _, f := range pr.Functions {
			for _, name := range f.Schemas {
				all = all || filepath.Clean(p) == filepath.Join(pr.dir, filepath.FromSlash(name))
			}
		}
	}
	if all {
		fresh, err := s.a.loadProject([]string{s.path})
		if err != nil {
			return err
		}
		pr, s.pr = fresh, fresh
	}
	affected := pr.affected(c.paths)
	var fns []manifest.Function
	for _, f := range pr.Functions {
		if all || affected[f.Name] {
			fns = append(fns, f)
		}
	}
	if len(fns) == 0 {
		return nil
	}
	return s.deploy(ctx, fns, c.first, false)
}

// deploy builds functions and makes them live; start is when the change was
// noticed, which is what the time shown counts from.
func (s *devSession) deploy(ctx context.Context, fns []manifest.Function, start time.Time, first bool) error {
	a := s.a
	steps := output.Silent()
	if first {
		steps = a.p.Steps()
	}
	defer steps.Close()
	bs, err := a.buildAll(ctx, s.pr, fns, steps)
	if err != nil {
		steps.Close()
		return a.buildSaid(err)
	}
	ready := a.env.Clock()
	if err := a.upload(ctx, s.client, bs, steps); err != nil {
		return err
	}
	step := steps.Start("compile on the node, and switch over")
	applied, err := s.apply(ctx, bs)
	if err != nil {
		step.Fail("")
		return err
	}
	step.Done("")
	steps.Close()
	end := a.env.Clock()
	c := a.p.Err()
	took := c.Dim(fmt.Sprintf("%s: build %s, node %s", output.Duration(end.Sub(start)), output.Duration(ready.Sub(start)), output.Duration(end.Sub(ready))))
	for _, d := range applied.Functions {
		if !d.Changed && !first {
			a.p.Notef("%s %s is as it was  %s\n", c.Dim("="), c.Bold(d.Name), took)
			continue
		}
		a.p.Notef("%s %s is live  %s  %s  %s\n", c.Good("✓"), c.Bold(d.Name), c.Dim(output.ShortID(d.Version)), c.Accent(strings.Join(d.URLs, " ")), took)
	}
	s.served = true
	return nil
}

// apply plans and applies; when somebody else was faster, once more.
func (s *devSession) apply(ctx context.Context, bs []built) (*api.Applied, error) {
	for again := 0; ; again++ {
		plan, err := s.client.Plan(ctx, s.pr.Namespace, api.PlanRequest{Functions: specs(bs)})
		if err != nil {
			return nil, err
		}
		applied, err := s.client.Apply(ctx, s.pr.Namespace, api.ApplyRequest{Plan: *plan, Functions: specs(bs)})
		if err == nil || again > 0 || explain(ctx, err).Exit != exitConflict {
			return applied, err
		}
	}
}

// follow shows the namespace's log in place, and takes it up again when it
// breaks off.
func (s *devSession) follow(ctx context.Context) {
	q := api.LogQuery{Follow: true, Since: s.a.env.Clock(), Tail: defaultTail}
	for {
		for r, err := range s.client.Logs(ctx, s.pr.Namespace, q) {
			if err != nil {
				break
			}
			q.Since = r.Time.Add(time.Nanosecond)
			if s.a.showRecord(r) != nil {
				return
			}
		}
		pause := time.NewTimer(rejoin)
		select {
		case <-ctx.Done():
			pause.Stop()
			return
		case <-pause.C:
		}
	}
}

package cli_test

import (
	"bytes"
	"context"
	"io"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/casemate-dev/casemate/internal/cli"
	"github.com/casemate-dev/casemate/internal/cli/contexts"
)

// quietEnv is a world without a node, a terminal or a home.
func quietEnv(args ...string) cli.Env {
	return cli.Env{
		Args: args, Stdin: strings.NewReader(""), Stdout: io.Discard, Stderr: io.Discard,
		Getenv: func(string) string { return "" }, Clock: func() time.Time { return noon }, Dir: "/",
		Version: "1.2.3", IsTerminal: func(any) bool { return false }, Width: func() int { return 0 },
	}
}

// onNode is an Env whose current context is the node.
func onNode(t *testing.T, n *fakeNode, args ...string) cli.Env {
	t.Helper()
	config := filepath.Join(t.TempDir(), "config.json")
	err := contexts.Update(config, func(f *contexts.File) error {
		return f.Put(contexts.Context{Name: "test", ControlURL: n.server.URL, GatewayURL: n.gateway(), CA: string(n.ca()), Key: adminKey})
	})
	if err != nil {
		t.Fatal(err)
	}
	env := quietEnv(args...)
	env.Getenv = func(k string) string {
		if k == "CASEMATE_CONFIG" {
			return config
		}
		return ""
	}
	return env
}

func TestAnEnvWithAHoleDies(t *testing.T) {
	t.Parallel()
	for name, hole := range map[string]func(*cli.Env){
		"Clock":  func(e *cli.Env) { e.Clock = nil },
		"Getenv": func(e *cli.Env) { e.Getenv = nil },
		"Stdin":  func(e *cli.Env) { e.Stdin = nil },
	} {
		var errs bytes.Buffer
		env := quietEnv("version")
		env.Stderr = &errs
		hole(&env)
		if code := cli.Main(context.Background(), env); code == 0 || !strings.Contains(errs.String(), name) {
			t.Errorf("without %s: exit code %d, %q", name, code, &errs)
		}
	}
}

func TestInterruptedFollowExits130(t *testing.T) {
	t.Parallel()
	n := newFakeNode(t)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	env := onNode(t, n, "logs", "-f")
	out := newWatched()
	env.Stdout = out
	var errs bytes.Buffer
	env.Stderr = &errs
	n.mu.Lock()
	n.log(logLine("hello", "first"))
	n.mu.Unlock()
	code := make(chan int)
	go func() { code <- cli.Main(ctx, env) }()
	out.await(t, "first")
	n.mu.Lock()
	n.log(logLine("hello", "second"))
	n.mu.Unlock()
	out.await(t, "second") // it follows
	cancel()
	if got := <-code; got != 130 || errs.String() != "" {
		t.Errorf("exit code %d, %q", got, &errs)
	}
}

// A question at a terminal that nobody answers ends with the context.
func TestInterruptedQuestionExits130(t *testing.T) {
	t.Parallel()
	n := newFakeNode(t)
	n.functions["default/hello"] = &fakeFunction{}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	env := onNode(t, n, "delete", "hello")
	stdin, typist := io.Pipe()
	defer func() { _ = typist.Close() }()
	env.Stdin = stdin
	errs := newWatched()
	env.Stderr = errs
	env.IsTerminal = func(any) bool { return true }
	code := make(chan int)
	go func() { code <- cli.Main(ctx, env) }()
	errs.await(t, "[y/N]")
	cancel()
	if got := <-code; got != 130 {
		t.Errorf("exit code %d", got)
	}
	if n.functions["default/hello"] == nil {
		t.Error("it was deleted all the same")
	}
}

func TestUpEndsInAnOrderlyWay(t *testing.T) {
	t.Parallel()
	n := newFakeNode(t)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	env := onNode(t, n, "up", "--data-dir", t.TempDir(), "--context", "fresh")
	out := newWatched()
	env.Stdout = out
	drained := false
	env.Up = func(ctx context.Context, o cli.UpOptions) error {
		if err := o.Ready(cli.ReadyInfo{ControlURL: n.server.URL, GatewayURL: n.gateway(), CA: n.ca(), AdminKey: adminKey, FirstBoot: true}); err != nil {
			return err
		}
		<-ctx.Done()
		drained = true
		return context.Cause(ctx)
	}
	code := make(chan int)
	go func() { code <- cli.Main(ctx, env) }()
	out.await(t, "is up")
	cancel()
	if got := <-code; got != 0 || !drained {
		t.Errorf("exit code %d, drained %v", got, drained)
	}
	if strings.Contains(out.String(), adminKey) {
		t.Error("the key was printed")
	}
}

// A node that cannot keep its key for us is stopped, and the error says why.
func TestUpFailsWhenTheKeyCannotBeKept(t *testing.T) {
	t.Parallel()
	n := newFakeNode(t)
	env := onNode(t, n, "up", "--data-dir", t.TempDir(), "--context", "fresh")
	var errs bytes.Buffer
	env.Stderr = &errs
	env.Up = func(_ context.Context, o cli.UpOptions) error {
		if err := o.Ready(cli.ReadyInfo{ControlURL: n.server.URL, CA: n.ca(), AdminKey: adminKey}); err != nil {
			return err
		}
		t.Error("Ready took a key that it could not keep")
		return nil
	}
	path := env.Getenv("CASEMATE_CONFIG")
	up := env.Up
	env.Up = func(ctx context.Context, o cli.UpOptions) error { breakFile(t, path); return up(ctx, o) }
	if code := cli.Main(context.Background(), env); code != 1 || !strings.Contains(errs.String(), "keeping the key") || strings.Contains(errs.String(), adminKey) {
		t.Errorf("exit code %d, %q", code, &errs)
	}
}

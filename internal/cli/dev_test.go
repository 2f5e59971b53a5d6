package cli_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/casemate-dev/casemate/internal/cli"
	"github.com/casemate-dev/casemate/internal/cli/contexts"
)

// devStage is a project that dev serves.
type devStage struct {
	t    *testing.T
	dir  string
	node *fakeNode
	out  *watched
	errs *watched
	env  cli.Env
	up   chan cli.UpOptions
	stop context.CancelFunc
	code chan int
}

const devManifest = `
functions:
  hello: {runtime: go, source: hello, http: [{method: GET, path: /hello, public: true}]}
  other: {runtime: go, source: other}
`

func newDevStage(t *testing.T) *devStage {
	t.Helper()
	s := &devStage{t: t, dir: t.TempDir(), node: newFakeNode(t), out: newWatched(), errs: newWatched(), up: make(chan cli.UpOptions, 1), code: make(chan int, 1)}
	s.write("casemate.yaml", devManifest)
	s.write("hello/code", "one")
	s.write("other/code", "other one")
	s.env = quietEnv("dev")
	config := filepath.Join(t.TempDir(), "config.json")
	s.env.Getenv = func(k string) string {
		if k == "CASEMATE_CONFIG" {
			return config
		}
		return ""
	}
	s.env.Dir, s.env.Stdout, s.env.Stderr, s.env.Clock, s.env.Build = s.dir, s.out, s.errs, time.Now, fakeBuild
	s.env.Up = func(ctx context.Context, o cli.UpOptions) error {
		s.up <- o
		if err := o.Ready(cli.ReadyInfo{ControlURL: s.node.server.URL, GatewayURL: s.node.gateway(), CA: s.node.ca(), AdminKey: adminKey}); err != nil {
			return err
		}
		<-ctx.Done()
		return nil
	}
	return s
}

func (s *devStage) write(name, text string) {
	s.t.Helper()
	path := filepath.Join(s.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		s.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		s.t.Fatal(err)
	}
}

func (s *devStage) start() {
	ctx, cancel := context.WithCancel(context.Background())
	s.stop = cancel
	s.t.Cleanup(cancel)
	go func() { s.code <- cli.Main(ctx, s.env) }()
}

func (s *devStage) end() {
	s.t.Helper()
	s.stop()
	if code := <-s.code; code != 0 {
		s.t.Errorf("exit code %d:\n%s", code, s.errs)
	}
	if all := s.out.String() + s.errs.String(); strings.Contains(all, adminKey) {
		s.t.Error("the key was printed")
	}
}

func (s *devStage) live(name string) string {
	s.node.mu.Lock()
	defer s.node.mu.Unlock()
	f := s.node.functions["default/"+name]
	if f == nil || f.Live == nil {
		return ""
	}
	return string(s.node.artifacts[f.Live.Artifact])
}

func TestDevServesAndFollowsChanges(t *testing.T) {
	t.Parallel()
	s := newDevStage(t)
	s.start()
	o := <-s.up
	if o.DataDir != filepath.Join(s.dir, ".casemate", "dev") || o.Gateway != "127.0.0.1:0" || o.Control != "127.0.0.1:0" {
		t.Errorf("the node was started with %+v", o)
	}
	s.errs.await(t, "watching for changes")
	s.errs.await(t, "✓ hello is live")
	s.errs.await(t, "https://127.0.0.1:8443/hello")
	s.errs.await(t, "✓ other is live")
	if got := s.live("hello"); got != "one" {
		t.Fatalf("live: %q", got)
	}

	// A change is built and live; only the function that it concerns.
	s.write("hello/code", "two")
	s.errs.awaitCount(t, "✓ hello is live", 2)
	if got := s.live("hello"); got != "two" {
		t.Fatalf("live: %q", got)
	}

	// A build that fails is shown, and the version before goes on serving.
	s.write("hello/code", "BROKEN")
	s.errs.await(t, "undefined: thing")
	s.errs.await(t, "error: building hello")
	s.errs.await(t, "goes on serving")
	if got := s.live("hello"); got != "two" {
		t.Fatalf("live: %q", got)
	}
	s.write("hello/code", "three")
	s.errs.awaitCount(t, "✓ hello is live", 3)

	// A folder that is new is watched too, and a file of no function concerns all.
	s.write("shared/deep/lib.go", "package deep")
	s.errs.await(t, "= other is as it was")
	before := strings.Count(s.errs.String(), "= hello is as it was")
	s.write("shared/deep/lib.go", "package deep // more")
	s.errs.awaitCount(t, "= hello is as it was", before+1)

	// The manifest counts as well: a broken one is reported, a new function deployed.
	s.write("casemate.yaml", devManifest+"  third: {runtime: go, source: third, memry: 1}\n")
	s.errs.await(t, "error: the manifest has 1 issue")
	s.write("third/code", "third")
	s.write("casemate.yaml", devManifest+"  third: {runtime: go, source: third}\n")
	s.errs.await(t, "✓ third is live")

	// Logs appear in place.
	s.node.mu.Lock()
	s.node.log(logLine("hello", "a line of log"))
	s.node.mu.Unlock()
	s.out.await(t, "a line of log")
	s.end()

	ignore, err := os.ReadFile(filepath.Join(s.dir, ".casemate", ".gitignore"))
	if err != nil || string(ignore) != "*\n" {
		t.Errorf("the state is not kept out of version control: %q %v", ignore, err)
	}
	f, err := contexts.Load(s.env.Getenv("CASEMATE_CONFIG"))
	if err != nil {
		t.Fatal(err)
	}
	if c, err := f.Get("dev"); err != nil || c.Key != adminKey {
		t.Errorf("context: %v %v", c, err)
	}
}

func TestDevIgnoresWhatIsNotSource(t *testing.T) {
	t.Parallel()
	s := newDevStage(t)
	s.write("target/seed", "")
	s.start()
	s.errs.await(t, "watching for changes")
	for _, name := range []string{".git/index", "target/debug/x.rs", "node_modules/a/b.js", ".casemate/dev/state", "hello/.code.swp", "hello/code~", "hello/out.wasm", "hello/4913", "hello/#code#"} {
		s.write(name, "x")
	}
	// What follows comes after them: had they counted, both would have been built.
	s.write("hello/code", "two")
	s.errs.awaitCount(t, "✓ hello is live", 2)
	if strings.Contains(s.errs.String(), "as it was") || strings.Count(s.errs.String(), "other is live") != 1 {
		t.Errorf("something else was built:\n%s", s.errs)
	}
	s.end()
}

func TestDevUsesANodeThatRuns(t *testing.T) {
	t.Parallel()
	s := newDevStage(t)
	err := contexts.Update(s.env.Getenv("CASEMATE_CONFIG"), func(f *contexts.File) error {
		return f.Put(contexts.Context{Name: "dev", ControlURL: s.node.server.URL, CA: string(s.node.ca()), Key: adminKey})
	})
	if err != nil {
		t.Fatal(err)
	}
	s.start()
	s.errs.await(t, "using the node of context dev")
	s.errs.await(t, "watching for changes")
	if len(s.up) > 0 {
		t.Error("a second node was started")
	}
	s.end()
}

func TestDevEndsWhenItsNodeFails(t *testing.T) {
	t.Parallel()
	s := newDevStage(t)
	s.env.Up = func(context.Context, cli.UpOptions) error { return os.ErrPermission }
	s.start()
	if code := <-s.code; code != 1 || !strings.Contains(s.errs.String(), "permission denied") {
		t.Errorf("exit code %d:\n%s", code, s.errs)
	}
}

// From the write to the moment a new version is live, without the compiler: what
// dev itself adds must leave nearly all of a second to it.
func TestDevIsQuick(t *testing.T) {
	t.Parallel()
	s := newDevStage(t)
	s.start()
	s.errs.await(t, "watching for changes")
	// The quickest counts: a busy machine adds to some, what dev waits for to each.
	const most = 500 * time.Millisecond
	quickest := time.Hour
	for i := 0; i < 5 || i < 40 && quickest > most; i++ {
		start := time.Now()
		s.write("hello/code", strings.Repeat("x", i+1))
		s.errs.awaitCount(t, "✓ hello is live", i+2)
		quickest = min(quickest, time.Since(start))
	}
	s.end()
	t.Logf("from save to live without a compiler: %v", quickest)
	if quickest > most {
		t.Errorf("dev adds %v to a build", quickest)
	}
}

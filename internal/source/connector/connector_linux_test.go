package connector_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/casemate-dev/casemate/internal/event"
	"github.com/casemate-dev/casemate/internal/function"
	"github.com/casemate-dev/casemate/internal/sandbox/box/filter"
	"github.com/casemate-dev/casemate/internal/sandbox/box/landlock"
	"github.com/casemate-dev/casemate/internal/source"
	"github.com/casemate-dev/casemate/internal/source/connector"
	"github.com/casemate-dev/casemate/internal/source/servertest"
)

const secret = "correct horse battery"

// built are the programs, by the folder of their source; each is built once.
var built sync.Map

// build builds a program without cgo, as it is shipped.
func build(t testing.TB, source string) string {
	t.Helper()
	once, _ := built.LoadOrStore(source, sync.OnceValues(func() (string, error) {
		dir, err := os.MkdirTemp("", "casemate-connector")
		if err != nil {
			return "", err
		}
		out := filepath.Join(dir, "program")
		cmd := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-o", out, ".")
		cmd.Dir = source
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off")
		if b, err := cmd.CombinedOutput(); err != nil {
			return "", fmt.Errorf("building %s: %v\n%s", source, err, b)
		}
		return out, nil
	}))
	path, err := once.(func() (string, error))()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

func TestMain(m *testing.M) {
	if folder := os.Getenv("CASEMATE_TEST_NODE"); folder != "" {
		os.Exit(beNode(folder))
	}
	code := m.Run()
	built.Range(func(_, v any) bool {
		if path, err := v.(func() (string, error))(); err == nil {
			os.RemoveAll(filepath.Dir(path))
		}
		return true
	})
	os.Exit(code)
}

// confine is what node hands in.
func confine(read, execute []string, program *os.File) error {
	r := landlock.Rules{AnyTCP: true, Paths: []landlock.Rule{{File: int(program.Fd()), Access: landlock.Read | landlock.Execute}}}
	for _, p := range read {
		r.Paths = append(r.Paths, landlock.Rule{Path: p, Access: landlock.Read, Optional: true})
	}
	for _, p := range execute {
		r.Paths = append(r.Paths, landlock.Rule{Path: p, Access: landlock.Read | landlock.Execute, Optional: true})
	}
	return landlock.Restrict(r)
}

// install puts a program into a folder. It is linked, since a file that this process wrote
// could be open for writing in a child that another test just starts.
func install(t testing.TB, program, folder, name string) {
	t.Helper()
	if err := os.Link(program, filepath.Join(folder, connector.Prefix+name)); err != nil {
		t.Fatal(err)
	}
}

// withMode replaces a program by a file of its own with a mode.
func withMode(path string, mode os.FileMode) error {
	return errors.Join(os.Remove(path), os.WriteFile(path, []byte("program"), 0o600), os.Chmod(path, mode))
}

// kind installs a program under a kind's name.
func kind(t testing.TB, program, name string, change func(*connector.Config)) *connector.Kind {
	t.Helper()
	folder := t.TempDir()
	install(t, program, folder, name)
	cfg := connector.Config{Folders: []string{"/nonexistent", folder}, Confine: confine, Pause: 10 * time.Millisecond}
	if _, err := landlock.ABI(); err != nil {
		cfg.Confine, cfg.Unconfined = nil, true
	}
	if runtime.GOARCH == "amd64" || runtime.GOARCH == "arm64" {
		cfg.Filter = filters(t)
	}
	if change != nil {
		change(&cfg)
	}
	h, err := connector.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	k, err := h.Kind(name)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// logged is a log in memory.
type logged struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logged) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func newLog(l *logged) *slog.Logger { return slog.New(slog.NewTextHandler(l, nil)) }

func bind(t testing.TB, name string, settings any) (*servertest.Far, *logged) {
	t.Helper()
	f := servertest.Bind(t, name, settings, map[string]any{}, map[string]string{"password": secret})
	l := &logged{}
	f.Binding.Log = newLog(l)
	t.Cleanup(func() {
		if s := l.String(); t.Failed() {
			t.Log(s[:min(len(s), 4000)])
		}
	})
	return f, l
}

// start runs the kind without a check before.
func start(t testing.TB, k *connector.Kind, f *servertest.Far) (stop func() error) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- k.Run(ctx, f.Binding) }()
	stop = sync.OnceValue(func() error { cancel(); return <-ended })
	t.Cleanup(func() { _ = stop() })
	return stop
}

func TestConnectorsThatMisbehaveAreEndedAndStartedAgain(t *testing.T) {
	t.Parallel()
	program := build(t, "testdata/fake")
	for name, want := range map[string]string{
		"silent":  "did not say that it is ready",
		"early":   "ended before it said that it is ready",
		"future":  "speaks versions 9, 12 of the protocol, this node 1",
		"other":   "does not serve the kind other",
		"garbage": "a line is not a message",
		"word":    `message "dance" is not expected`,
		"state":   `"splendid" is not a state`,
		"endless": "a line is longer than",
		"chatter": "it says too much",
		"same":    "the ids of its messages do not rise",
		"deaf":    "it did not answer within",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			k := kind(t, program, name, func(c *connector.Config) {
				switch name {
				case "silent":
					c.Answer = 500 * time.Millisecond
				case "deaf":
					c.Answer = 3 * time.Second // it says first that it is ready
				}
			})
			f, l := bind(t, name, nil)
			stop := start(t, k, f)
			seen := 0
			for range 2 { // the second time shows that it was started again
				var h source.Health
				h, seen = f.Health.Wait(t, seen, source.Failing)
				for name == "deaf" && strings.Contains(h.Reason, "did not say that it is ready") { // on a slow machine
					h, seen = f.Health.Wait(t, seen, source.Failing)
				}
				if !strings.Contains(h.Reason, want) {
					t.Errorf("reason %q, want %q", h.Reason, want)
				}
			}
			if err := stop(); err != nil {
				t.Error(err)
			}
			if name == "early" && !strings.Contains(l.String(), "no licence") {
				t.Errorf("what it said is not in the log: %s", l)
			}
		})
	}
}

func TestFloodIsBoundedByCredits(t *testing.T) {
	t.Parallel()
	k := kind(t, build(t, "testdata/fake"), "flood", nil)
	f, _ := bind(t, "flood", nil)
	// A function that does not keep up: nothing is taken before the flood has been noticed.
	f.Sink.SetBefore(func(ctx context.Context, _ []event.Message) error { <-ctx.Done(); return ctx.Err() })
	start(t, k, f)
	if h, _ := f.Health.Wait(t, 0, source.Failing); !strings.Contains(h.Reason, "without waiting for answers") {
		t.Error(h.Reason)
	}
	if n := len(f.Sink.Events()); n != 0 {
		t.Errorf("%d events", n)
	}
}

func TestPositionOutlivesTheProcess(t *testing.T) {
	t.Parallel()
	k := kind(t, build(t, "testdata/fake"), "mortal", nil)
	f, _ := bind(t, "mortal", nil)
	stop := start(t, k, f)
	got := f.Sink.Different(t, 5)
	want := []string{"after ", "sync ", "after x", "sync x", "after xx"}
	for i := range want {
		if got[i] != want[i] {
			t.Fatalf("got %q, want %q", got, want)
		}
	}
	if h, _ := f.Health.Wait(t, 0, source.Failing); !strings.Contains(h.Reason, "exit status 3") {
		t.Error(h.Reason)
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
}

func TestEventsThatBreakRulesAreRefused(t *testing.T) {
	t.Parallel()
	k := kind(t, build(t, "testdata/fake"), "bad", nil)
	f, _ := bind(t, "bad", nil)
	start(t, k, f)
	if got := f.Sink.Different(t, 1); len(got) != 1 || got[0] != "refused 1" {
		t.Errorf("got %q", got)
	}
}

func TestSecretsAreNotLogged(t *testing.T) {
	t.Parallel()
	k := kind(t, build(t, "testdata/fake"), "leak", nil)
	f, l := bind(t, "leak", nil)
	stop := start(t, k, f)
	h, _ := f.Health.Wait(t, 0, source.Alert)
	if h.Reason != "cannot use [secret]" {
		t.Error(h.Reason)
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
	if s := l.String(); strings.Contains(s, secret) || strings.Count(s, "[secret]") != 2 {
		t.Error(s)
	}
}

func TestLogIsBounded(t *testing.T) {
	t.Parallel()
	k := kind(t, build(t, "testdata/fake"), "log", nil)
	f, l := bind(t, "log", nil)
	f.Binding.Clock = func() time.Time { return time.Unix(1, 0) }
	stop := start(t, k, f)
	f.Sink.Different(t, 1)
	if err := stop(); err != nil {
		t.Error(err)
	}
	s := l.String()
	if n := strings.Count(s, "connector says\""); n != 200 || !strings.Contains(s, "lines=4800") || len(s) > 200*5000 {
		t.Errorf("%d lines, %d bytes: …%s", n, len(s), s[max(0, len(s)-200):])
	}
}

func TestStop(t *testing.T) {
	t.Parallel()
	program := build(t, "testdata/fake")
	t.Run("one that does not is killed", func(t *testing.T) {
		t.Parallel()
		k := kind(t, program, "stubborn", func(c *connector.Config) { c.Grace = 50 * time.Millisecond })
		f, _ := bind(t, "stubborn", nil)
		stop := start(t, k, f)
		f.Sink.Different(t, 1)
		if err := stop(); err != nil {
			t.Error(err)
		}
	})
	t.Run("events under way are taken", func(t *testing.T) {
		t.Parallel()
		k := kind(t, program, "late", nil)
		f, _ := bind(t, "late", nil)
		begun, release := make(chan struct{}), make(chan struct{})
		var once sync.Once
		f.Sink.SetBefore(func(context.Context, []event.Message) error {
			once.Do(func() { close(begun) })
			<-release
			return nil
		})
		stop := start(t, k, f)
		<-begun
		ended := make(chan error, 1)
		go func() { ended <- stop() }()
		close(release)
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if got := f.Sink.Data(); len(got) == 0 || got[0] != "late" {
			t.Errorf("got %q", got)
		}
	})
}

func TestNothingIsLeftOfAConnectorThatStartedOthers(t *testing.T) {
	t.Parallel()
	k := kind(t, build(t, "testdata/fake"), "parent", func(c *connector.Config) { c.Filter = connector.Filter{} })
	f, _ := bind(t, "parent", nil)
	stop := start(t, k, f)
	f.Sink.Different(t, 1)
	// The child holds the pipes; if it lived on the end would not be noticed.
	if h, _ := f.Health.Wait(t, 0, source.Failing); !strings.Contains(h.Reason, "ended") {
		t.Error(h.Reason)
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
}

// beNode runs a connector until the process is killed, and says when it runs.
func beNode(folder string) int {
	h, err := connector.New(connector.Config{Folders: []string{folder}, Unconfined: true})
	if err != nil {
		return 1
	}
	k, err := h.Kind("orphan")
	if err != nil {
		return 1
	}
	sink := &servertest.Sink{Before: func(context.Context, []event.Message) error {
		fmt.Println("up") //nolint:forbidigo // this is another process, and its output is what the test reads
		return nil
	}}
	err = k.Run(context.Background(), source.Binding{
		Connection: &source.Connection{Secret: func(string) ([]byte, error) { return nil, errors.New("none") }},
		Sink:       sink, Store: &servertest.Store{}, Log: slog.New(slog.DiscardHandler), Clock: time.Now, Report: func(source.Health) {},
	})
	if err != nil {
		return 1
	}
	return 0
}

// TestConnectorDiesWithTheNode has one that reads nothing, so that it would not notice.
func TestConnectorDiesWithTheNode(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	install(t, build(t, "testdata/fake"), folder, "orphan")
	node := exec.Command(os.Args[0])
	node.Env = append(os.Environ(), "CASEMATE_TEST_NODE="+folder)
	out, err := node.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := node.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = node.Process.Kill(); _ = node.Wait() })
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || line != "up\n" {
		t.Fatalf("%q %v", line, err)
	}
	if n := len(running(t, "orphan")); n != 1 {
		t.Fatalf("%d connectors run", n)
	}
	if err := node.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	err = servertest.Eventually(t.Context(), func(context.Context) error {
		if left := running(t, "orphan"); len(left) > 0 {
			return fmt.Errorf("%q runs", left)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

// running gives the processes of a kind.
func running(t testing.TB, name string) []string {
	t.Helper()
	paths, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for _, p := range paths {
		if b, err := os.ReadFile(p); err == nil && strings.TrimRight(string(b), "\x00") == connector.Prefix+name {
			found = append(found, p)
		}
	}
	return found
}

func TestSinkThatFailsIsTriedAgain(t *testing.T) {
	t.Parallel()
	k := kind(t, build(t, "testdata/fake"), "mortal", nil)
	f, _ := bind(t, "mortal", nil)
	failed := 0
	f.Sink.SetBefore(func(context.Context, []event.Message) error {
		if failed++; failed < 3 {
			return errors.New("disk full")
		}
		return nil
	})
	start(t, k, f)
	if h, _ := f.Health.Wait(t, 0, source.Failing); !strings.Contains(h.Reason, "keeping events: disk full") {
		t.Error(h.Reason)
	}
	f.Sink.Different(t, 1)

	f, _ = bind(t, "mortal", nil)
	f.Sink.SetBefore(func(context.Context, []event.Message) error { return fmt.Errorf("trigger gone: %w", source.ErrRefused) })
	if err := k.Run(t.Context(), f.Binding); !errors.Is(err, source.ErrRefused) {
		t.Errorf("got %v", err)
	}
}

func TestConnectorHasNothingButItsOwn(t *testing.T) {
	t.Parallel()
	private := filepath.Join(t.TempDir(), "root.key")
	// Readable by everybody: only the confinement keeps it.
	if err := os.WriteFile(private, []byte("key"), 0o644); err != nil {
		t.Fatal(err)
	}
	for dir := filepath.Dir(private); dir != os.TempDir() && dir != "/"; dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	k := kind(t, build(t, "testdata/fake"), "spy", func(c *connector.Config) { c.Filter = connector.Filter{} })
	f, _ := bind(t, "spy", map[string]string{"path": private})
	start(t, k, f)
	var seen struct {
		UID, GID, Groups, Secrets, Descriptors, PPID                            int
		Env, Args                                                               []string
		SecretFile, Hosts, Passwd, Write, NoNewPrivileges, Exec, Network, IsSet bool
		Core, Files, Data, Fsize                                                uint64
	}
	text := strings.ReplaceAll(f.Sink.Different(t, 1)[0], "'", `"`)
	if err := json.Unmarshal([]byte(text), &seen); err != nil {
		t.Fatal(err)
	}
	if len(seen.Env) != 0 || len(seen.Args) != 1 || seen.Secrets != 1 || seen.Descriptors != 0 || !seen.NoNewPrivileges || !seen.Network {
		t.Error(text)
	}
	if seen.Core != 0 || seen.Fsize != 0 || seen.Files != 256 || seen.Data != 1<<30 {
		t.Error(text)
	}
	if os.Getuid() == 0 && (seen.UID < 1_601_000_000 || seen.GID != seen.UID || seen.Groups != 0 || seen.PPID != 0) {
		t.Errorf("it runs as somebody: %s", text)
	}
	if _, err := landlock.ABI(); err != nil {
		t.Skip("this kernel has no Landlock:", err)
	}
	if seen.SecretFile || seen.Passwd || seen.Write || seen.Exec || !seen.Hosts {
		t.Errorf("it is not confined: %s", text)
	}
}

// filters are what node hands in.
func filters(t testing.TB) connector.Filter {
	t.Helper()
	sealed, err := filter.Connector()
	if err != nil {
		t.Skip("this architecture has no filters:", err)
	}
	start, err := filter.ConnectorStart()
	if err != nil {
		t.Fatal(err)
	}
	return connector.Filter{Sealed: sealed, Start: start}
}

// TestAttackAConnectorThatWantsMoreThanItsServer has one that goes for the node: for its
// files, its sockets and itself. Its program was installed, and is not trusted.
func TestAttackAConnectorThatWantsMoreThanItsServer(t *testing.T) {
	t.Parallel()
	if _, err := landlock.ABI(); err != nil {
		t.Skip("this kernel has no Landlock:", err)
	}
	dir := t.TempDir()
	for d := dir; d != os.TempDir() && d != "/"; d = filepath.Dir(d) {
		if err := os.Chmod(d, 0o777); err != nil { // only what is around the connector keeps it
			t.Fatal(err)
		}
	}
	private, socket := filepath.Join(dir, "root.key"), filepath.Join(dir, "socket")
	if err := os.WriteFile(private, []byte("key"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(private, 0o666); err != nil {
		t.Fatal(err)
	}
	for network, at := range map[string]string{"unix": socket, "unix abstract": "@" + socket} {
		l, err := net.Listen("unix", at)
		if err != nil {
			t.Fatal(network, err)
		}
		defer l.Close()
	}
	if err := os.Chmod(socket, 0o777); err != nil {
		t.Fatal(err)
	}
	server, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	k := kind(t, build(t, "testdata/fake"), "rogue", nil)
	f, _ := bind(t, "rogue", map[string]any{"path": private, "socket": socket, "server": server.Addr().String(), "node": os.Getpid()})
	start(t, k, f)
	if got := f.Sink.Different(t, 1)[0]; got != "mode 2; " {
		t.Errorf("it could: %s", got)
	}
	if b, err := os.ReadFile(private); string(b) != "key" || err != nil {
		t.Errorf("the node's file holds %q, %v", b, err)
	}
}

// TestAConnectorThatCannotBeTracedIsFilteredAllTheSame has the kernel refuse the first of
// the two programs, as a container refuses tracing.
func TestAConnectorThatCannotBeTracedIsFilteredAllTheSame(t *testing.T) {
	t.Parallel()
	k := kind(t, build(t, "testdata/fake"), "spy", func(c *connector.Config) {
		c.Filter = connector.Filter{Sealed: make([]byte, 8), Start: filters(t).Start}
	})
	f, _ := bind(t, "spy", map[string]string{"path": "/etc/hostname"})
	start(t, k, f)
	got := f.Sink.Different(t, 1)[0]
	if !strings.Contains(got, "'network':false") || !strings.Contains(got, "'hosts':true") || !strings.Contains(got, "'noNewPrivileges':true") {
		t.Error(got)
	}
}

func TestCheckAsksTheProgram(t *testing.T) {
	t.Parallel()
	program := build(t, "testdata/fake")
	far := &function.Trigger{Connection: "far"}
	for _, tc := range []struct {
		name    string
		trigger *function.Trigger
		field   string
		reason  string
	}{
		{"kind", far, "", ""},
		{"kind", &function.Trigger{}, "connection", "is missing"},
		{"picky", far, "stream", "must be  a name"},
		{"future", far, "kind", "speaks versions 9, 12"},
		{"early-check", far, "kind", "the connector ended"},
		{"mute", far, "kind", "did not answer in time"},
	} {
		t.Run(tc.name+tc.field, func(t *testing.T) {
			t.Parallel()
			k := kind(t, program, tc.name, func(c *connector.Config) {
				if tc.name == "mute" {
					c.Answer = 300 * time.Millisecond
				}
			})
			err := k.Check(tc.trigger)
			var fe *source.FieldError
			switch {
			case tc.field == "" && err == nil:
			case !errors.As(err, &fe) || fe.Field != tc.field || !strings.Contains(fe.Reason, tc.reason):
				t.Errorf("got %v", err)
			}
		})
	}
	k := kind(t, program, "kind", nil)
	if err := k.CheckConnection(nil, []string{"password"}); err != nil {
		t.Error(err)
	}
	var fe *source.FieldError
	if err := k.CheckConnection(nil, []string{"token"}); !errors.As(err, &fe) || fe.Field != "secrets" {
		t.Errorf("got %v", err)
	}
}

func TestOnlyTrustedProgramsAreStarted(t *testing.T) {
	t.Parallel()
	program := build(t, "testdata/fake")
	for name, tc := range map[string]struct {
		change func(folder, path string) error
		want   string
	}{
		"writable program": {func(_, path string) error { return withMode(path, 0o757) }, "may be written to by others"},
		"writable folder":  {func(folder, _ string) error { return os.Chmod(folder, 0o777) }, "may be written to by others"},
		"no program":       {func(_, path string) error { return withMode(path, 0o644) }, "is not a program"},
		"directory": {func(_, path string) error {
			return errors.Join(os.Remove(path), os.Mkdir(path, 0o755))
		}, "is not a program"},
		"missing": {func(_, path string) error { return os.Remove(path) }, "is not installed"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			k := kind(t, program, "kind", func(c *connector.Config) {
				folder := c.Folders[1]
				if err := tc.change(folder, filepath.Join(folder, connector.Prefix+"kind")); err != nil {
					t.Fatal(err)
				}
			})
			if err := k.Check(&function.Trigger{}); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, want %q", err, tc.want)
			}
		})
	}
}

func TestMostConnectors(t *testing.T) {
	t.Parallel()
	k := kind(t, build(t, "testdata/fake"), "stubborn", func(c *connector.Config) { c.Most, c.Grace = 1, time.Millisecond })
	f, _ := bind(t, "stubborn", nil)
	stop := start(t, k, f)
	f.Sink.Different(t, 1)
	if err := k.Check(&function.Trigger{}); err == nil || !strings.Contains(err.Error(), "1 connectors run already") {
		t.Errorf("got %v", err)
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
	// Its place is free when its thread has ended, which nobody is told.
	err := servertest.Eventually(t.Context(), func(context.Context) error {
		return k.Check(&function.Trigger{Connection: "far"})
	})
	if err != nil {
		t.Error(err)
	}
}

func TestConfig(t *testing.T) {
	t.Parallel()
	for _, c := range []connector.Config{{}, {Unconfined: true, Most: 65}, {Unconfined: true, Folders: []string{"here"}}} {
		if _, err := connector.New(c); err == nil {
			t.Errorf("%+v is accepted", c)
		}
	}
	h, err := connector.New(connector.Config{Unconfined: true, Folders: []string{filepath.Dir(build(t, "testdata/fake")), t.TempDir()}})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"", "../redis", "Redis", "a/b", "-a"} {
		if _, err := h.Kind(name); err == nil {
			t.Errorf("%q is accepted", name)
		}
	}
	if got := h.Installed(); len(got) != 0 {
		t.Errorf("installed: %q", got)
	}
}

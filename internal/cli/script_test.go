package cli_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"go.uber.org/goleak"

	"github.com/casemate-dev/casemate/api/manifest"
	"github.com/casemate-dev/casemate/api/problem"
	"github.com/casemate-dev/casemate/internal/cli"
	"github.com/casemate-dev/casemate/internal/cli/build"
	"github.com/casemate-dev/casemate/internal/cli/contexts"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// stage is what one script plays on.
type stage struct {
	t        testing.TB
	node     *fakeNode
	stdin    string
	terminal bool
	root     bool
	system   string
	programs *fakePrograms
}

type stageKey struct{}

func on(ts *testscript.TestScript) *stage { return ts.Value(stageKey{}).(*stage) }

// TestScripts runs testdata/script/*.txtar. Besides testscript's own commands:
//
//	casemate ARGS       run the command; it must exit 0 (with !, anything else)
//	exits N ARGS        run the command; it must exit N
//	input FILE|-text    what the next command reads
//	terminal on|off     whether the streams claim to be terminals
//	node ok|CODE|down|unhealthy|stale|failing|ahead
//	asked REGEXP        what the node was asked for last, of events, as JSON
//	gateway here|none   where the context has the gateway, which serves keys and values
//	install PROGRAM...  what trust finds on the machine; root on|off; system NAME
func TestScripts(t *testing.T) {
	t.Parallel()
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireUniqueNames:  true,
		RequireExplicitExec: true,
		UpdateScripts:       os.Getenv("UPDATE_SCRIPTS") != "",
		Setup: func(e *testscript.Env) error {
			tb := e.T().(testing.TB)
			s := &stage{t: tb, node: newFakeNode(tb), system: "linux", programs: &fakePrograms{installed: map[string]bool{}}}
			e.Values[stageKey{}] = s
			e.Setenv("HOME", filepath.Join(e.WorkDir, "home"))
			e.Setenv("XDG_CONFIG_HOME", "")
			e.Setenv("XDG_DATA_HOME", "")
			e.Setenv("CONTROL", s.node.server.URL)
			if err := os.WriteFile(filepath.Join(e.WorkDir, "node-ca.pem"), s.node.ca(), 0o600); err != nil {
				return err
			}
			return contexts.Update(filepath.Join(e.WorkDir, "home/.config/casemate/config.json"), func(f *contexts.File) error {
				return f.Put(contexts.Context{Name: "test", ControlURL: s.node.server.URL, GatewayURL: s.node.gateway(), CA: string(s.node.ca()), Key: adminKey})
			})
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"casemate": func(ts *testscript.TestScript, neg bool, args []string) {
				if code := runCommand(ts, args); (code != 0) != neg {
					ts.Fatalf("exit code %d", code)
				}
			},
			"exits": func(ts *testscript.TestScript, _ bool, args []string) {
				if code := runCommand(ts, args[1:]); strconv.Itoa(code) != args[0] {
					ts.Fatalf("exit code %d, want %s", code, args[0])
				}
			},
			"ids": func(ts *testscript.TestScript, _ bool, args []string) {
				n := on(ts).node
				n.mu.Lock()
				defer n.mu.Unlock()
				vs := n.functions["default/"+args[0]].versions
				ts.Setenv("NEW", strings.TrimPrefix(vs[0].ID, "sha256:")[:8])
				ts.Setenv("OLD", strings.TrimPrefix(vs[1].ID, "sha256:")[:8])
			},
			"input": func(ts *testscript.TestScript, _ bool, args []string) {
				if text, ok := strings.CutPrefix(args[0], "-"); ok {
					on(ts).stdin = text
					return
				}
				on(ts).stdin = ts.ReadFile(args[0])
			},
			"terminal": func(ts *testscript.TestScript, _ bool, args []string) { on(ts).terminal = args[0] == "on" },
			"root":     func(ts *testscript.TestScript, _ bool, args []string) { on(ts).root = args[0] == "on" },
			"system":   func(ts *testscript.TestScript, _ bool, args []string) { on(ts).system = args[0] },
			"node":     func(ts *testscript.TestScript, _ bool, args []string) { on(ts).node.become(args[0]) },
			"asked": func(ts *testscript.TestScript, neg bool, args []string) {
				n := on(ts).node
				n.mu.Lock()
				defer n.mu.Unlock()
				b, err := json.Marshal(n.last)
				ts.Check(err)
				if regexp.MustCompile(args[0]).Match(b) == neg {
					ts.Fatalf("asked for: %s", b)
				}
			},
			"install": func(ts *testscript.TestScript, _ bool, args []string) {
				for _, p := range args {
					on(ts).programs.installed[p] = true
				}
			},
			"ran": func(ts *testscript.TestScript, neg bool, args []string) {
				all := strings.Join(on(ts).programs.ran, "\n")
				if regexp.MustCompile(`(?m)`+args[0]).MatchString(all) == neg {
					ts.Fatalf("programs that ran:\n%s", all)
				}
			},
			"breaks": func(ts *testscript.TestScript, _ bool, args []string) { on(ts).programs.broken = args[0] },
			"gateway": func(ts *testscript.TestScript, _ bool, args []string) {
				err := contexts.Update(ts.MkAbs("home/.config/casemate/config.json"), func(f *contexts.File) error {
					c, err := f.Get("test")
					if err != nil {
						return err
					}
					c.GatewayURL = map[string]string{"here": on(ts).node.server.URL, "none": ""}[args[0]]
					return f.Put(c)
				})
				ts.Check(err)
			},
			"constrained": func(ts *testscript.TestScript, _ bool, args []string) {
				ca := makeAuthority(on(ts).t, args[0])
				err := contexts.Update(ts.MkAbs("home/.config/casemate/config.json"), func(f *contexts.File) error {
					c, err := f.Get("test")
					if err != nil {
						return err
					}
					c.CA = ca
					return f.Put(c)
				})
				ts.Check(err)
			},
		},
	})
}

func (n *fakeNode) become(what string) {
	if what == "down" {
		n.server.CloseClientConnections()
		n.server.Close()
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.fail, n.unhealthy, n.stale, n.failing, n.clock = "", false, false, false, 0
	switch what {
	case "ok":
	case "unhealthy":
		n.unhealthy = true
	case "stale":
		n.stale = true
	case "failing":
		n.failing = true
	case "ahead":
		n.clock = time.Minute
	default:
		n.fail = problem.Code(what)
	}
}

// colors is what sets a colour.
var colors = regexp.MustCompile("\x1b\\[[0-9;]*m")

func runCommand(ts *testscript.TestScript, args []string) int {
	s := on(ts)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	var out, errs bytes.Buffer
	stdin := io.Reader(strings.NewReader(s.stdin))
	s.stdin = ""
	code := cli.Main(ctx, cli.Env{
		Args: args, Stdin: stdin, Stdout: &out, Stderr: &errs, Getenv: ts.Getenv, Clock: func() time.Time { return noon },
		Version: "1.2.3", Dir: ts.MkAbs("."),
		IsTerminal: func(any) bool { return s.terminal }, Width: func() int { return 100 },
		Build: fakeBuild, Up: s.up, Programs: s.programs, System: s.system, Root: s.root,
	})
	for _, text := range []string{out.String(), errs.String()} {
		if strings.Contains(text, adminKey) {
			ts.Fatalf("the key was printed: %s", text)
		}
		if !s.terminal && colors.MatchString(text) {
			ts.Fatalf("colour without a terminal: %q", text)
		}
	}
	_, err := ts.Stdout().Write(out.Bytes())
	ts.Check(err)
	_, err = ts.Stderr().Write(errs.Bytes())
	ts.Check(err)
	return code
}

// fakeBuild takes the file `code` of a source folder for the module. Scripts are
// bundled as they always are, and native functions packed: that needs no tool.
func fakeBuild(ctx context.Context, req build.Request) (build.Artifact, error) {
	if req.Runtime == build.JavaScript || req.Runtime == build.TypeScript || manifest.Native(req.Runtime) {
		req.Env = []string{"PATH="}
		return build.Build(ctx, req)
	}
	src := filepath.Join(req.Dir, req.Source)
	if filepath.IsAbs(req.Source) {
		src = req.Source
	}
	if req.Runtime != build.Wasm {
		src = filepath.Join(src, "code")
	}
	b, err := os.ReadFile(src)
	if err != nil {
		return build.Artifact{}, &build.InputError{Function: req.Name, Field: "source", Message: "there is no code", Remedy: "write some"}
	}
	switch {
	case bytes.Contains(b, []byte("BROKEN")):
		_, _ = fmt.Fprintf(req.Out, "code:1: \x1b[31mundefined: thing\n")
		return build.Artifact{}, &build.CompileError{Function: req.Name, Tool: req.Runtime, ExitCode: 1, Cause: errors.New("exit 1")}
	case bytes.Contains(b, []byte("NOTOOL")):
		return build.Artifact{}, &build.ToolchainError{Runtime: req.Runtime, Missing: "the compiler", Install: "install it from somewhere"}
	}
	return build.Artifact{Bytes: b, Digest: digest(b), Entry: "command"}, nil
}

// up pretends to start the stage's node.
func (s *stage) up(ctx context.Context, o cli.UpOptions) error {
	first := false
	if _, err := os.Stat(filepath.Join(o.DataDir, "root.key")); err != nil {
		first = true
		if err := os.MkdirAll(o.DataDir, 0o700); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(o.DataDir, "root.key"), []byte("x"), 0o600); err != nil {
			return err
		}
	}
	info := cli.ReadyInfo{Node: "node-1", GatewayURL: s.node.gateway(), ControlURL: s.node.server.URL, CA: s.node.ca(), FirstBoot: first}
	if o.AdminKey != adminKey {
		info.AdminKey = adminKey
	}
	if o.Objects != "" {
		info.ObjectsURL = "https://" + o.Objects
	}
	slog.New(o.LogHandler).Info("asked for", "gateway", o.Gateway, "control", o.Control, "objects", o.Objects, "folders", fmt.Sprint(o.Folders), "hosts", o.Hosts, "drain", o.Drain, "tls12", o.AllowTLS12, "new", info.AdminKey != "")
	slog.New(o.LogHandler).Debug("and more")
	return o.Ready(info)
}

// fakePrograms notes what would have run.
type fakePrograms struct {
	installed map[string]bool
	broken    string

	mu  sync.Mutex
	ran []string
}

func (p *fakePrograms) Find(name string) (string, error) {
	if !p.installed[name] {
		return "", fmt.Errorf("%s is not installed", name)
	}
	return "/usr/bin/" + name, nil
}

func (p *fakePrograms) Run(_ context.Context, path string, args ...string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ran = append(p.ran, strings.Join(append([]string{path}, args...), " "))
	if p.broken != "" && strings.Contains(strings.Join(append([]string{path}, args...), " "), p.broken) {
		return fmt.Errorf("running %s: exit status 1", path)
	}
	return nil
}

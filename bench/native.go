package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/casemate-dev/casemate/bench/peers/plain"
	"github.com/casemate-dev/casemate/internal/function"
	"github.com/casemate-dev/casemate/internal/sandbox"
	"github.com/casemate-dev/casemate/internal/sandbox/box"
	"github.com/casemate-dev/casemate/internal/sandbox/native"
	"github.com/casemate-dev/casemate/internal/sandbox/native/boxed"
	"github.com/casemate-dev/casemate/internal/sandbox/native/bundle"
	"github.com/casemate-dev/casemate/internal/sandbox/native/clients"
)

// programs are what measures of the native tier run: native-go and so on of
// functions/casemate.yaml.
func programs() []string { return []string{"go", "node", "python"} }

// tier is a native runner in this process, as a node has it.
type tier struct {
	b      *bench
	runner *native.Runner
	shelf  *shelf
	broker *box.Broker
}

// nativeMemory is what a tier's sandboxes may claim together, in bytes.
const nativeMemory = 6 << 30

func (b *bench) tier(ctx context.Context) (*tier, error) {
	logger := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	broker, err := box.Open(ctx, box.Config{Logger: logger})
	if err != nil {
		return nil, err
	}
	launcher, err := boxed.New(broker)
	if err != nil {
		return nil, errors.Join(err, broker.Close())
	}
	s := &shelf{}
	r, err := native.New(native.Config{
		Launcher: launcher, Artifacts: s, Memory: nativeMemory, Starts: 2 * runtime.NumCPU(), Clock: time.Now, Logger: logger,
	})
	if err != nil {
		return nil, errors.Join(err, launcher.Close())
	}
	return &tier{b, r, s, broker}, nil
}

func (t *tier) close() { _ = t.runner.Close() }

// version describes a function of functions/casemate.yaml, with the limits that a
// deployment gives it.
func (t *tier) version(ctx context.Context, name string, isolation function.Isolation) (*function.Version, error) {
	f, err := t.b.build(ctx, name)
	if err != nil {
		return nil, err
	}
	v := &function.Version{
		Ref: function.Ref{Namespace: "bench", Name: name}, Artifact: function.DigestOf(f.code), Size: int64(len(f.code)),
		Config: function.Config{
			Runtime: function.Runtime(f.config.Runtime), Handler: f.config.Handler, Isolation: isolation,
			Limits: function.Limits{
				Memory: function.DefaultMemory, Timeout: 30 * time.Second, CPU: 30 * time.Second, Output: 1 << 20, Log: 64 << 10,
				Concurrency: function.DefaultConcurrency, Scratch: function.DefaultScratch, Processes: function.DefaultProcesses,
			},
		},
	}
	if err := t.shelf.Put(v.Artifact, f.code); err != nil {
		return nil, err
	}
	return v, identify(v)
}

func identify(v *function.Version) (err error) {
	v.ID, err = function.VersionID(v.Artifact, v.Config)
	return err
}

// said is what the functions answer.
type said struct {
	Hello string
	At    int64 // when the code was called, in nanoseconds since the epoch
}

func read(answer []byte) (said, error) {
	var a said
	if err := json.Unmarshal(answer, &a); err != nil || a.Hello != "Ada" {
		return a, fmt.Errorf("the answer is %.200q", answer)
	}
	return a, nil
}

// event is what the functions are called with.
func event() []byte { return []byte(`{"name":"Ada"}`) }

// invoke calls a version as the gateway would for a raw event.
func (t *tier) invoke(ctx context.Context, v *function.Version, event []byte) (sandbox.Result, error) {
	return t.runner.Invoke(ctx, &sandbox.Invocation{
		ID: "id", Version: v, Body: event, Log: func(sandbox.LogLine) {},
		Head: sandbox.Head{ID: "id", Method: "POST", Path: "/", Headers: map[string][]string{"accept": {"*/*"}}, Trigger: "invoke"},
	})
}

func (t *tier) hello(ctx context.Context, v *function.Version) (said, error) {
	res, err := t.invoke(ctx, v, event())
	if err != nil {
		return said{}, err
	}
	return read(res.Body)
}

// bareRun is how the same program is started without a sandbox.
type bareRun struct {
	argv, env []string
	dir       string
}

// bareProcess lays a function out in a folder, and gives the command line that a
// sandbox would have.
func (b *bench) bareProcess(ctx context.Context, name string) (*bareRun, error) {
	f, err := b.build(ctx, name)
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp(b.dir, "bare-")
	if err != nil {
		return nil, err
	}
	p := &bareRun{dir: filepath.Join(dir, "task")}
	if err := errors.Join(os.Mkdir(p.dir, 0o700), os.CopyFS(filepath.Join(dir, "clients"), clients.FS())); err != nil {
		return nil, err
	}
	into, err := os.Open(p.dir)
	if err != nil {
		return nil, err
	}
	defer into.Close()
	if _, err := bundle.Unpack(f.code, into, bundle.Limits{}); err != nil {
		return nil, err
	}
	handler := f.config.Handler
	switch f.config.Runtime {
	case "nodejs":
		node, err := exec.LookPath("node")
		if err != nil {
			return nil, err
		}
		p.argv = []string{node, "--max-old-space-size=64", filepath.Join(dir, "clients", clients.Node)}
	case "python":
		// The one on the path may be a script that looks for it.
		out, err := exec.CommandContext(ctx, "python3", "-c", "import sys; print(sys.executable)").Output()
		if err != nil {
			return nil, fmt.Errorf("looking for python3: %v", err)
		}
		p.argv = []string{strings.TrimSpace(string(out)), "-S", "-B", filepath.Join(dir, "clients", clients.Python)}
	default:
		handler, p.argv = "bootstrap", []string{filepath.Join(p.dir, "bootstrap")}
	}
	p.env = []string{
		"PATH=/usr/local/bin:/usr/bin:/bin", "LANG=C.UTF-8", "TZ=:UTC", "HOME=/tmp", "TMPDIR=/tmp", "GOMEMLIMIT=115MiB",
		"PYTHONPATH=" + p.dir, "PYTHONDONTWRITEBYTECODE=1", "PYTHONUNBUFFERED=1", "_HANDLER=" + handler, "LAMBDA_TASK_ROOT=" + p.dir,
		"AWS_LAMBDA_FUNCTION_NAME=peer", "AWS_LAMBDA_FUNCTION_VERSION=1", "AWS_LAMBDA_FUNCTION_MEMORY_SIZE=128",
		"AWS_LAMBDA_LOG_GROUP_NAME=peer", "AWS_LAMBDA_LOG_STREAM_NAME=peer", "AWS_REGION=us-east-1",
	}
	return p, nil
}

func (p *bareRun) start(ctx context.Context) (*plain.Runtime, error) {
	return plain.Start(ctx, p.argv, p.env, p.dir)
}

// both makes a version and the same program without a sandbox.
func (t *tier) both(ctx context.Context, name string, isolation function.Isolation) (*function.Version, *bareRun, error) {
	v, err := t.version(ctx, name, isolation)
	if err != nil {
		return nil, nil, err
	}
	p, err := t.b.bareProcess(ctx, name)
	return v, p, err
}

// each takes a figure of each of the programs, on a tier of its own.
func each(ctx context.Context, b *bench, figure func(ctx context.Context, t *tier, program string) (result, error)) ([]result, error) {
	var rs []result
	for _, program := range programs() {
		t, err := b.tier(ctx)
		if err != nil {
			return rs, err
		}
		r, err := figure(ctx, t, program)
		t.close()
		if err != nil {
			return rs, fmt.Errorf("%s: %w", program, err)
		}
		r.ID, r.N = program, b.cfg.rounds
		rs = append(rs, r)
	}
	return rs, nil
}

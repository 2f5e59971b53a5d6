package nativetest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/casemate-dev/casemate/internal/function"
	"github.com/casemate-dev/casemate/internal/sandbox"
	"github.com/casemate-dev/casemate/internal/sandbox/native"
	"github.com/casemate-dev/casemate/internal/sandbox/sandboxtest"
)

// Bench is a Runner on a Launcher.
type Bench struct {
	T      *testing.T
	Runner *native.Runner
	Store  *sandboxtest.Store
	code   []byte
	kernel bool
}

// New makes a Bench that is closed with the test.
func New(t *testing.T, h Harness) *Bench {
	t.Helper()
	if h.code == nil {
		h.code = Archive(t, map[string][]byte{"bootstrap": Guest(t)})
	}
	b := &Bench{T: t, Store: &sandboxtest.Store{}, code: h.code, kernel: h.Kernel}
	r, err := native.New(native.Config{
		Launcher: h.Launcher(t), Artifacts: b.Store, Memory: Memory, Starts: 4, Clock: time.Now, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Errorf("closing the runner: %v", err)
		}
	})
	b.Runner = r
	return b
}

// Option changes a version.
type Option func(v *function.Version)

// Version describes a version of the guest, of the runtime provided unless an option
// says otherwise.
func (b *Bench) Version(options ...Option) *function.Version { return b.VersionOf(b.code, options...) }

// VersionOf describes a version of an archive.
func (b *Bench) VersionOf(archive []byte, options ...Option) *function.Version {
	b.T.Helper()
	v := &function.Version{
		Ref: function.Ref{Namespace: "alpha", Name: "guest"}, Artifact: b.Store.Put(archive), Size: int64(len(archive)),
		Config: function.Config{
			Runtime: function.RuntimeProvided, Isolation: function.IsolationInstance,
			Limits: function.Limits{
				Memory: 128 << 20, Timeout: hang, CPU: hang, Output: 1 << 20, Log: 64 << 10, Concurrency: 16,
				Scratch: 16 << 20, Processes: 64,
			},
		},
	}
	for _, o := range options {
		o(v)
	}
	id, err := function.VersionID(v.Artifact, v.Config)
	if err != nil {
		b.T.Fatal(err)
	}
	v.ID = id
	return v
}

// Fresh asks for a sandbox nobody used before for each invocation.
func Fresh(v *function.Version) { v.Config.Isolation = function.IsolationInvocation }

// HTTP makes the guest a server.
func HTTP(v *function.Version) {
	v.Config.Runtime, v.Config.Command = function.RuntimeHTTP, []string{"bootstrap"}
}

// In puts a version into a namespace.
func In(namespace string) Option { return func(v *function.Version) { v.Namespace = namespace } }

// Env sets variables.
func Env(env map[string]string) Option {
	return func(v *function.Version) { v.Config.Environment = env }
}

// Limit changes limits.
func Limit(change func(l *function.Limits)) Option {
	return func(v *function.Version) { change(&v.Config.Limits) }
}

// Outcome is what came of an invocation.
type Outcome struct {
	sandbox.Result
	Err *sandbox.Error
	Log []string
}

// Kind is how it failed, "" when it did not.
func (o *Outcome) Kind() sandbox.Kind {
	if o.Err == nil {
		return ""
	}
	return o.Err.Kind
}

// Invoke runs a version with an event.
func (b *Bench) Invoke(v *function.Version, event string) Outcome {
	return b.InvokeContext(context.Background(), v, event)
}

// InvokeContext is Invoke with a context.
func (b *Bench) InvokeContext(ctx context.Context, v *function.Version, event string) Outcome {
	b.T.Helper()
	return b.invoke(ctx, v, event, func(string) {})
}

// invoke is InvokeContext that tells of each line of the log when it comes.
func (b *Bench) invoke(ctx context.Context, v *function.Version, event string, heard func(line string)) Outcome {
	return b.invokeBy(ctx, "", v, event, heard)
}

// invokeBy is invoke by way of an alias.
func (b *Bench) invokeBy(ctx context.Context, alias string, v *function.Version, event string, heard func(line string)) Outcome {
	b.T.Helper()
	var o Outcome
	var mu sync.Mutex
	over := false
	res, err := b.Runner.Invoke(ctx, &sandbox.Invocation{
		ID: "receipt-1", Version: v, Alias: alias, Body: []byte(event),
		Head: sandbox.Head{ID: "request-1", Method: "POST", Path: "/some/path", Headers: map[string][]string{"content-type": {"application/json"}}, Trigger: "invoke", Caller: "test"},
		Log: func(l sandbox.LogLine) {
			mu.Lock()
			defer mu.Unlock()
			if over {
				b.T.Errorf("log line %q after the return", l.Text)
			}
			o.Log = append(o.Log, l.Text)
			heard(l.Text)
		},
	})
	mu.Lock()
	defer mu.Unlock()
	over = true
	o.Result = res
	if err != nil && !errors.As(err, &o.Err) {
		b.T.Errorf("Invoke failed with %T (%v), want *sandbox.Error", err, err)
		o.Err = &sandbox.Error{Kind: "wrong type", Cause: err}
	}
	return o
}

// leave invokes code that works so long, and leaves when that has begun.
func (b *Bench) leave(v *function.Version, work time.Duration) Outcome {
	b.T.Helper()
	ctx, cancel := context.WithCancel(b.T.Context())
	defer cancel()
	return b.invoke(ctx, v, fmt.Sprintf(`{"do":"sleep","millis":%d,"text":"begun"}`, work.Milliseconds()), func(line string) {
		if line == "begun" {
			cancel()
		}
	})
}

// Want checks that an invocation answered with a body.
func (b *Bench) Want(o Outcome, body string) {
	b.T.Helper()
	if o.Err != nil || string(o.Body) != body {
		b.T.Errorf("got %q and %v, want %q; it printed %.500q", o.Body, o.Err, body, strings.Join(o.Log, "\n"))
	}
}

// WantSoon checks that a version answers an event with itself though it has a tight limit,
// which the machine may be too busy to meet each time.
func (b *Bench) WantSoon(v *function.Version, limit sandbox.Kind) {
	b.T.Helper()
	o := b.Invoke(v, `1`)
	for began := time.Now(); o.Kind() == limit && time.Since(began) < hang; {
		o = b.Invoke(v, `1`)
	}
	b.Want(o, `1`)
}

// WantKind checks how an invocation failed.
func (b *Bench) WantKind(o Outcome, k sandbox.Kind) {
	b.T.Helper()
	if o.Kind() != k {
		b.T.Errorf("got %q (%v) and %.200q, want %q; it printed %.500q", o.Kind(), o.Err, o.Body, k, strings.Join(o.Log, "\n"))
	}
}

// Facts are what a guest sees of where it is.
type Facts struct {
	Env    []string `json:"env"`
	UID    int      `json:"uid"`
	PID    int      `json:"pid"`
	Host   string   `json:"host"`
	Dir    string   `json:"cwd"`
	Root   []string `json:"root"`
	Task   []string `json:"task"`
	Tmp    []string `json:"tmp"`
	Files  []string `json:"fds"`
	Proc   []string `json:"proc"`
	Status string   `json:"status"`
	Slack  string   `json:"slack"` // of its timers, in nanoseconds
}

// Facts asks a guest what it sees.
func (b *Bench) Facts(v *function.Version) Facts {
	b.T.Helper()
	o := b.Invoke(v, `{"do":"facts"}`)
	var f Facts
	if o.Err != nil {
		b.T.Fatalf("asking the guest: %v", o.Err)
	}
	if err := json.Unmarshal(o.Body, &f); err != nil {
		b.T.Fatalf("asking the guest: %v in %q", err, o.Body)
	}
	return f
}

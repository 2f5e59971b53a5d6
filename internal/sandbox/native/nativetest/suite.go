package nativetest

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/casemate-dev/casemate/internal/function"
	"github.com/casemate-dev/casemate/internal/sandbox"
	"github.com/casemate-dev/casemate/internal/sandbox/native"
	"github.com/casemate-dev/casemate/internal/sandbox/sandboxtest"
)

// Harness says what to run the suite on.
type Harness struct {
	// Launcher makes one, which the Runner closes.
	Launcher func(t *testing.T) native.Launcher
	// Confined says that it locks code in: memory, processes and files are bounded.
	Confined bool
	// Kernel says that the code has a kernel of its own: it sees another /proc, and starts
	// and answers more slowly.
	Kernel bool

	code []byte
}

// Memory is what the suite's Runner may claim, in bytes.
const Memory = 1 << 30

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
				Memory: 128 << 20, Timeout: 20 * time.Second, CPU: 20 * time.Second, Output: 1 << 20, Log: 64 << 10, Concurrency: 16,
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
	var o Outcome
	var mu sync.Mutex
	over := false
	res, err := b.Runner.Invoke(ctx, &sandbox.Invocation{
		ID: "receipt-1", Version: v, Body: []byte(event),
		Head: sandbox.Head{ID: "request-1", Method: "POST", Path: "/some/path", Headers: map[string][]string{"content-type": {"application/json"}}, Trigger: "invoke", Caller: "test"},
		Log: func(l sandbox.LogLine) {
			mu.Lock()
			defer mu.Unlock()
			if over {
				b.T.Errorf("log line %q after the return", l.Text)
			}
			o.Log = append(o.Log, l.Text)
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

// leaving is the context of a caller that leaves soon.
func (b *Bench) leaving() context.Context {
	ctx, cancel := context.WithCancel(b.T.Context())
	time.AfterFunc(100*time.Millisecond, cancel)
	return ctx
}

// Want checks that an invocation answered with a body.
func (b *Bench) Want(o Outcome, body string) {
	b.T.Helper()
	if o.Err != nil || string(o.Body) != body {
		b.T.Errorf("got %q and %v, want %q; it printed %.500q", o.Body, o.Err, body, strings.Join(o.Log, "\n"))
	}
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

// Run runs the suite.
func Run(t *testing.T, h Harness) {
	h.code = Archive(t, map[string][]byte{"bootstrap": Guest(t)})
	for name, test := range map[string]func(*Bench){
		"echo": func(b *Bench) {
			v := b.Version()
			o := b.Invoke(v, `{"a":1}`)
			b.Want(o, `{"a":1}`)
			if !o.Usage.Cold || o.Usage.Sandbox == "" || !strings.Contains(o.Usage.Kind, "instance") || o.Usage.BytesOut != 7 || o.Usage.Wall <= 0 {
				b.T.Errorf("usage %+v", o.Usage)
			}
			if len(o.Log) != 1 || o.Log[0] != "guest begins" {
				b.T.Errorf("log %q", o.Log)
			}
			again := b.Invoke(v, `[]`)
			b.Want(again, `[]`)
			if again.Usage.Cold || again.Usage.Sandbox != o.Usage.Sandbox || len(again.Log) != 0 {
				b.T.Errorf("the second time: %+v, log %q", again.Usage, again.Log)
			}
		},
		"server": func(b *Bench) {
			v := b.Version(HTTP)
			for range 3 {
				o := b.Invoke(v, `{"do":"print","text":"hello log"}`)
				b.Want(o, `"done"`)
				if o.Response.Status != 200 || strings.Join(o.Response.Headers["x-path"], "") != "/some/path" || !strings.Contains(strings.Join(o.Log, "\n"), "hello log") {
					b.T.Errorf("answer %+v, log %q", o.Response, o.Log)
				}
			}
			o := b.Invoke(v, `{"do":"fail","text":"no"}`)
			if o.Err != nil || o.Response.Status != 500 {
				b.T.Errorf("a server's own error is its answer: %+v %v", o.Response, o.Err)
			}
			b.WantKind(b.Invoke(v, `{"do":"exit","n":4}`), sandbox.Exit)
			b.Want(b.Invoke(v, `1`), `1`)
		},
		"state stays with instance isolation": func(b *Bench) {
			v := b.Version()
			b.Invoke(v, `{"do":"keep","text":"one"}`)
			b.Want(b.Invoke(v, `{"do":"keep","text":"two"}`), `{"count":2,"was":"one+one"}`)
		},
		"no state crosses with invocation isolation": func(b *Bench) {
			v := b.Version(Fresh)
			boxes := map[string]bool{}
			for range 6 {
				o := b.Invoke(v, `{"do":"keep","text":"secret"}`)
				b.Want(o, `{"count":1,"was":""}`)
				if boxes[o.Usage.Sandbox] {
					b.T.Errorf("sandbox %s served twice", o.Usage.Sandbox)
				}
				boxes[o.Usage.Sandbox] = true
			}
		},
		"namespaces, functions and versions share no sandbox": func(b *Bench) {
			boxes := map[string]string{}
			for name, v := range map[string]*function.Version{
				"alpha": b.Version(), "beta": b.Version(In("beta")), "another version": b.Version(Env(map[string]string{"A": "1"})),
				"another function": b.Version(func(v *function.Version) { v.Name = "other" }),
			} {
				o := b.Invoke(v, `{"do":"keep","text":"secret of `+name+`"}`)
				b.Want(o, `{"count":1,"was":""}`)
				if other, taken := boxes[o.Usage.Sandbox]; taken {
					b.T.Errorf("%s and %s share sandbox %s", name, other, o.Usage.Sandbox)
				}
				boxes[o.Usage.Sandbox] = name
			}
		},
		"a reported failure": func(b *Bench) {
			v := b.Version()
			o := b.Invoke(v, `{"do":"fail","text":"my reason"}`)
			b.WantKind(o, sandbox.Fault)
			if o.Err != nil && !strings.Contains(string(o.Err.Fault), "my reason") {
				b.T.Errorf("fault %q", o.Err.Fault)
			}
			again := b.Invoke(v, `1`)
			b.Want(again, `1`)
			if again.Usage.Sandbox != o.Usage.Sandbox {
				b.T.Error("a reported failure cost the sandbox")
			}
		},
		"code that ends after the failure it reported": func(b *Bench) {
			v := b.Version()
			for range 3 {
				b.WantKind(b.Invoke(v, `{"do":"fail","text":"fatal"}`), sandbox.Fault)
				b.Want(b.Invoke(v, `1`), `1`)
			}
		},
		"exit and signal": func(b *Bench) {
			v := b.Version()
			o := b.Invoke(v, `{"do":"exit","n":7}`)
			b.WantKind(o, sandbox.Exit)
			if o.Err != nil && !strings.Contains(string(o.Err.Fault), "exit status 7") {
				b.T.Errorf("fault %q", o.Err.Fault)
			}
			b.WantKind(b.Invoke(v, `{"do":"signal"}`), sandbox.Exit)
			b.Want(b.Invoke(v, `1`), `1`)
		},
		"time limit": func(b *Bench) {
			limit, said := 200*time.Millisecond, "timed out after 0.20 seconds"
			if b.kernel {
				limit, said = 2*time.Second, "timed out after 2.00 seconds"
			}
			v := b.Version(Limit(func(l *function.Limits) { l.Timeout = limit }))
			b.Want(b.Invoke(v, `1`), `1`)
			o := b.Invoke(v, `{"do":"sleep","millis":60000}`)
			b.WantKind(o, sandbox.Timeout)
			if o.Err != nil && !strings.Contains(string(o.Err.Fault), said) {
				b.T.Errorf("fault %q", o.Err.Fault)
			}
			b.Want(b.Invoke(v, `1`), `1`)
		},
		"limit on processor time": func(b *Bench) {
			limit := 200 * time.Millisecond
			if b.kernel { // which takes some of it for itself, more where the machine is busy
				limit = 2 * time.Second
			}
			v := b.Version(Limit(func(l *function.Limits) { l.CPU = limit }))
			o := b.Invoke(v, `{"do":"spin","millis":60000}`)
			b.WantKind(o, sandbox.CPU)
			if o.Usage.CPU < limit*3/4 {
				b.T.Errorf("%v of processor time on record", o.Usage.CPU)
			}
			b.Want(b.Invoke(v, `1`), `1`)
		},
		"caller goes away": func(b *Bench) {
			for _, v := range []*function.Version{b.Version(), b.Version(HTTP)} {
				b.Want(b.Invoke(v, `{"do":"keep","text":"one"}`), `{"count":1,"was":""}`)
				left := b.InvokeContext(b.leaving(), v, `{"do":"sleep","millis":1000}`)
				b.WantKind(left, sandbox.Canceled)
				if left.Usage.Wall < time.Second {
					b.T.Errorf("the code was stopped after %v because its caller had gone", left.Usage.Wall)
				}
				again := b.Invoke(v, `1`)
				b.Want(again, `1`)
				if again.Usage.Sandbox != left.Usage.Sandbox || left.Usage.Sandbox == "" {
					b.T.Error("a caller that went away cost the sandbox")
				}
			}
		},
		"caller goes away from code that does not end": func(b *Bench) {
			v := b.Version(Limit(func(l *function.Limits) { l.Timeout = 3 * time.Second }))
			b.Want(b.Invoke(v, `1`), `1`)
			left := b.InvokeContext(b.leaving(), v, `{"do":"sleep","millis":60000}`)
			b.WantKind(left, sandbox.Canceled)
			again := b.Invoke(v, `1`)
			b.Want(again, `1`)
			if again.Usage.Sandbox == left.Usage.Sandbox {
				b.T.Error("a sandbox that was stopped in the middle serves again")
			}
		},
		"caller goes away with invocation isolation": func(b *Bench) {
			v := b.Version(Fresh)
			b.Want(b.Invoke(v, `1`), `1`)
			b.WantKind(b.InvokeContext(b.leaving(), v, `{"do":"sleep","millis":60000}`), sandbox.Canceled)
			b.Want(b.Invoke(v, `1`), `1`)
		},
		"answer too large": func(b *Bench) {
			for _, v := range []*function.Version{b.Version(), b.Version(HTTP)} {
				b.WantKind(b.Invoke(v, `{"do":"output","n":2000000}`), sandbox.Output)
				b.Want(b.Invoke(v, `1`), `1`)
			}
		},
		"log flood": func(b *Bench) {
			v := b.Version(Limit(func(l *function.Limits) { l.Log = 1000 }))
			o := b.Invoke(v, `{"do":"log","n":20000}`)
			b.Want(o, `"done"`)
			if o.Usage.LogBytes > 1000 || o.Usage.LogDropped < 1_900_000 {
				b.T.Errorf("kept %d, dropped %d", o.Usage.LogBytes, o.Usage.LogDropped)
			}
		},
		"code that does not start": func(b *Bench) {
			for name, v := range map[string]*function.Version{
				"exits":         b.Version(Env(map[string]string{"GUEST_EXIT": "1"})),
				"no bootstrap":  b.VersionOf(Archive(b.T, map[string][]byte{"main": []byte("x")})),
				"not a program": b.VersionOf(Archive(b.T, map[string][]byte{"bootstrap": []byte("\x7fELF nonsense")})),
				"no archive":    b.VersionOf([]byte("PK nonsense")),
			} {
				var e *sandbox.Error
				if err := b.Runner.Prepare(b.T.Context(), v); !errors.As(err, &e) || e.Kind != sandbox.BadModule || e.Public == "" {
					b.T.Errorf("%s: %v", name, err)
				} else if name == "exits" && (!strings.Contains(e.Public, "the configuration is wrong") || !strings.Contains(e.Public, "exit status 3")) {
					b.T.Errorf("%s: %q", name, e.Public)
				}
			}
		},
		"tampered code": func(b *Bench) {
			v := b.Version()
			b.Store.Replace(v.Artifact, Archive(b.T, map[string][]byte{"bootstrap": []byte("#!/bin/sh\n")}))
			b.WantKind(b.Invoke(v, `1`), sandbox.Tampered)
		},
		"many at once": func(b *Bench) {
			v := b.Version()
			var all sync.WaitGroup
			var served atomic.Int32
			for range 24 {
				all.Go(func() {
					o := b.Invoke(v, `{"do":"sleep","millis":300}`)
					if o.Kind() == sandbox.Unavailable {
						return // shed: there is memory for eight
					}
					b.Want(o, `"done"`)
					served.Add(1)
				})
			}
			all.Wait()
			running, idle, claimed, budget := b.Runner.Load()
			if served.Load() < 8 || running > 8 || running != idle || claimed > budget {
				b.T.Errorf("%d served; %d run and %d wait, %d bytes claimed, with memory for 8", served.Load(), running, idle, claimed)
			}
			b.Want(b.Invoke(v, `1`), `1`)
		},
		"idle ones give way": func(b *Bench) {
			// Each wants half of the memory; three of them want it in turn.
			half := Limit(func(l *function.Limits) { l.Memory = Memory / 2 })
			var all []*function.Version
			for _, n := range []string{"1", "2", "3"} {
				all = append(all, b.Version(half, Env(map[string]string{"N": n})))
			}
			for range 2 {
				for _, v := range all {
					b.Want(b.Invoke(v, `1`), `1`)
				}
			}
		},
		"a namespace leaves room for others": func(b *Bench) {
			quarter := Limit(func(l *function.Limits) { l.Memory = Memory / 4 })
			mine, theirs := b.Version(quarter), b.Version(quarter, In("beta"))
			b.Want(b.Invoke(theirs, `1`), `1`)
			var all sync.WaitGroup
			var shed atomic.Int32
			for range 4 {
				all.Go(func() {
					if o := b.Invoke(mine, `{"do":"sleep","millis":500}`); o.Kind() == sandbox.Unavailable {
						shed.Add(1)
					}
				})
			}
			b.Want(b.Invoke(theirs, `1`), `1`)
			all.Wait()
			if shed.Load() == 0 {
				b.T.Error("one namespace got all of the memory beside another")
			}
		},
		"retired": func(b *Bench) {
			v := b.Version()
			b.Want(b.Invoke(v, `1`), `1`)
			b.Runner.Retire(v.Namespace, v.ID)
			b.Want(b.Invoke(v, `1`), `1`)
		},
		"the environment is ours alone": func(b *Bench) {
			f := b.Facts(b.Version(Env(map[string]string{"MINE": "1", "AWS_LAMBDA_RUNTIME_API": "10.0.0.1:80", "PATH": "/mine"})))
			seen := map[string]string{}
			for _, e := range f.Env {
				name, value, _ := strings.Cut(e, "=")
				if _, twice := seen[name]; twice {
					b.T.Errorf("%s is there twice", name)
				}
				seen[name] = value
			}
			if seen["MINE"] != "1" || seen["PATH"] != "/mine" || seen["AWS_LAMBDA_RUNTIME_API"] == "10.0.0.1:80" || seen["_HANDLER"] == "" {
				b.T.Errorf("environment %v", f.Env)
			}
			for name := range seen {
				if strings.HasPrefix(name, "GO") && name != "GOMEMLIMIT" || name == "USER" || strings.Contains(name, "ACCESS_KEY") {
					b.T.Errorf("%s is in the environment", name)
				}
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(New(t, h))
		})
	}
	if h.Confined {
		confined(t, h)
	}
}

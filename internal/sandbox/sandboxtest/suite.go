package sandboxtest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"sync"
	"testing"
	"time"

	"github.com/casemate-dev/casemate/internal/function"
	"github.com/casemate-dev/casemate/internal/sandbox"
)

// Harness says how to make a Runner and how to hurt it.
type Harness struct {
	// New gives a Runner that reads artifacts from the store and is closed with the test.
	New func(t *testing.T, artifacts *Store) sandbox.Runner
	// Kill ends the sandbox of a namespace from outside, as the kernel would, and
	// returns when it has been told. A Runner that shares the test's process leaves it nil.
	Kill func(t *testing.T, r sandbox.Runner, namespace string)
}

// Store holds artifacts in memory.
type Store struct {
	mu   sync.Mutex
	held map[function.Digest][]byte
}

// Artifact implements what a Runner reads from.
func (s *Store) Artifact(_ context.Context, d function.Digest) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	b, ok := s.held[d]
	if !ok {
		return nil, errors.New("no such artifact")
	}
	return b, nil
}

// Put stores b under its digest.
func (s *Store) Put(b []byte) function.Digest {
	d := function.DigestOf(b)
	s.Replace(d, b)
	return d
}

// Replace stores b under any digest: the attack of whoever can write to the store.
func (s *Store) Replace(d function.Digest, b []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.held == nil {
		s.held = map[function.Digest][]byte{}
	}
	s.held[d] = b
}

// Bench is a Runner with its store, and short ways to use them.
type Bench struct {
	T      *testing.T
	Runner sandbox.Runner
	Store  *Store
}

// Option changes a version's configuration.
type Option func(*function.Version)

// Version stores the code and describes a version of it, in namespace "alpha" and
// with generous limits unless options say otherwise.
func (b *Bench) Version(code []byte, options ...Option) *function.Version {
	b.T.Helper()
	v := &function.Version{
		Ref: function.Ref{Namespace: "alpha", Name: "guest"}, Artifact: b.Store.Put(code), Size: int64(len(code)),
		Config: function.Config{
			Runtime: function.RuntimeWasm, Entry: function.EntryCommand, Isolation: function.IsolationInvocation,
			Limits: function.Limits{
				Memory: 64 << 20, Timeout: never, CPU: never, Output: 1 << 20, Log: 64 << 10, Concurrency: 64,
			},
		},
	}
	for _, o := range options {
		o(v)
	}
	id, err := function.VersionID(v.Artifact, v.Config)
	if err != nil {
		b.T.Fatalf("naming the version: %v", err)
	}
	v.ID = id
	return v
}

// In puts a version into a namespace.
func In(namespace string) Option { return func(v *function.Version) { v.Namespace = namespace } }

// Handle makes a version enter by handle.
func Handle(v *function.Version) { v.Config.Entry = function.EntryHandle }

// Limit changes a version's limits.
func Limit(change func(*function.Limits)) Option {
	return func(v *function.Version) { change(&v.Config.Limits) }
}

// Within bounds a version's wall time.
func Within(d time.Duration) Option { return Limit(func(l *function.Limits) { l.Timeout = d }) }

// Env sets a version's environment.
func Env(env map[string]string) Option {
	return func(v *function.Version) { v.Config.Environment = maps.Clone(env) }
}

// Outcome is what came of an invocation.
type Outcome struct {
	sandbox.Result
	Err *sandbox.Error
	Log []sandbox.LogLine
}

// Invoke runs a version with a body.
func (b *Bench) Invoke(v *function.Version, body string) Outcome {
	return b.InvokeContext(context.Background(), v, body)
}

// InvokeContext is Invoke with a context. It checks what holds for every call: the
// error has the promised type, and no log line comes after the return.
func (b *Bench) InvokeContext(ctx context.Context, v *function.Version, body string) Outcome {
	b.T.Helper()
	return b.invoke(ctx, v, body, nil)
}

// invoke is InvokeContext that tells of each log line when it comes, when heard is not nil.
func (b *Bench) invoke(ctx context.Context, v *function.Version, body string, heard func()) Outcome {
	b.T.Helper()
	var o Outcome
	var mu sync.Mutex
	returned := false
	res, err := b.Runner.Invoke(ctx, &sandbox.Invocation{
		ID: "id-1", Version: v, Body: []byte(body),
		Head: sandbox.Head{ID: "id-1", Method: "POST", Path: "/", Headers: map[string][]string{"x-one": {"1"}}, Trigger: "http"},
		Log: func(l sandbox.LogLine) {
			mu.Lock()
			defer mu.Unlock()
			if returned {
				b.T.Errorf("log line %q after the return", l.Text)
			}
			o.Log = append(o.Log, l)
			if heard != nil {
				heard()
			}
		},
	})
	mu.Lock()
	defer mu.Unlock()
	returned = true
	o.Result = res
	if err != nil && !errors.As(err, &o.Err) {
		b.T.Errorf("Invoke failed with %T (%v), want *sandbox.Error", err, err)
		o.Err = &sandbox.Error{Kind: "unknown", Cause: err}
	}
	return o
}

// Want fails the test unless the invocation succeeded with this body.
func (b *Bench) Want(v *function.Version, body string) Outcome {
	b.T.Helper()
	o := b.Invoke(v, "")
	if o.Err != nil {
		b.T.Fatalf("invoking: %v", o.Err)
	}
	if o.Response.Status != 200 || string(o.Body) != body {
		b.T.Fatalf("got status %d and body %.200q, want 200 and %.200q", o.Response.Status, o.Body, body)
	}
	return o
}

// WantKind fails the test unless the outcome is a failure of this kind, with a word
// for the caller.
func (b *Bench) WantKind(o Outcome, kind sandbox.Kind) {
	b.T.Helper()
	if o.Err == nil {
		b.T.Fatalf("the invocation succeeded with %.100q, want a failure of kind %s", o.Body, kind)
	}
	if o.Err.Kind != kind {
		b.T.Fatalf("got kind %s (%v), want %s", o.Err.Kind, o.Err, kind)
	}
	if o.Err.Public == "" {
		b.T.Errorf("kind %s has no text for the caller", kind)
	}
}

// Run runs the suite.
func Run(t *testing.T, h Harness) {
	for _, group := range []struct {
		name string
		run  func(*testing.T, Harness)
	}{
		{"Answers", testAnswers},
		{"Limits", testLimits},
		{"Modules", testModules},
		{"Isolation", testIsolation},
		{"Neighbours", testNeighbours},
		{"Life", testLife},
		{"Go", testGo},
	} {
		t.Run(group.name, func(t *testing.T) {
			t.Parallel()
			group.run(t, h)
		})
	}
}

func newBench(t *testing.T, h Harness) *Bench {
	t.Helper()
	store := &Store{}
	return &Bench{T: t, Runner: h.New(t, store), Store: store}
}

// each runs subtests in parallel on one runner.
func each(t *testing.T, h Harness, tests map[string]func(*Bench)) {
	store := &Store{}
	r := h.New(t, store)
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(&Bench{T: t, Runner: r, Store: store})
		})
	}
}

func testAnswers(t *testing.T, h Harness) {
	each(t, h, map[string]func(*Bench){
		"Command": func(b *Bench) {
			o := b.Want(b.Version(Hello()), "hello")
			if got := o.Response.Headers["content-type"]; len(got) != 1 || got[0] != "text/plain" {
				b.T.Errorf("content-type is %q", got)
			}
			u := o.Usage
			if u.Wall <= 0 || u.MemoryPeak < 4<<16 || u.BytesOut < 5 || u.Sandbox == "" || u.Kind == "" {
				b.T.Errorf("usage is not filled in: %+v", u)
			}
		},
		"Handle":      func(b *Bench) { b.Want(b.Version(HelloHandle(0), Handle), "hello") },
		"HandleFails": func(b *Bench) { b.WantKind(b.Invoke(b.Version(HelloHandle(3), Handle), ""), sandbox.Exit) },
		"ExitZero":    func(b *Bench) { b.Want(b.Version(Exit(0)), "") },
		"ExitCode":    func(b *Bench) { b.WantKind(b.Invoke(b.Version(Exit(3)), ""), sandbox.Exit) },
		"Trap":        func(b *Bench) { b.WantKind(b.Invoke(b.Version(Crash()), ""), sandbox.Trap) },
		"ColdOnce": func(b *Bench) {
			v := b.Version(Hello(), In("cold"))
			if err := b.Runner.Prepare(context.Background(), v); err != nil {
				b.T.Fatalf("preparing: %v", err)
			}
			if b.Want(v, "hello").Usage.Cold {
				b.T.Error("an invocation after Prepare is cold")
			}
		},
		"InputArrivesWhole": testInput,
		"HeaderForms": func(b *Bench) {
			o := b.Invoke(b.Version(Print(`{"status":201,"headers":{"X-A":"1","x-b":["2","3"]}}`)), "")
			if o.Err != nil || o.Response.Status != 201 || fmt.Sprint(o.Response.Headers) != "map[x-a:[1] x-b:[2 3]]" {
				b.T.Errorf("got %+v, %v", o.Response, o.Err)
			}
		},
		"BadHeads": func(b *Bench) {
			for _, text := range []string{
				"", "\n", "hello\n", `{"status":"200"}` + "\n", `{"status":99}` + "\n", `{"status":700}` + "\n", `[]` + "\n",
				`{"status":200,"headers":{"a":1}}` + "\n", `{"status":200,"headers":{"a b":"1"}}` + "\n",
				`{"status":200,"headers":{"a":"1\r\nset-cookie: x"}}` + "\n", `{"status":200} trailing` + "\n",
			} {
				b.WantKind(b.Invoke(b.Version(Print(text)), ""), sandbox.BadAnswer)
			}
		},
		"LogInOrder": func(b *Bench) {
			o := b.Want(b.Version(Log("one\ntw", "o\n", "\nthree \xff")), "")
			want := []string{"one", "two", "", "three \uFFFD"}
			if len(o.Log) != len(want) {
				b.T.Fatalf("got %d lines, want %d: %v", len(o.Log), len(want), o.Log)
			}
			for i, l := range o.Log {
				if l.Text != want[i] || time.Since(l.Time).Abs() > time.Minute {
					b.T.Errorf("line %d is %q at %v, want %q now", i, l.Text, l.Time, want[i])
				}
			}
		},
	})
}

func testInput(b *Bench) {
	v := b.Version(Echo(), Limit(func(l *function.Limits) { l.Output = 8 << 20 }))
	for _, n := range []int{0, 1, 60_000, 70_000, 5 << 20} {
		body := bytes.Repeat([]byte("0123456789abcdef"), n/16+1)[:n]
		o := b.Invoke(v, string(body))
		if o.Err != nil {
			b.T.Fatalf("echoing %d bytes: %v", n, o.Err)
		}
		line, rest, _ := bytes.Cut(o.Body, []byte("\n"))
		var head sandbox.Head
		if err := json.Unmarshal(line, &head); err != nil || head.Method != "POST" || head.Headers["x-one"][0] != "1" {
			b.T.Fatalf("the guest read the head %q (%v)", line, err)
		}
		if !bytes.Equal(rest, body) {
			b.T.Fatalf("the guest read %d bytes of body, want %d", len(rest), n)
		}
	}
}

package process

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/casemate-dev/casemate/internal/function"
	"github.com/casemate-dev/casemate/internal/sandbox"
	"github.com/casemate-dev/casemate/internal/sandbox/codestore"
	"github.com/casemate-dev/casemate/internal/sandbox/sandboxtest"
)

// handClock is a clock that moves when it is told.
type handClock struct {
	mu  sync.Mutex
	now time.Time
}

func newHandClock() *handClock { return &handClock{now: time.Now()} }

func (c *handClock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *handClock) move(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

func TestModuleIsCompiledOnce(t *testing.T) {
	t.Parallel()
	s, code := &sandboxtest.Store{}, &shelf{}
	for _, when := range []string{"first", "after a restart"} {
		r := newRunner(t, s, func(c *Config) { c.Code = code })
		b := &sandboxtest.Bench{T: t, Runner: r, Store: s}
		var wg sync.WaitGroup
		for _, ns := range []string{"one", "two", "three"} {
			wg.Go(func() { b.Want(b.Version(sandboxtest.Hello(), sandboxtest.In(ns)), "hello") })
		}
		wg.Wait()
		b.Want(b.Version(sandboxtest.Hello(), sandboxtest.Env(map[string]string{"A": "another version"})), "hello")
		if n := code.compiled(); n != 1 {
			t.Errorf("%s: compiled %d times", when, n)
		}
		eventually(t, "the process that compiled has ended", func() bool { all, warm := r.Count(); return all-warm == 4 })
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// stubborn gives the same bytes for any key, whatever is put or deleted.
type stubborn struct {
	shelf
	code []byte
}

func (s *stubborn) Get(function.Digest) ([]byte, bool) { return s.code, true }

func TestStaleCodeIsMadeAnew(t *testing.T) {
	t.Parallel()
	s, code := &sandboxtest.Store{}, &shelf{}
	r := newRunner(t, s, func(c *Config) { c.Code = code })
	b := &sandboxtest.Bench{T: t, Runner: r, Store: s}
	v := b.Version(sandboxtest.Hello())
	for _, bad := range []string{"", "of an earlier release", strings.Repeat("x", 1<<20)} {
		if err := code.Put(r.codeKey(v.Artifact), []byte(bad)); err != nil {
			t.Fatal(err)
		}
		before := code.compiled()
		b.Want(v, "hello")
		if n := code.compiled() - before; n != 1 {
			t.Errorf("%.20q: compiled %d times", bad, n)
		}
		r.Retire(v.Namespace, v.ID)
	}
}

func TestCodeThatStaysStaleIsNobodysDefect(t *testing.T) {
	t.Parallel()
	s := &sandboxtest.Store{}
	r := newRunner(t, s, func(c *Config) { c.Code = &stubborn{code: []byte("of an earlier release")} })
	b := &sandboxtest.Bench{T: t, Runner: r, Store: s}
	b.WantKind(b.Invoke(b.Version(sandboxtest.Hello()), ""), sandbox.Unavailable)
}

// TestCodeOfAnotherModuleIsRefused: should a store ever give code under the wrong key,
// the sandbox notices.
func TestCodeOfAnotherModuleIsRefused(t *testing.T) {
	t.Parallel()
	s, code := &sandboxtest.Store{}, &shelf{}
	b := &sandboxtest.Bench{T: t, Runner: newRunner(t, s, func(c *Config) { c.Code = code }), Store: s}
	other := b.Version(sandboxtest.Crash())
	b.WantKind(b.Invoke(other, ""), sandbox.Trap)
	wrong, _ := code.Get(b.Runner.(*Runner).codeKey(other.Artifact))
	b.Runner = newRunner(t, s, func(c *Config) { c.Code = &stubborn{code: wrong} })
	b.WantKind(b.Invoke(b.Version(sandboxtest.Hello()), ""), sandbox.Tampered)
}

// TestTamperedCodeIsNeverRun changes what lies on disk between two runs of a node.
func TestTamperedCodeIsNeverRun(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "code")
	s := &sandboxtest.Store{}
	var log bytes.Buffer
	run := func() (*sandboxtest.Bench, *codestore.Store) {
		store, err := codestore.Open(codestore.Config{
			Dir: dir, Key: make([]byte, codestore.KeySize), Clock: time.Now, Logger: slog.New(slog.NewTextHandler(&log, nil)),
		})
		if err != nil {
			t.Fatal(err)
		}
		return &sandboxtest.Bench{T: t, Runner: newRunner(t, s, func(c *Config) { c.Code = store }), Store: s}, store
	}
	b, _ := run()
	v := b.Version(sandboxtest.Hello())
	b.Want(v, "hello")
	file := filepath.Join(dir, b.Runner.(*Runner).codeKey(v.Artifact).Hex())
	good, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	bad := bytes.Clone(good)
	bad[len(bad)/2] ^= 1
	if err := os.WriteFile(file, bad, 0o600); err != nil {
		t.Fatal(err)
	}
	b, store := run()
	b.Want(v, "hello")
	if len(store.Warnings()) != 1 || !strings.Contains(log.String(), "changed on disk") {
		t.Errorf("nobody was told: %q, %s", store.Warnings(), log.String())
	}
	if got, err := os.ReadFile(file); err != nil || bytes.Equal(got, bad) {
		t.Errorf("the file was not made anew: %v", err)
	}
}

// fragile gives a runner whose processes do not survive what they are asked.
func fragile(t *testing.T, clock *handClock) (*Runner, *sandboxtest.Bench) {
	t.Helper()
	path, err := crashBox()
	if err != nil {
		t.Fatal(err)
	}
	s := &sandboxtest.Store{}
	r := newRunner(t, s, func(c *Config) { c.Executable, c.Clock, c.Warm = path, clock.Now, -1 })
	return r, &sandboxtest.Bench{T: t, Runner: r, Store: s}
}

// started counts the processes that were ever started.
func (r *Runner) started() uint64 {
	r.starter.mu.Lock()
	defer r.starter.mu.Unlock()
	return r.starter.serial
}

func named(name string) sandboxtest.Option { return func(v *function.Version) { v.Name = name } }

func TestModuleThatEndsTheCompilerIsRefusedForAWhile(t *testing.T) {
	t.Parallel()
	clock := newHandClock()
	r, b := fragile(t, clock)
	v := b.Version(sandboxtest.Hello(), named("compile"))
	refused := func(processes uint64) {
		t.Helper()
		before := r.started()
		for range 3 {
			o := b.Invoke(v, "")
			b.WantKind(o, sandbox.BadModule)
			if !strings.Contains(o.Err.Public, "compiler twice") {
				t.Errorf("the refusal says %q", o.Err.Public)
			}
		}
		if n := r.started() - before; n != processes {
			t.Errorf("three calls started %d processes, want %d", n, processes)
		}
	}
	refused(3) // the namespace's, and two to compile
	refused(0)
	clock.move(leastPatience)
	refused(2)
	clock.move(leastPatience)
	refused(0) // it waits for longer now
	clock.move(leastPatience)
	refused(2)
}

func TestVersionThatEndsItsSandboxIsRefusedForAWhile(t *testing.T) {
	t.Parallel()
	clock := newHandClock()
	r, b := fragile(t, clock)
	v := b.Version(sandboxtest.Hello(), named("load"))
	call := func(kind sandbox.Kind, processes uint64) {
		t.Helper()
		before := r.started()
		b.WantKind(b.Invoke(v, ""), kind)
		if n := r.started() - before; n > processes {
			t.Errorf("a call started %d processes, want %d at the most", n, processes)
		}
	}
	call(sandbox.Lost, 3) // one to compile, two to load
	call(sandbox.Unavailable, 1)
	call(sandbox.Unavailable, 0)
	clock.move(leastPatience)
	call(sandbox.Unavailable, 1) // tried and lost, then refused
	call(sandbox.Unavailable, 1)
	call(sandbox.Unavailable, 0)
}

func TestBadModuleIsCompiledOnce(t *testing.T) {
	t.Parallel()
	s := &sandboxtest.Store{}
	r := newRunner(t, s, func(c *Config) { c.Warm = -1 })
	b := &sandboxtest.Bench{T: t, Runner: r, Store: s}
	before := r.started()
	for _, ns := range []string{"one", "one", "two"} {
		b.WantKind(b.Invoke(b.Version(sandboxtest.Foreign(), sandboxtest.In(ns)), ""), sandbox.BadModule)
	}
	if n := r.started() - before; n != 3 {
		t.Errorf("%d processes were started, want one for each namespace and one to compile", n)
	}
}

func TestCompilingTooLongEnds(t *testing.T) {
	t.Parallel()
	s := &sandboxtest.Store{}
	r := newRunner(t, s)
	r.compiler.timeout = time.Nanosecond
	b := &sandboxtest.Bench{T: t, Runner: r, Store: s}
	o := b.Invoke(b.Version(sandboxtest.Hello()), "")
	b.WantKind(o, sandbox.BadModule)
	if !strings.Contains(o.Err.Public, "make it smaller") {
		t.Errorf("the refusal says %q", o.Err.Public)
	}
	eventually(t, "the process that compiled has ended", func() bool { all, warm := r.Count(); return all-warm == 1 })
}

// TestNamespacesTakeTurns: one with many modules to compile holds nobody up.
func TestNamespacesTakeTurns(t *testing.T) {
	t.Parallel()
	r := newRunner(t, &sandboxtest.Store{})
	begun, goOn := make(chan string, 16), make(chan struct{})
	errStop := &sandbox.Error{Kind: sandbox.Unavailable, Public: "this is as far as the test goes"}
	ask := func(namespace string, n byte) module {
		return module{namespace: namespace, digest: function.DigestOf([]byte{n}), read: func(context.Context) ([]byte, *sandbox.Error) {
			begun <- namespace
			<-goOn
			return nil, errStop
		}}
	}
	var wg sync.WaitGroup
	compile := func(m module) {
		wg.Go(func() {
			if _, err := r.compiler.compile(m); err == nil || !errors.Is(err, errStop) {
				t.Errorf("compiling says %v", err)
			}
		})
	}
	next := func() string {
		select {
		case ns := <-begun:
			return ns
		case <-time.After(hang):
			return "nobody"
		}
	}
	for n := range byte(8) {
		compile(ask("greedy", n))
	}
	if ns := next(); ns != "greedy" {
		t.Fatalf("%s began", ns)
	}
	compile(ask("modest", 100))
	if ns := next(); ns != "modest" {
		t.Errorf("%s began next, while a namespace waits that has none under way", ns)
	}
	close(goOn)
	wg.Wait()
}

func TestRefusalsAreForgottenInTime(t *testing.T) {
	t.Parallel()
	clock := newHandClock()
	r := newRefusals(clock.Now)
	why := &sandbox.Error{Kind: sandbox.BadModule}
	key := function.DigestOf(nil)
	for wait := leastPatience; wait < 2*mostPatience; wait *= 2 {
		r.delay(key, why, 0)
		clock.move(min(wait, mostPatience) - 1)
		if r.find(key) != why {
			t.Fatalf("forgotten before %v", wait)
		}
		clock.move(1)
		if r.find(key) != nil {
			t.Fatalf("remembered after %v", wait)
		}
	}
	r.clear(key)
	r.delay(key, why, 1)
	if r.find(key) != nil {
		t.Error("the first time counted though it is free")
	}
	r.keep(key, why)
	clock.move(100 * mostPatience)
	if r.find(key) != why {
		t.Error("a lasting refusal was forgotten")
	}
	for n := range 2 * maxRefusals {
		r.keep(function.DigestOf([]byte{byte(n), byte(n >> 8)}), why)
	}
	if len(r.held) > maxRefusals {
		t.Errorf("%d refusals are held", len(r.held))
	}
}

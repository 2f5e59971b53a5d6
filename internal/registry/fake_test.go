package registry

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	"pgregory.net/rapid"

	"github.com/casemate-dev/casemate/api/problem"
	"github.com/casemate-dev/casemate/internal/function"
	"github.com/casemate-dev/casemate/internal/state"
)

var errInjected = errors.New("injected failure")

// How an injected failure goes.
const (
	failBefore  = iota // the call does nothing and fails
	failAfter          // the call does its work and the answer is lost
	crashBefore        // as failBefore, and so does every later call
	crashAfter         // as failAfter, and every later call does nothing and fails
	modes
)

// faults decides which of the storage calls fail.
type faults struct {
	mu    sync.Mutex
	calls int
	at    int // the call that fails, counted from 1; 0: none
	mode  int
	hit   bool
	only  string // when set, only calls of this operation count
}

func (f *faults) next(op string) (before, after error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.hit && f.mode >= crashBefore {
		return errInjected, nil
	}
	if f.only != "" && f.only != op {
		return nil, nil
	}
	f.calls++
	if f.at == 0 || f.calls != f.at {
		return nil, nil
	}
	f.hit = true
	if f.mode == failBefore || f.mode == crashBefore {
		return errInjected, nil
	}
	return nil, errInjected
}

// fakeStore is a store in memory with revisions that grow across all keys.
type fakeStore struct {
	*faults
	mu       sync.Mutex
	entries  map[string]state.Entry
	revision uint64
	corrupt  string           // the key whose value cannot be read
	onWrite  func(key string) // runs before a write to key, outside the lock
}

func (s *fakeStore) do(ctx context.Context, op string, f func() error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	before, after := s.next(op)
	if before != nil {
		return before
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := f(); err != nil {
		return err
	}
	return after
}

func (s *fakeStore) Get(ctx context.Context, key string) (e state.Entry, err error) {
	err = s.do(ctx, "get", func() error {
		var ok bool
		if e, ok = s.entries[key]; !ok {
			return state.ErrNotFound
		}
		if key == s.corrupt {
			return state.ErrCorrupt
		}
		e.Value = slices.Clone(e.Value)
		return nil
	})
	return e, err
}

func (s *fakeStore) write(key string, value []byte) uint64 {
	s.revision++
	s.entries[key] = state.Entry{Key: key, Value: slices.Clone(value), Revision: s.revision}
	return s.revision
}

func (s *fakeStore) Create(ctx context.Context, key string, value []byte) (rev uint64, err error) {
	if s.onWrite != nil {
		s.onWrite(key)
	}
	err = s.do(ctx, "create", func() error {
		if _, ok := s.entries[key]; ok {
			return state.ErrConflict
		}
		rev = s.write(key, value)
		return nil
	})
	return rev, err
}

func (s *fakeStore) Update(ctx context.Context, key string, value []byte, revision uint64) (rev uint64, err error) {
	if s.onWrite != nil {
		s.onWrite(key)
	}
	err = s.do(ctx, "update", func() error {
		if s.entries[key].Revision != revision {
			return state.ErrConflict
		}
		rev = s.write(key, value)
		return nil
	})
	return rev, err
}

func (s *fakeStore) Delete(ctx context.Context, key string, revision uint64) error {
	return s.do(ctx, "delete", func() error {
		e, ok := s.entries[key]
		switch {
		case !ok:
			return state.ErrNotFound
		case e.Revision != revision:
			return state.ErrConflict
		}
		s.revision++
		delete(s.entries, key)
		return nil
	})
}

func (s *fakeStore) List(ctx context.Context, prefix string) (es []state.Entry, err error) {
	err = s.do(ctx, "list", func() error {
		for key, e := range s.entries {
			if strings.HasPrefix(key, prefix) {
				es = append(es, e)
			}
		}
		return nil
	})
	slices.SortFunc(es, func(a, b state.Entry) int { return strings.Compare(a.Key, b.Key) })
	return es, err
}

func (s *fakeStore) keys(prefix string) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var ks []string
	for key := range s.entries {
		if strings.HasPrefix(key, prefix) {
			ks = append(ks, key)
		}
	}
	slices.Sort(ks)
	return ks
}

// edit changes a stored value behind the registry's back.
func (s *fakeStore) edit(t rapid.TB, key string, f func([]byte) []byte) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	e, ok := s.entries[key]
	if !ok {
		t.Fatalf("nothing is stored under %s", key)
	}
	after := f(slices.Clone(e.Value))
	if bytes.Equal(after, e.Value) {
		t.Fatalf("the edit of %s changed nothing", key)
	}
	s.write(key, after)
}

type fakeBlobs struct {
	*faults
	mu    sync.Mutex
	blobs map[string][]byte
	short int // when positive, Put reads only so many bytes and keeps them
	deaf  bool
}

func (b *fakeBlobs) Put(ctx context.Context, name string, r io.Reader) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	before, after := b.next("put")
	if before != nil {
		return before
	}
	if b.short > 0 {
		r = io.LimitReader(r, int64(b.short))
	}
	data, err := io.ReadAll(r)
	if err != nil && !b.deaf {
		return fmt.Errorf("reading the blob: %w", err)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.blobs[name] = data
	return after
}

func (b *fakeBlobs) Get(_ context.Context, name string) ([]byte, error) {
	if before, _ := b.next("blob"); before != nil {
		return nil, before
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	data, ok := b.blobs[name]
	if !ok {
		return nil, state.ErrNotFound
	}
	return data, nil
}

func (b *fakeBlobs) Has(_ context.Context, name string) (bool, error) {
	if before, _ := b.next("has"); before != nil {
		return false, before
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	_, ok := b.blobs[name]
	return ok, nil
}

func (b *fakeBlobs) Delete(_ context.Context, name string) error {
	before, after := b.next("unput")
	if before != nil {
		return before
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if _, ok := b.blobs[name]; !ok {
		return state.ErrNotFound
	}
	delete(b.blobs, name)
	return after
}

// clock is a clock that tests move; every reading is a little later.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(time.Millisecond)
	return c.now
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// bench is storage, a clock, and a registry over them that can be opened again.
type bench struct {
	t      rapid.TB
	faults *faults
	store  *fakeStore
	blobs  *fakeBlobs
	clock  *clock
	keep   int
	*Registry
}

func newBench(t rapid.TB) *bench {
	t.Helper()
	f := &faults{}
	b := &bench{
		t: t, faults: f,
		store: &fakeStore{faults: f, entries: map[string]state.Entry{}},
		blobs: &fakeBlobs{faults: f, blobs: map[string][]byte{}},
		clock: &clock{now: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)},
	}
	b.reopen()
	return b
}

// reopen is a restart on healthy storage.
func (b *bench) reopen() {
	b.t.Helper()
	b.heal()
	r, err := Open(context.Background(), b.config())
	if err != nil {
		b.t.Fatalf("opening the registry: %v", err)
	}
	b.Registry = r
}

func (b *bench) config() Config {
	return Config{Store: b.store, Blobs: b.blobs, Clock: b.clock.Now, KeepVersions: b.keep}
}

func (b *bench) heal() {
	b.faults.mu.Lock()
	defer b.faults.mu.Unlock()
	b.faults.calls, b.faults.at, b.faults.hit, b.faults.only = 0, 0, false, ""
}

// inject makes the n-th storage call from now on fail.
func (b *bench) inject(n, mode int) {
	b.heal()
	b.faults.mu.Lock()
	defer b.faults.mu.Unlock()
	b.faults.at, b.faults.mode = n, mode
}

func (b *bench) upload(code string) function.Digest {
	b.t.Helper()
	d := function.DigestOf([]byte(code))
	if err := b.PutArtifact(context.Background(), d, int64(len(code)), strings.NewReader(code)); err != nil {
		b.t.Fatalf("uploading: %v", err)
	}
	return d
}

// spec asks for a function with the code; the routes are GET unless they name a
// method.
func spec(name, code string, routes ...string) Spec {
	s := Spec{Name: name, Artifact: function.DigestOf([]byte(code)), Size: int64(len(code)), Config: function.Config{
		Runtime: function.RuntimeGo, Entry: function.EntryCommand, Isolation: function.IsolationInvocation,
		Limits: function.Limits{
			Memory: function.DefaultMemory, Timeout: function.DefaultTimeout, Output: function.DefaultOutputLimit,
			Log: function.DefaultLogLimit, Concurrency: function.DefaultConcurrency,
		},
	}}
	for _, r := range routes {
		method, path, ok := strings.Cut(r, " ")
		if !ok {
			method, path = "GET", r
		}
		s.Config.HTTP = append(s.Config.HTTP, function.HTTPTrigger{Method: method, Path: path, BodyLimit: function.DefaultBodyLimit})
	}
	return s
}

func (b *bench) tryDeploy(ns, alias string, specs ...Spec) ([]Deployed, error) {
	p, err := b.Plan(context.Background(), ns, alias, specs)
	if err != nil {
		return nil, err
	}
	return b.Apply(context.Background(), p, specs, "key:tester")
}

// deploy uploads the code, deploys it to live and answers the version.
func (b *bench) deploy(ns, name, code string, routes ...string) function.Digest {
	b.t.Helper()
	b.upload(code)
	done, err := b.tryDeploy(ns, "", spec(name, code, routes...))
	if err != nil {
		b.t.Fatalf("deploying %s: %v", name, err)
	}
	return done[0].Version
}

func ref(ns, name string) function.Ref { return function.Ref{Namespace: ns, Name: name} }

func noRoll(int) int { panic("the dice were thrown for an alias that is not split") }

func (b *bench) wantLive(r function.Ref, want function.Digest) {
	b.t.Helper()
	v, alias, err := b.Resolve(r, "", noRoll)
	if err != nil || v.ID != want || alias != function.LiveAlias {
		b.t.Fatalf("live of %s is %v (alias %q, error %v), want %s", r, v, alias, err, want.Short())
	}
}

func wantCode(t rapid.TB, err error, code problem.Code) *problem.Error {
	t.Helper()
	if !problem.HasCode(err, code) {
		t.Fatalf("got error %v, want problem %s", err, code)
	}
	return problem.From(err)
}

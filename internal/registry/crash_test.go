package registry

import (
	"fmt"
	"strings"
	"testing"

	"github.com/casemate-dev/casemate/internal/function"
)

// stateOf tells everything that can be seen of a function.
func stateOf(r *Registry, fn function.Ref) string {
	f, err := r.Function(fn)
	if err != nil {
		return err.Error()
	}
	s := ""
	for _, a := range f.Aliases {
		s += a.Name
		for _, m := range a.History {
			s += fmt.Sprintf(" [%s %s]", m.Why, weightsText(m.Targets))
		}
	}
	vs, err := r.Versions(fn)
	for _, v := range vs {
		s += fmt.Sprintf(" %s:%v", v.ID.Short(), v.Config.HTTP)
	}
	return fmt.Sprint(s, err)
}

// Every storage call of every kind of change fails in every way. After a restart
// each function is as before or as after, nothing is damaged, its code is there,
// and the change can be made again.
func TestEveryFailureLeavesOldOrNew(t *testing.T) {
	t.Parallel()
	hello, other := ref("default", "hello"), ref("default", "other")
	prepare := func(b *bench) {
		b.keep = 1
		b.reopen()
		b.deploy("default", "hello", "one", "/hello")
		b.deploy("default", "hello", "two", "/hello", "/two")
		b.deploy("default", "other", "one", "/other")
		b.upload("three")
	}
	for name, change := range map[string]func(b *bench) error{
		"deploy": func(b *bench) error {
			_, err := b.tryDeploy("default", "", spec("hello", "three", "/hello"))
			return err
		},
		"deploy a new one": func(b *bench) error {
			_, err := b.tryDeploy("default", "", spec("fresh", "three", "/fresh"))
			return err
		},
		"deploy two that trade a route": func(b *bench) error {
			_, err := b.tryDeploy("default", "", spec("other", "three", "/two"), spec("hello", "three", "/hello"))
			return err
		},
		"set an alias": func(b *bench) error {
			f, err := b.Function(hello)
			if err != nil {
				return err
			}
			to := f.Aliases[len(f.Aliases)-1].History[1].Targets[0].Version
			_, err = b.SetAlias(ctx, hello, "live", []Weight{{to, 70}, {f.Live.ID, 30}}, 0, "x")
			return err
		},
		"roll back": func(b *bench) error { _, err := b.Rollback(ctx, hello, "", "", "x"); return err },
		"delete":    func(b *bench) error { return b.Delete(ctx, hello, "x") },
		"collect":   func(b *bench) error { b.clock.advance(2 * DefaultGrace); return b.Collect(ctx) },
		"upload": func(b *bench) error {
			return b.PutArtifact(ctx, function.DigestOf([]byte("four")), 4, strings.NewReader("four"))
		},
		"upload again": func(b *bench) error {
			return b.PutArtifact(ctx, function.DigestOf([]byte("one")), 3, strings.NewReader("one"))
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			fns := []function.Ref{hello, other, ref("default", "fresh")}
			before, after := map[function.Ref]string{}, map[function.Ref]string{}
			b := newBench(t)
			prepare(b)
			for _, fn := range fns {
				before[fn] = stateOf(b.Registry, fn)
			}
			if err := change(b); err != nil {
				t.Fatal(err)
			}
			for _, fn := range fns {
				after[fn] = stateOf(b.Registry, fn)
			}
			tried := 0
			for mode := range modes {
				for n := 1; ; n++ {
					b := newBench(t)
					prepare(b)
					b.inject(n, mode)
					err := change(b)
					hit := b.faults.hit
					b.reopen()
					if !hit {
						break
					}
					tried++
					for _, fn := range fns {
						got := stateOf(b.Registry, fn)
						if got != after[fn] && (got != before[fn] || err == nil) {
							t.Fatalf("call %d, mode %d (error %v): %s is\n%s\nbefore\n%s\nafter\n%s", n, mode, err, fn, got, before[fn], after[fn])
						}
					}
					if fs := b.Faults(); len(fs) != 0 {
						t.Fatalf("call %d, mode %d: faults %v", n, mode, fs)
					}
					for _, f := range b.Functions("") {
						if _, err := b.Artifact(ctx, f.Live.Artifact); err != nil {
							t.Fatalf("call %d, mode %d: the code of %s: %v", n, mode, f.Ref, err)
						}
					}
					if err == nil || name == "roll back" || name == "set an alias" {
						continue // made, or relative to what is there now
					}
					if name == "delete" && stateOf(b.Registry, hello) == after[hello] {
						continue
					}
					if err := change(b); err != nil {
						t.Fatalf("call %d, mode %d: doing it again: %v", n, mode, err)
					}
					for _, fn := range fns {
						if got := stateOf(b.Registry, fn); got != after[fn] {
							t.Fatalf("call %d, mode %d, done again: %s is\n%s\nwant\n%s", n, mode, fn, got, after[fn])
						}
					}
				}
			}
			if tried < 2*modes {
				t.Errorf("only %d failures were tried", tried)
			}
		})
	}
}

// The store makes the change and loses the answer: that is a success, since
// telling the client otherwise would have it do the change a second time.
func TestLostAnswerIsASuccess(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	hello := ref("default", "hello")
	b.deploy("default", "hello", "one")
	b.upload("two")
	b.inject(1, failAfter)
	b.faults.only = "update"
	done, err := b.tryDeploy("default", "", spec("hello", "two"))
	if err != nil || !done[0].Changed || !b.faults.hit {
		t.Fatalf("%+v, %v", done, err)
	}
	b.wantLive(hello, done[0].Version)
	b.inject(1, failAfter)
	b.faults.only = "delete"
	if err := b.Delete(ctx, hello, "x"); err != nil {
		t.Fatal(err)
	}
	b.reopen()
	if fs := b.Functions(""); len(fs) != 0 {
		t.Errorf("left %v", fs)
	}
}

package registry

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/casemate-dev/casemate/api/problem"
	"github.com/casemate-dev/casemate/internal/function"
)

// model is the registry in its simplest words. Nothing in it is shared with the
// code it is compared with, but for the digest of a version.
type model map[function.Ref]*modelFunction

type modelFunction struct {
	versions []function.Digest // newest first
	paths    map[function.Digest][]string
	aliases  map[string][]modelMove // newest first
}

type modelMove struct {
	targets []Weight
	why     string
}

func (m model) clone() model {
	c := model{}
	for ref, f := range m {
		c[ref] = &modelFunction{slices.Clone(f.versions), maps.Clone(f.paths), maps.Clone(f.aliases)}
	}
	return c
}

func (f *modelFunction) move(alias, why string, targets []Weight) {
	h := append([]modelMove{{targets, why}}, f.aliases[alias]...)
	f.aliases[alias] = h[:min(len(h), HistoryLength)]
}

func (m model) render(ref function.Ref) string {
	f := m[ref]
	if f == nil {
		return "none"
	}
	s := fmt.Sprint("versions ", short(f.versions))
	for _, name := range slices.Sorted(maps.Keys(f.aliases)) {
		s += "; " + name
		for _, mv := range f.aliases[name] {
			s += fmt.Sprintf(" [%s %s]", mv.why, weightsText(mv.targets))
		}
	}
	return s
}

func short(ids []function.Digest) []string {
	var s []string
	for _, id := range ids {
		s = append(s, id.Short())
	}
	return s
}

// render tells what the registry under test shows of a function.
func render(t *rapid.T, r *Registry, ref function.Ref) string {
	f, err := r.Function(ref)
	if problem.HasCode(err, problem.NotFound) {
		return "none"
	}
	vs, verr := r.Versions(ref)
	if err != nil || verr != nil {
		t.Fatalf("reading %s: %v, %v", ref, err, verr)
	}
	var ids []function.Digest
	for _, v := range vs {
		ids = append(ids, v.ID)
	}
	s := fmt.Sprint("versions ", short(ids))
	for _, a := range f.Aliases {
		s += "; " + a.Name
		for _, mv := range a.History {
			s += fmt.Sprintf(" [%s %s]", mv.Why, weightsText(mv.Targets))
		}
	}
	return s
}

// served answers who has which path of a namespace: the first function by name.
func (m model) served(ns string) map[string]string {
	owner := map[string]string{}
	for _, name := range names {
		f := m[ref(ns, name)]
		if f == nil || f.aliases["live"] == nil {
			continue
		}
		for _, p := range f.paths[f.aliases["live"][0].targets[0].Version] {
			if owner[p] == "" {
				owner[p] = name
			}
		}
	}
	return owner
}

// clash reports whether the functions given could have their new paths.
func (m model) clash(ns string, next map[string][]string) bool {
	owner := map[string]string{}
	for p, name := range m.served(ns) {
		if _, replaced := next[name]; !replaced {
			owner[p] = name
		}
	}
	for name, paths := range next {
		for _, p := range paths {
			if owner[p] != "" {
				return true
			}
			owner[p] = name
		}
	}
	return false
}

var (
	namespaces = []string{"default", "other"}
	names      = []string{"a", "b", "c"}
	codes      = []string{"1", "2", "3"}
	paths      = []string{"", "/x", "/y"}
	aliases    = []string{"live", "beta"}
)

// step is a change, on the model and on the registry.
type step struct {
	text  string
	model func(m model) problem.Code // changes m, or says why not
	real  func(b *bench) error
}

func drawStep(t *rapid.T, m model) step {
	ns := rapid.SampledFrom(namespaces).Draw(t, "namespace")
	r := ref(ns, rapid.SampledFrom(names).Draw(t, "name"))
	alias := rapid.SampledFrom(aliases).Draw(t, "alias")
	anyVersion := func(label string) function.Digest {
		if f := m[r]; f != nil && rapid.IntRange(0, 9).Draw(t, label+" known") > 0 {
			return rapid.SampledFrom(f.versions).Draw(t, label)
		}
		return function.DigestOf([]byte("unknown"))
	}
	switch rapid.SampledFrom([]string{"deploy", "deploy", "deploy", "alias", "rollback", "rollback to", "delete alias", "delete", "collect"}).Draw(t, "step") {
	case "deploy":
		return drawDeploy(t, ns, alias)
	case "alias":
		targets := []Weight{{anyVersion("first"), 100}}
		if second := anyVersion("second"); second != targets[0].Version {
			n := rapid.IntRange(1, 99).Draw(t, "share")
			targets = []Weight{{targets[0].Version, n}, {second, 100 - n}}
		}
		return step{"alias", moveModel(r, alias, WhyAlias, func(f *modelFunction) ([]Weight, problem.Code) {
			for _, w := range targets {
				if !slices.Contains(f.versions, w.Version) {
					return nil, problem.NotFound
				}
			}
			if len(targets) == 2 && targets[0].Percent < targets[1].Percent {
				return []Weight{targets[1], targets[0]}, ""
			}
			return targets, ""
		}), func(b *bench) error {
			_, err := b.SetAlias(ctx, r, alias, targets, 0, "x")
			return err
		}}
	case "rollback":
		return step{"rollback", moveModel(r, alias, WhyRollback, func(f *modelFunction) ([]Weight, problem.Code) {
			h := f.aliases[alias]
			if h == nil {
				return nil, problem.NotFound
			}
			for _, mv := range h[1:] {
				if fmt.Sprint(mv.targets) != fmt.Sprint(h[0].targets) {
					return mv.targets, ""
				}
			}
			return nil, problem.Conflict
		}), func(b *bench) error {
			_, err := b.Rollback(ctx, r, alias, "", "x")
			return err
		}}
	case "rollback to":
		to := anyVersion("to")
		return step{"rollback to", moveModel(r, alias, WhyRollback, func(f *modelFunction) ([]Weight, problem.Code) {
			if f.aliases[alias] == nil || !slices.Contains(f.versions, to) {
				return nil, problem.NotFound
			}
			return []Weight{{to, 100}}, ""
		}), func(b *bench) error {
			_, err := b.Rollback(ctx, r, alias, to.Short(), "x")
			return err
		}}
	case "delete alias":
		return step{"delete alias", func(m model) problem.Code {
			switch {
			case alias == "live":
				return problem.BadRequest
			case m[r] == nil || m[r].aliases[alias] == nil:
				return problem.NotFound
			}
			delete(m[r].aliases, alias)
			return ""
		}, func(b *bench) error { return b.DeleteAlias(ctx, r, alias, "x") }}
	case "delete":
		return step{"delete", func(m model) problem.Code {
			if m[r] == nil {
				return problem.NotFound
			}
			delete(m, r)
			return ""
		}, func(b *bench) error { return b.Delete(ctx, r, "x") }}
	default:
		return step{"collect", func(model) problem.Code { return "" }, func(b *bench) error {
			b.clock.advance(DefaultGrace / 5)
			return b.Collect(ctx)
		}}
	}
}

func moveModel(r function.Ref, alias, why string, choose func(*modelFunction) ([]Weight, problem.Code)) func(model) problem.Code {
	return func(m model) problem.Code {
		f := m[r]
		if f == nil {
			return problem.NotFound
		}
		targets, code := choose(f)
		if code != "" {
			return code
		}
		if h := f.aliases[alias]; h != nil && fmt.Sprint(h[0].targets) == fmt.Sprint(targets) {
			return ""
		}
		if alias == "live" && m.clash(r.Namespace, map[string][]string{r.Name: f.paths[targets[0].Version]}) {
			return problem.RouteTaken
		}
		f.move(alias, why, targets)
		return ""
	}
}

func drawDeploy(t *rapid.T, ns, alias string) step {
	var specs []Spec
	next := map[string][]string{}
	for _, name := range rapid.SliceOfNDistinct(rapid.SampledFrom(names), 1, 3, rapid.ID).Draw(t, "functions") {
		var routes []string
		if p := rapid.SampledFrom(paths).Draw(t, "path"); p != "" {
			routes = []string{p}
		}
		next[name] = routes
		specs = append(specs, spec(name, rapid.SampledFrom(codes).Draw(t, "code"), routes...))
	}
	return step{"deploy", func(m model) problem.Code {
		if alias == "live" && m.clash(ns, next) {
			return problem.RouteTaken
		}
		for _, s := range specs {
			r := ref(ns, s.Name)
			id, err := function.VersionID(s.Artifact, s.Config)
			if err != nil {
				t.Fatal(err)
			}
			f := m[r]
			if f == nil {
				f = &modelFunction{paths: map[function.Digest][]string{}, aliases: map[string][]modelMove{}}
				m[r] = f
			}
			if h := f.aliases[alias]; h != nil && len(h[0].targets) == 1 && h[0].targets[0].Version == id {
				continue
			}
			if !slices.Contains(f.versions, id) {
				f.versions = append([]function.Digest{id}, f.versions...)
				f.paths[id] = next[s.Name]
			}
			f.move(alias, WhyDeploy, []Weight{{id, 100}})
		}
		return ""
	}, func(b *bench) error {
		for _, s := range specs { // as the client does
			has, err := b.HasArtifact(ctx, s.Artifact)
			if err != nil {
				return err
			}
			for _, code := range codes {
				if d := function.DigestOf([]byte(code)); !has && d == s.Artifact {
					if err := b.PutArtifact(ctx, d, int64(len(code)), strings.NewReader(code)); err != nil {
						return err
					}
				}
			}
		}
		_, err := b.tryDeploy(ns, alias, specs...)
		return err
	}}
}

// Any sequence of changes, restarts and failures of the storage, at any call and
// in any way, leaves each function as it was or as it was to become.
func TestModel(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		b := newBench(t)
		m := model{}
		t.Repeat(map[string]func(*rapid.T){
			"change": func(t *rapid.T) {
				s := drawStep(t, m)
				next := m.clone()
				code := s.model(next)
				if code != "" {
					next = m
				}
				err := s.real(b)
				if code == "" && err != nil || code != "" && !problem.HasCode(err, code) {
					t.Fatalf("%s: got %v, the model says %q", s.text, err, code)
				}
				m = next
			},
			"change with a failure": func(t *rapid.T) {
				s := drawStep(t, m)
				next := m.clone()
				if s.model(next) != "" {
					next = m
				}
				mode := rapid.IntRange(0, modes-1).Draw(t, "mode")
				b.inject(rapid.IntRange(1, 25).Draw(t, "call"), mode)
				err := s.real(b)
				b.heal()
				live := b.Registry
				b.reopen()
				m = adopt(t, b.Registry, m, next, err == nil)
				if mode < crashBefore {
					// One failed call, and the answer was looked for: the process that went
					// on sees what a new one does.
					for _, r := range everyRef() {
						if x, y := render(t, live, r), render(t, b.Registry, r); x != y {
							t.Fatalf("%s: the process that went on shows\n%s\nand a new one\n%s", s.text, x, y)
						}
					}
				}
			},
			"reopen": func(*rapid.T) { b.reopen() },
			"": func(t *rapid.T) {
				for _, r := range everyRef() {
					if got, want := render(t, b.Registry, r), m.render(r); got != want {
						t.Fatalf("%s is\n%s, the model says\n%s", r, got, want)
					}
				}
				for _, ns := range namespaces {
					got := map[string]string{}
					for _, rt := range b.Routes() {
						if rt.Ref.Namespace == ns {
							got[rt.Trigger.Path] = rt.Ref.Name
						}
					}
					if want := m.served(ns); !maps.Equal(got, want) {
						t.Fatalf("routes of %s are %v, the model says %v", ns, got, want)
					}
				}
				for _, f := range b.Faults() {
					if !strings.Contains(f.Reason, "is not served") {
						t.Fatalf("fault %+v", f)
					}
				}
				for _, f := range b.Functions("") {
					vs, _ := b.Versions(f.Ref)
					for _, v := range vs {
						if _, err := b.Artifact(ctx, v.Artifact); err != nil {
							t.Fatalf("the code of %s is gone: %v", f.Ref, err)
						}
					}
				}
			},
		})
	})
}

func everyRef() []function.Ref {
	var rs []function.Ref
	for _, ns := range namespaces {
		for _, name := range names {
			rs = append(rs, ref(ns, name))
		}
	}
	return rs
}

// adopt checks that each function is old or new, and answers what is.
func adopt(t *rapid.T, r *Registry, before, after model, done bool) model {
	is := model{}
	for _, fn := range everyRef() {
		got := render(t, r, fn)
		switch {
		case got == after.render(fn):
			if after[fn] != nil {
				is[fn] = after[fn]
			}
		case got == before.render(fn) && !done:
			if before[fn] != nil {
				is[fn] = before[fn]
			}
		default:
			t.Fatalf("after a failure (reported: %v) %s is\n%s, neither\n%s\nnor\n%s", !done, fn, got, before.render(fn), after.render(fn))
		}
	}
	return is
}

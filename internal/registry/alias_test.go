package registry

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/casemate-dev/casemate/api/problem"
	"github.com/casemate-dev/casemate/internal/function"
)

func TestCanarySharesAreKept(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	hello := ref("default", "hello")
	v1, v2, v3 := b.deploy("default", "hello", "one"), b.deploy("default", "hello", "two"), b.deploy("default", "hello", "three")
	a, err := b.SetAlias(ctx, hello, "live", []Weight{{v1, 10}, {v2, 20}, {function.Digest(v3.Short()), 70}}, 0, "key:op")
	if err != nil {
		t.Fatal(err)
	}
	if want := []Weight{{v3, 70}, {v2, 20}, {v1, 10}}; !slices.Equal(a.Targets, want) {
		t.Errorf("targets %v, want %v", a.Targets, want)
	}
	for range 2 {
		got := map[function.Digest]int{}
		for n := range 100 {
			v, alias, err := b.Resolve(hello, "", func(most int) int {
				if most != 100 {
					t.Errorf("dice of %d", most)
				}
				return n
			})
			if err != nil || alias != "live" {
				t.Fatalf("alias %q, error %v", alias, err)
			}
			got[v.ID]++
		}
		if got[v1] != 10 || got[v2] != 20 || got[v3] != 70 {
			t.Errorf("shares %v", got)
		}
		b.reopen()
	}
	// Deploying what has the largest share takes the whole.
	done, err := b.tryDeploy("default", "", spec("hello", "three"))
	if err != nil || !done[0].Changed {
		t.Fatalf("%+v, %v", done, err)
	}
	b.wantLive(hello, v3)
}

func TestSetAliasRefuses(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	hello := ref("default", "hello")
	v1, v2 := b.deploy("default", "hello", "one"), b.deploy("default", "hello", "two")
	elsewhere := b.deploy("default", "other", "three")
	f, err := b.Function(hello)
	if err != nil {
		t.Fatal(err)
	}
	many := make([]Weight, MaxTargets+1)
	for i := range many {
		many[i] = Weight{v1, 1}
	}
	for name, c := range map[string]struct {
		ref      function.Ref
		alias    string
		targets  []Weight
		revision uint64
		code     problem.Code
	}{
		"unknown function":           {ref("default", "nobody"), "live", []Weight{{v1, 100}}, 0, problem.NotFound},
		"reference that is no name":  {ref("default", "a.b"), "live", []Weight{{v1, 100}}, 0, problem.NotFound},
		"version of another one":     {hello, "live", []Weight{{elsewhere, 100}}, 0, problem.NotFound},
		"unknown version":            {hello, "live", []Weight{{function.DigestOf([]byte("x")), 100}}, 0, problem.NotFound},
		"no targets":                 {hello, "live", nil, 0, problem.BadRequest},
		"too many targets":           {hello, "live", many, 0, problem.BadRequest},
		"sum below":                  {hello, "live", []Weight{{v1, 50}, {v2, 49}}, 0, problem.BadRequest},
		"sum above":                  {hello, "live", []Weight{{v1, 50}, {v2, 51}}, 0, problem.BadRequest},
		"share of nothing":           {hello, "live", []Weight{{v1, 100}, {v2, 0}}, 0, problem.BadRequest},
		"negative share":             {hello, "live", []Weight{{v1, 101}, {v2, -1}}, 0, problem.BadRequest},
		"same version twice":         {hello, "live", []Weight{{v1, 50}, {v1, 50}}, 0, problem.BadRequest},
		"alias that looks like one":  {hello, "decade", []Weight{{v1, 100}}, 0, problem.BadRequest},
		"alias that is not a name":   {hello, "a.b", []Weight{{v1, 100}}, 0, problem.BadRequest},
		"revision that has moved on": {hello, "live", []Weight{{v1, 100}}, f.Revision - 1, problem.Conflict},
	} {
		_, err := b.SetAlias(ctx, c.ref, c.alias, c.targets, c.revision, "x")
		if !problem.HasCode(err, c.code) {
			t.Errorf("%s: got %v, want %s", name, err, c.code)
		}
	}
	b.wantLive(hello, v2)
	if _, err := b.SetAlias(ctx, hello, "live", []Weight{{v1, 100}}, f.Revision, "x"); err != nil {
		t.Error(err)
	}
	b.wantLive(hello, v1)
}

func TestSettingAnAliasWhereItIsChangesNothing(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	v := b.deploy("default", "hello", "one")
	before := b.store.revision
	a, err := b.SetAlias(ctx, ref("default", "hello"), "live", []Weight{{v, 100}}, 0, "x")
	if err != nil || len(a.History) != 1 || b.store.revision != before {
		t.Errorf("alias %+v, error %v, revision %d after %d", a, err, b.store.revision, before)
	}
}

func TestAliasesHaveABound(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	v := b.deploy("default", "hello", "one")
	hello := ref("default", "hello")
	for i := range MaxAliases - 1 {
		if _, err := b.SetAlias(ctx, hello, fmt.Sprintf("x%d", i), []Weight{{v, 100}}, 0, "x"); err != nil {
			t.Fatal(err)
		}
	}
	_, err := b.SetAlias(ctx, hello, "more", []Weight{{v, 100}}, 0, "x")
	wantCode(t, err, problem.BadRequest)
	_, err = b.Plan(ctx, "default", "more", []Spec{spec("hello", "two")})
	wantCode(t, err, problem.BadRequest)
}

func TestDeleteAlias(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	hello := ref("default", "hello")
	v := b.deploy("default", "hello", "one")
	if _, err := b.SetAlias(ctx, hello, "beta", []Weight{{v, 100}}, 0, "x"); err != nil {
		t.Fatal(err)
	}
	wantCode(t, b.DeleteAlias(ctx, hello, "live", "x"), problem.BadRequest)
	wantCode(t, b.DeleteAlias(ctx, hello, "gamma", "x"), problem.NotFound)
	wantCode(t, b.DeleteAlias(ctx, ref("default", "nobody"), "beta", "x"), problem.NotFound)
	if err := b.DeleteAlias(ctx, hello, "beta", "x"); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		_, _, err := b.Resolve(hello, "beta", noRoll)
		wantCode(t, err, problem.NotFound)
		b.wantLive(hello, v)
		b.reopen()
	}
}

func TestRollbackPicks(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	hello := ref("default", "hello")
	v1 := b.deploy("default", "hello", "one")
	_, err := b.Rollback(ctx, hello, "", "", "x")
	wantCode(t, err, problem.Conflict) // nowhere to go back to
	v2 := b.deploy("default", "hello", "two")
	v3 := b.deploy("default", "hello", "three")

	back := func(to string, want ...Weight) {
		t.Helper()
		a, err := b.Rollback(ctx, hello, "", to, "key:op")
		if err != nil || !slices.Equal(a.Targets, want) {
			t.Fatalf("rolled back to %v, error %v, want %v", a.Targets, err, want)
		}
		if m := a.History[0]; m.Why != WhyRollback || m.By != "key:op" || !slices.Equal(m.Targets, want) {
			t.Errorf("recorded %+v", m)
		}
		b.reopen()
	}
	back("", Weight{v2, 100})         // the previous one
	back("", Weight{v3, 100})         // and back again
	back(v1.Hex(), Weight{v1, 100})   // an explicit one
	back(v2.Short(), Weight{v2, 100}) // by prefix
	back(string(v3), Weight{v3, 100}) // by digest

	// A split is a position like any other.
	if _, err := b.SetAlias(ctx, hello, "live", []Weight{{v1, 90}, {v2, 10}}, 0, "x"); err != nil {
		t.Fatal(err)
	}
	if _, err := b.SetAlias(ctx, hello, "live", []Weight{{v2, 100}}, 0, "x"); err != nil {
		t.Fatal(err)
	}
	back("", Weight{v1, 90}, Weight{v2, 10})

	_, err = b.Rollback(ctx, hello, "", "abcdef012345", "x")
	wantCode(t, err, problem.NotFound)
	_, err = b.Rollback(ctx, hello, "beta", "", "x")
	wantCode(t, err, problem.NotFound)
	_, err = b.Rollback(ctx, hello, "beta", v1.Hex(), "x")
	wantCode(t, err, problem.NotFound) // rolling back makes no alias
	_, err = b.Rollback(ctx, ref("default", "nobody"), "", "", "x")
	wantCode(t, err, problem.NotFound)
}

func TestResolveByVersion(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	hello := ref("default", "hello")
	v1, v2 := b.deploy("default", "hello", "one"), b.deploy("default", "hello", "two")
	for _, v := range []function.Digest{v1, v2} {
		for _, q := range []string{string(v), v.Hex(), v.Hex()[:MinPrefix], v.Short()} {
			got, alias, err := b.Resolve(hello, q, noRoll)
			if err != nil || got.ID != v || alias != "" {
				t.Errorf("%q: %v, alias %q, error %v", q, got, alias, err)
			}
		}
	}
	for _, q := range []string{v1.Hex()[:MinPrefix-1], v1.Hex() + "0", strings.ToUpper(v1.Hex()), "000000", "ffffff", "sha256:", "../" + v1.Hex(), "beta", " live", "sha512:" + v1.Hex()} {
		_, _, err := b.Resolve(hello, q, noRoll)
		wantCode(t, err, problem.NotFound)
	}
	_, _, err := b.Resolve(ref("other", "hello"), v1.Hex(), noRoll)
	wantCode(t, err, problem.NotFound)
}

func TestPrefixThatFitsSeveralIsRefused(t *testing.T) {
	t.Parallel()
	e := &entry{ref: ref("default", "hello"), byID: []*function.Version{
		{ID: "sha256:abcdef00"}, {ID: "sha256:abcdef01"}, {ID: "sha256:abcdf000"},
	}}
	_, err := e.find("abcdef")
	wantCode(t, err, problem.BadRequest)
	if v, err := e.find("abcdf0"); err != nil || v.ID != "sha256:abcdf000" {
		t.Errorf("%v, %v", v, err)
	}
}

func TestOnlySoMuchIsRemembered(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.keep = 3
	b.reopen()
	hello := ref("default", "hello")
	pinned := b.deploy("default", "hello", "pinned")
	if _, err := b.SetAlias(ctx, hello, "pinned", []Weight{{pinned, 100}}, 0, "x"); err != nil {
		t.Fatal(err)
	}
	var all []function.Digest
	for i := range HistoryLength + 10 {
		all = append(all, b.deploy("default", "hello", fmt.Sprintf("code %d", i)))
	}
	for range 2 {
		f, err := b.Function(hello)
		if err != nil || len(f.Aliases[0].History) != HistoryLength {
			t.Fatalf("%d moves, error %v", len(f.Aliases[0].History), err)
		}
		// What the history and the other alias point at, and three more.
		if got, want := len(b.store.keys("version.")), HistoryLength+3+1; got != want {
			t.Errorf("%d versions stored, want %d", got, want)
		}
		if vs, err := b.Versions(hello); err != nil || len(vs) != HistoryLength+3+1 {
			t.Errorf("%d versions, error %v", len(vs), err)
		}
		for i, v := range all {
			_, err := b.Version(hello, string(v))
			if kept := i >= len(all)-HistoryLength-3; (err == nil) != kept {
				t.Errorf("version %d of %d: %v", i, len(all), err)
			}
		}
		if v, _, err := b.Resolve(hello, "pinned", noRoll); err != nil || v.ID != pinned {
			t.Errorf("the pinned version: %v, %v", v, err)
		}
		b.reopen()
	}
	// A version that was dropped can be deployed again.
	if got := b.deploy("default", "hello", "code 0"); got != all[0] {
		t.Errorf("got %s, want %s", got, all[0])
	}
	b.wantLive(hello, all[0])
}

func TestRecordStaysBelowWhatAStoreTakes(t *testing.T) {
	t.Parallel()
	rec := &record{Form: storedForm, Function: ref(strings.Repeat("n", 63), strings.Repeat("f", 63))}
	n := 0
	for a := range MaxAliases {
		name := strings.Repeat(string(rune('a'+a)), 62) + "z"
		for range HistoryLength {
			m := Move{By: strings.Repeat("b", 1000), Why: WhyRollback}
			for range MaxTargets {
				n++
				id := function.DigestOf([]byte(fmt.Sprint(n)))
				rec.Versions = append(rec.Versions, id)
				m.Targets = append(m.Targets, Weight{id, 100 / MaxTargets})
			}
			m.Targets[0].Percent += 100 - 100/MaxTargets*MaxTargets
			rec.move(name, m)
		}
	}
	before := len(rec.Versions)
	dropped := rec.trim(DefaultKeepVersions, maxRecord)
	b, err := encodeRecord(rec)
	if err != nil || len(b) > maxRecord || len(dropped)+len(rec.Versions) != before {
		t.Fatalf("%d bytes, error %v, %d dropped and %d left of %d", len(b), err, len(dropped), len(rec.Versions), before)
	}
	if _, err := decodeRecord(functionKey(rec.Function), b); err != nil {
		t.Error(err)
	}
	for _, a := range rec.Aliases {
		if len(a.History) < 2 {
			t.Errorf("alias %s was left %d moves", a.Name, len(a.History))
		}
	}
}

func TestDeleteFunction(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	hello := ref("default", "hello")
	b.deploy("default", "hello", "one", "/hello")
	b.deploy("default", "hello", "two", "/hello")
	kept := b.deploy("default", "hello-2", "one", "/other")
	if err := b.Delete(ctx, hello, "x"); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		_, _, err := b.Resolve(hello, "", noRoll)
		wantCode(t, err, problem.NotFound)
		wantCode(t, b.Delete(ctx, hello, "x"), problem.NotFound)
		b.wantLive(ref("default", "hello-2"), kept)
		if rs := b.Routes(); len(rs) != 1 || rs[0].Ref.Name != "hello-2" {
			t.Errorf("routes %v", rs)
		}
		if got := b.store.keys("version."); len(got) != 1 {
			t.Errorf("versions left: %v", got)
		}
		b.reopen()
	}
	v := b.deploy("default", "hello", "one", "/hello")
	b.wantLive(hello, v)
	if f, _ := b.Function(hello); len(f.Aliases[0].History) != 1 {
		t.Errorf("the new function inherited a history: %+v", f.Aliases[0].History)
	}
}

func TestWatchersAreToldOfEveryChangeInOrder(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.upload("one")
	b.upload("two")
	hello := ref("default", "hello")
	var seen []string
	stop := b.Watch(func() {
		v, _, err := b.Resolve(hello, "", noRoll)
		if err != nil {
			seen = append(seen, "gone")
			return
		}
		seen = append(seen, v.Artifact.Short())
	})
	b.deploy("default", "hello", "one")
	b.deploy("default", "hello", "two")
	if _, err := b.Rollback(ctx, hello, "", "", "x"); err != nil {
		t.Fatal(err)
	}
	if err := b.Delete(ctx, hello, "x"); err != nil {
		t.Fatal(err)
	}
	stop()
	b.deploy("default", "hello", "one")
	one, two := function.DigestOf([]byte("one")).Short(), function.DigestOf([]byte("two")).Short()
	if want := []string{one, two, one, "gone"}; !slices.Equal(seen, want) {
		t.Errorf("watched %v, want %v", seen, want)
	}
}

package registry

import (
	"bytes"
	"strings"
	"testing"

	"github.com/casemate-dev/casemate/api/problem"
	"github.com/casemate-dev/casemate/internal/function"
)

func swap(from, to string) func([]byte) []byte {
	return func(b []byte) []byte { return bytes.Replace(b, []byte(from), []byte(to), 1) }
}

func TestTamperedVersionIsRefusedAndReported(t *testing.T) {
	t.Parallel()
	evil := function.DigestOf([]byte("evil"))
	for name, edit := range map[string]func([]byte) []byte{
		"other code":          swap(string(function.DigestOf([]byte("two"))), string(evil)),
		"route made public":   swap(`"path":"/hello"`, `"path":"/hello","public":true`),
		"more memory":         swap(`"memory":134217728`, `"memory":1073741824`),
		"route moved":         swap(`/hello`, `/admin`),
		"environment added":   swap(`"limits"`, `"environment":{"A":"B"},"limits"`),
		"member twice":        swap(`"path":"/hello"`, `"path":"/hello","path":"/admin"`),
		"unknown member":      swap(`"form":1`, `"form":1,"also":1`),
		"other form":          swap(`"form":1`, `"form":2`),
		"of another function": swap(`"name":"hello"`, `"name":"other"`),
		"of no function":      swap(`"name":"hello"`, `"name":"../x"`),
		"size":                swap(`"size":3`, `"size":0`),
		"truncated":           func(b []byte) []byte { return b[:len(b)/2] },
		"emptied":             func([]byte) []byte { return nil },
		"something after it":  func(b []byte) []byte { return append(b, "{}"...) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t)
			hello := ref("default", "hello")
			v1 := b.deploy("default", "hello", "one", "/hello")
			v2 := b.deploy("default", "hello", "two", "/hello")
			bystander := b.deploy("default", "bystander", "one", "/by")
			key := versionKey(hello, v2)
			b.store.edit(t, key, edit)
			b.reopen()

			for _, q := range []string{"", "live", v2.Hex(), v2.Short()} {
				_, _, err := b.Resolve(hello, q, noRoll)
				wantCode(t, err, problem.ArtifactTampered)
			}
			if fs := b.Faults(); len(fs) != 1 || fs[0].Key != key || fs[0].Ref != hello || fs[0].Reason == "" {
				t.Errorf("faults %+v", fs)
			}
			for _, r := range b.Routes() {
				if r.Ref == hello {
					t.Errorf("a refused version serves %s", r)
				}
			}
			if vs, err := b.Versions(hello); err != nil || len(vs) != 1 {
				t.Errorf("versions %v, error %v", vs, err)
			}
			b.wantLive(ref("default", "bystander"), bystander)
			if v, _, err := b.Resolve(hello, v1.Hex(), noRoll); err != nil || v.ID != v1 {
				t.Errorf("the version beside it: %v, %v", v, err)
			}
			// Rolling back still works, and never onto the refused one.
			if _, err := b.Rollback(ctx, hello, "", "", "x"); err != nil {
				t.Fatal(err)
			}
			b.wantLive(hello, v1)
			_, err := b.Rollback(ctx, hello, "", "", "x")
			wantCode(t, err, problem.Conflict)
			_, err = b.SetAlias(ctx, hello, "live", []Weight{{v2, 100}}, 0, "x")
			wantCode(t, err, problem.ArtifactTampered)

			// Deploying the same again repairs it.
			if got := b.deploy("default", "hello", "two", "/hello"); got != v2 {
				t.Fatalf("got %s", got)
			}
			b.wantLive(hello, v2)
			b.reopen()
			b.wantLive(hello, v2)
			if fs := b.Faults(); len(fs) != 0 {
				t.Errorf("faults %+v", fs)
			}
		})
	}
}

func TestDeployingAgainRepairsTheLiveVersion(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	v := b.deploy("default", "hello", "one")
	b.store.edit(t, versionKey(ref("default", "hello"), v), func([]byte) []byte { return []byte("{}") })
	b.reopen()
	p, err := b.Plan(ctx, "default", "", []Spec{spec("hello", "one")})
	if err != nil || p.Changes[0].Action != ActionUpdate || !strings.Contains(strings.Join(p.Changes[0].Warnings, " "), "damaged") {
		t.Fatalf("plan %+v, error %v", p, err)
	}
	b.deploy("default", "hello", "one")
	b.wantLive(ref("default", "hello"), v)
}

// A version moved under another version's key passes its own digest.
func TestVersionUnderAnotherKeyIsRefused(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	hello, other := ref("default", "hello"), ref("other", "hello")
	v1, v2 := b.deploy("default", "hello", "one"), b.deploy("default", "hello", "two")
	if x := b.deploy("other", "hello", "two"); x != v2 {
		t.Fatal("not the same version")
	}
	from, err := b.store.Get(ctx, versionKey(hello, v1))
	if err != nil {
		t.Fatal(err)
	}
	b.store.edit(t, versionKey(hello, v2), func([]byte) []byte { return from.Value })
	theirs, err := b.store.Get(ctx, versionKey(other, v2))
	if err != nil {
		t.Fatal(err)
	}
	b.reopen()
	_, _, err = b.Resolve(hello, "", noRoll)
	wantCode(t, err, problem.ArtifactTampered)
	// Nor may the same version come from another tenant's key.
	b.store.edit(t, versionKey(hello, v2), func([]byte) []byte { return theirs.Value })
	b.reopen()
	_, _, err = b.Resolve(hello, "", noRoll)
	wantCode(t, err, problem.ArtifactTampered)
	b.wantLive(other, v2)
}

func TestMissingVersionIsRefused(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	hello := ref("default", "hello")
	v := b.deploy("default", "hello", "one")
	delete(b.store.entries, versionKey(hello, v))
	b.reopen()
	_, _, err := b.Resolve(hello, "", noRoll)
	wantCode(t, err, problem.ArtifactTampered)
	if fs := b.Faults(); len(fs) != 1 {
		t.Errorf("faults %v", fs)
	}
}

func TestTamperedRecordIsRefusedAndReported(t *testing.T) {
	t.Parallel()
	stranger := string(function.DigestOf([]byte("stranger")))
	for name, edit := range map[string]func(v string) func([]byte) []byte{
		"unlisted target": func(v string) func([]byte) []byte {
			return func(b []byte) []byte {
				return bytes.ReplaceAll(b, []byte(`{"version":"`+v), []byte(`{"version":"`+stranger))
			}
		},
		"shares beyond 100":   func(string) func([]byte) []byte { return swap(`"percent":100`, `"percent":101`) },
		"of another function": func(string) func([]byte) []byte { return swap(`"name":"hello"`, `"name":"other"`) },
		"unknown member":      func(string) func([]byte) []byte { return swap(`"form":1`, `"form":1,"x":1`) },
		"other form":          func(string) func([]byte) []byte { return swap(`"form":1`, `"form":9`) },
		"alias name":          func(string) func([]byte) []byte { return swap(`"live"`, `"LIVE"`) },
		"position not the newest of its history": func(string) func([]byte) []byte {
			return func(b []byte) []byte { return b[:bytes.Index(b, []byte(`"history"`))] }
		},
		"no history": func(string) func([]byte) []byte {
			return func(b []byte) []byte {
				i := bytes.Index(b, []byte(`"history":[`))
				return append(b[:i:i], `"history":[]}]}`...)
			}
		},
		"emptied":   func(string) func([]byte) []byte { return func([]byte) []byte { return nil } },
		"truncated": func(string) func([]byte) []byte { return func(b []byte) []byte { return b[:len(b)-1] } },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t)
			hello := ref("default", "hello")
			v := b.deploy("default", "hello", "one", "/hello")
			bystander := b.deploy("default", "bystander", "one", "/by")
			b.store.edit(t, functionKey(hello), edit(string(v)))
			b.reopen()
			_, _, err := b.Resolve(hello, "", noRoll)
			wantCode(t, err, problem.ArtifactTampered)
			_, err = b.Function(hello)
			wantCode(t, err, problem.ArtifactTampered)
			_, err = b.SetAlias(ctx, hello, "beta", []Weight{{v, 100}}, 0, "x")
			wantCode(t, err, problem.ArtifactTampered)
			wantCode(t, b.DeleteAlias(ctx, hello, "beta", "x"), problem.ArtifactTampered)
			if fs := b.Faults(); len(fs) != 1 || fs[0].Key != functionKey(hello) {
				t.Errorf("faults %+v", fs)
			}
			b.wantLive(ref("default", "bystander"), bystander)

			// What the unreadable record may need outlives every grace.
			b.clock.advance(10 * DefaultGrace)
			if err := b.Collect(ctx); err != nil {
				t.Fatal(err)
			}
			if n := len(b.store.keys("version.default.hello.")); n != 1 {
				t.Errorf("%d versions left", n)
			}
			if _, err := b.Artifact(ctx, function.DigestOf([]byte("one"))); err != nil {
				t.Error(err)
			}
			if b.deploy("default", "hello", "one", "/hello"); len(b.Faults()) != 0 {
				t.Errorf("deploying again left %v", b.Faults())
			}
			b.wantLive(hello, v)
		})
	}
}

func TestDamagedFunctionCanBeDeleted(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	hello := ref("default", "hello")
	b.deploy("default", "hello", "one")
	b.store.edit(t, functionKey(hello), func([]byte) []byte { return []byte("?") })
	b.reopen()
	if fs := b.Functions("default"); len(fs) != 1 || fs[0].Live != nil {
		t.Errorf("it is not listed: %+v", fs)
	}
	if err := b.Delete(ctx, hello, "x"); err != nil {
		t.Fatal(err)
	}
	if ks := b.store.keys("version."); len(ks) != 0 || len(b.Faults()) != 0 {
		t.Errorf("left %v, faults %v", ks, b.Faults())
	}
}

// Which code a damaged version uses is unknown, so no code is collected.
func TestNothingIsCollectedBesideADamagedVersion(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	v := b.deploy("default", "hello", "one")
	b.store.edit(t, versionKey(ref("default", "hello"), v), func([]byte) []byte { return []byte("{}") })
	b.clock.advance(10 * DefaultGrace)
	b.reopen()
	if _, err := b.Artifact(ctx, function.DigestOf([]byte("one"))); err != nil {
		t.Error(err)
	}
}

// The share of a refused version is not quietly given to the other one.
func TestShareOfATamperedVersionIsRefused(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	hello := ref("default", "hello")
	v1, v2 := b.deploy("default", "hello", "one"), b.deploy("default", "hello", "two")
	if _, err := b.SetAlias(ctx, hello, "live", []Weight{{v1, 90}, {v2, 10}}, 0, "x"); err != nil {
		t.Fatal(err)
	}
	b.store.edit(t, versionKey(hello, v2), func([]byte) []byte { return []byte("{}") })
	b.reopen()
	refused := 0
	for n := range 100 {
		v, _, err := b.Resolve(hello, "", func(int) int { return n })
		if err != nil {
			wantCode(t, err, problem.ArtifactTampered)
			refused++
		} else if v.ID != v1 {
			t.Errorf("served %s", v.ID)
		}
	}
	if refused != 10 {
		t.Errorf("%d of 100 refused", refused)
	}
}

// A version that the store itself finds corrupt is refused like any other, and
// does not take its function with it.
func TestVersionTheStoreCannotReadIsRefused(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	hello := ref("default", "hello")
	v1 := b.deploy("default", "hello", "one")
	other, err := Open(ctx, b.config())
	if err != nil {
		t.Fatal(err)
	}
	v2 := b.deploy("default", "hello", "two")
	b.store.corrupt = versionKey(hello, v2)
	if _, err := other.SetAlias(ctx, hello, "beta", []Weight{{v1, 100}}, 0, "x"); err != nil {
		t.Fatal(err)
	}
	_, _, err = other.Resolve(hello, "", noRoll)
	wantCode(t, err, problem.ArtifactTampered)
	if fs := other.Faults(); len(fs) != 1 || fs[0].Key != b.store.corrupt {
		t.Errorf("faults %v", fs)
	}
	if _, err := other.Rollback(ctx, hello, "", "", "x"); err != nil {
		t.Error(err)
	}
}

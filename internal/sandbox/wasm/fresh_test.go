package wasm

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/casemate-dev/casemate/internal/function"
	"github.com/casemate-dev/casemate/internal/sandbox/wasm/memory"
)

// built is a guest of testdata in one form, compiled.
type built struct {
	name    string
	digest  function.Digest
	machine []byte
	entry   function.Entry
}

// buildGuests compiles testdata's guests, as the platform's own builds do. One whose
// toolchain is missing is named and left out.
func buildGuests(t *testing.T) (all []built) {
	t.Helper()
	if testing.Short() {
		t.Skip("compiling guests takes seconds")
	}
	dir := t.TempDir()
	type form struct {
		name  string
		entry function.Entry
		tool  []string
	}
	clang := []string{"clang", "--target=wasm32-wasi", "-O2", "-Wl,--strip-all"}
	for _, f := range []form{
		{"C command", function.EntryCommand, append(clang, "fresh.c", "-o")},
		{"C handle", function.EntryHandle, append(clang[:4:4], "-mexec-model=reactor", "-DHANDLE", "fresh.c", "-o")},
		{"Rust command", function.EntryCommand, []string{"rustc", "--target=wasm32-wasip1", "-O", "fresh.rs", "-o"}},
		{"Go command", function.EntryCommand, []string{"go", "build", "-C", "fresh", "-o"}},
		{"Go handle", function.EntryHandle, []string{"go", "build", "-C", "fresh", "-buildmode=c-shared", "-o"}},
	} {
		out := filepath.Join(dir, f.name+".wasm")
		cmd := exec.Command(f.tool[0], append(f.tool[1:], out)...)
		cmd.Dir = "testdata"
		cmd.Env = os.Environ()
		if f.tool[0] == "go" {
			cmd.Env = append(cmd.Env, "GOOS=wasip1", "GOARCH=wasm")
		}
		if said, err := cmd.CombinedOutput(); err != nil {
			t.Logf("NOT TESTED: %s: %v: %s", f.name, err, said)
			continue
		}
		code, err := os.ReadFile(out)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, built{f.name, function.DigestOf(code), compiled(t, code), f.entry})
	}
	if len(all) == 0 {
		t.Fatal("not a single toolchain works here")
	}
	return all
}

// TestEachInvocationIsFresh runs programs that draw and look at clocks before and
// after their first look at the request, keep a secret in all places that a program
// has, and say what they find of it.
func TestEachInvocationIsFresh(t *testing.T) {
	t.Parallel()
	all := buildGuests(t)
	eachStrategy(t, func(t *testing.T, s memory.Strategy) {
		e := newEngine(t, s)
		for _, g := range all {
			v, f := e.loadBytes(g.digest, g.machine, g.entry)
			if f != nil {
				t.Fatal(f)
			}
			defer v.unload()
			anew := g.name == "C handle" // it draws while it is initialised
			if (v.ready == nil) != anew {
				t.Errorf("%s: %q", g.name, v.why)
			}
			seen := map[string]map[string]bool{}
			last := time.Now().UnixNano()
			const runs = 6
			for k := range runs {
				o := e.run(v, "secret-of-"+string(rune('a'+k))+"\n")
				if o.f != nil || !strings.Contains(o.body, "end\n") {
					t.Fatalf("%s: got %q, %v, %q", g.name, o.body, o.f, o.log)
				}
				for line := range strings.Lines(o.body) {
					kind, value, ok := strings.Cut(strings.TrimSpace(line), ": ")
					switch {
					case !ok:
					case kind == "found":
						if value != "nothing" {
							t.Errorf("%s: run %d found %s", g.name, k, value)
						}
					case kind == "nanoseconds":
						now := time.Now().UnixNano()
						if at := parse(t, value); at < last || at > now {
							t.Errorf("%s: run %d thinks it is %d, between %d and %d", g.name, k, at, last, now)
						} else {
							last = at
						}
					default:
						if seen[kind] == nil {
							seen[kind] = map[string]bool{}
						}
						seen[kind][value] = true
					}
				}
			}
			if len(seen) < 2 {
				t.Errorf("%s: it draws %v", g.name, seen)
			}
			for kind, values := range seen {
				least := runs
				if kind == "order" { // there are not many orders
					least = 3
				}
				if len(values) < least {
					t.Errorf("%s: %s is only %d different things in %d runs", g.name, kind, len(values), runs)
				}
			}
			if v.ready != nil {
				wantReady(t, v)
			}
		}
	})
}

func parse(t *testing.T, s string) (n int64) {
	t.Helper()
	for _, c := range s {
		if c < '0' || c > '9' {
			t.Fatalf("%q is no number", s)
		}
		n = n*10 + int64(c-'0')
	}
	return n
}

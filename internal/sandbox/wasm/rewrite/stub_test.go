package rewrite_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/imports/wasi_snapshot_preview1"

	"github.com/casemate-dev/casemate/internal/sandbox/wasm/rewrite"
)

// press compiles a rewritten module and leaves its native code in a cache as that
// of the stub, as an engine will: what runs the stub then has no bodies at all.
type press struct {
	own, cache string
	runtime    wazero.Runtime
}

func newPress(tb testing.TB) *press {
	tb.Helper()
	p := &press{own: tb.TempDir(), cache: tb.TempDir()}
	p.runtime = wazero.NewRuntimeWithConfig(context.Background(), config().WithCompilationCache(openCache(tb, p.own)))
	tb.Cleanup(func() { _ = p.runtime.Close(context.Background()) })
	return p
}

func openCache(tb testing.TB, dir string) wazero.CompilationCache {
	tb.Helper()
	c, err := wazero.NewCompilationCacheWithDir(dir)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = c.Close(context.Background()) })
	return c
}

// runtimeOf is a runtime that uses what was pressed.
func (p *press) runtimeOf(tb testing.TB, k *tank) wazero.Runtime {
	tb.Helper()
	return hosted(tb, k, config().WithCompilationCache(openCache(tb, p.cache)))
}

// add compiles both; they must be valid.
func (p *press) add(tb testing.TB, o *rewrite.Output) {
	tb.Helper()
	_, code := p.compile(tb, o.Module)
	name, _ := p.compile(tb, o.Stub)
	path := filepath.Join(p.cache, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		tb.Fatal(err)
	}
	if err := os.WriteFile(path, code, 0o600); err != nil {
		tb.Fatal(err)
	}
}

// compile gives what the engine writes into its cache.
func (p *press) compile(tb testing.TB, m []byte) (name string, code []byte) {
	tb.Helper()
	compiled, err := p.runtime.CompileModule(context.Background(), m)
	if err != nil {
		tb.Fatalf("compiling: %v", err)
	}
	_ = compiled.Close(context.Background())
	files, err := filepath.Glob(filepath.Join(p.own, "*", "*"))
	if err != nil || len(files) != 1 {
		tb.Fatalf("the engine's cache holds %v (%v), not one file", files, err)
	}
	if code, err = os.ReadFile(files[0]); err != nil {
		tb.Fatal(err)
	}
	if err := os.Remove(files[0]); err != nil {
		tb.Fatal(err)
	}
	name, err = filepath.Rel(p.own, files[0])
	if err != nil {
		tb.Fatal(err)
	}
	return name, code
}

// enter makes an instance of the stub with the module's native code.
func (p *press) enter(tb testing.TB, r wazero.Runtime, o *rewrite.Output, name string) (api.Module, error) {
	tb.Helper()
	p.add(tb, o)
	mod, err := r.InstantiateWithConfig(context.Background(), o.Stub, named(name))
	if err != nil {
		return nil, err
	}
	return complete(mod, o)
}

// part is a section.
type part struct {
	id   byte
	body []byte
}

// sectionsOf takes a module apart which is known to be well formed.
func sectionsOf(m []byte) []part {
	var parts []part
	for at := 8; at < len(m); {
		size, next := number(m, at+1)
		parts = append(parts, part{m[at], m[next : next+size]})
		at = next + size
	}
	return parts
}

// number reads an unsigned number and tells where it ends.
func number(b []byte, at int) (v, next int) {
	for shift := 0; ; shift += 7 {
		v |= int(b[at]&0x7f) << shift
		at++
		if b[at-1] < 0x80 {
			return v, at
		}
	}
}

// bodiesOf takes a code section apart.
func bodiesOf(b []byte) [][]byte {
	n, at := number(b, 0)
	var all [][]byte
	for range n {
		size, next := number(b, at)
		all = append(all, b[next:next+size])
		at = next + size
	}
	return all
}

// agrees tells in what a stub differs from its module where it must not.
func agrees(o *rewrite.Output) error {
	full, stub := sectionsOf(o.Module), sectionsOf(o.Stub)
	if len(stub) != len(full)+1 || !bytes.Equal(o.Module[:8], o.Stub[:8]) {
		return fmt.Errorf("%d sections, and the module has %d", len(stub), len(full))
	}
	digest := sha256.Sum256(o.Module)
	if last := stub[len(full)]; last.id != 0 || !bytes.HasSuffix(last.body, digest[:]) {
		return fmt.Errorf("the last section is %v", last)
	}
	for i, p := range full {
		if stub[i].id != p.id {
			return fmt.Errorf("section %d is %d, not %d", i, stub[i].id, p.id)
		}
		if p.id != 10 {
			if !bytes.Equal(stub[i].body, p.body) {
				return fmt.Errorf("section %d differs", p.id)
			}
			continue
		}
		bodies := bodiesOf(stub[i].body)
		if len(bodies) != o.Functions || len(bodiesOf(p.body)) != o.Functions {
			return fmt.Errorf("%d bodies for %d functions", len(bodies), o.Functions)
		}
		for _, b := range bodies {
			if !bytes.Equal(b, []byte{0, 0x00, 0x0b}) {
				return fmt.Errorf("a body is %v", b)
			}
		}
	}
	return nil
}

func TestStubAgreesWithModule(t *testing.T) {
	t.Parallel()
	modules := map[string][]byte{
		"handmade": handmade(),
		"go":       goGuest(t),
		"empty":    module(),
		"no code":  module(memory(0, 1), data(seg{u(0), []byte{0x41, 0}, []byte("a")})),
		"names": module(types(sig(nil, nil)), functions(0), code(body(0, 0)),
			section(0, cat(str("name"), section(1, vec(cat(u(0), str("culprit"))))))),
		"mixed data": module(memory(0, 1), section(12, u(2)), data(seg{u(0), []byte{0x41, 0}, []byte("a")}, seg{u(1), nil, []byte("b")})),
	}
	for _, s := range samples() {
		modules[s.name] = s.bytes
	}
	r := newRuntime(t, nil)
	for name, m := range modules {
		o := rewritten(t, m)
		if err := agrees(o); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if !compiles(t, r, o.Stub) {
			t.Errorf("%s: the stub is not valid", name)
		}
	}
}

// The engine keys native code by the stub's bytes.
func TestStubsOfDifferentModulesDiffer(t *testing.T) {
	t.Parallel()
	give := func(n byte) []byte {
		return module(types(sig(nil, vals(i32))), functions(0), section(7, vec(export("f", 0, 0))), code(body(0, 0, 0x41, n)))
	}
	one, two := rewritten(t, give(1)), rewritten(t, give(2))
	if bytes.Equal(one.Stub, two.Stub) {
		t.Error("two modules have one stub")
	}
	p := newPress(t)
	r := p.runtimeOf(t, unlimited())
	for want, o := range map[uint64]*rewrite.Output{1: one, 2: two} {
		mod, err := p.enter(t, r, o, "")
		if err != nil {
			t.Fatal(err)
		}
		if got, err := call(mod, "f"); err != nil || got[0] != want {
			t.Errorf("got %v (%v), want %d", got, err, want)
		}
	}
	// By itself, a stub does nothing.
	mod := startRewritten(t, newRuntime(t, unlimited()), &rewrite.Output{Module: one.Stub})
	if _, err := call(mod, "f"); err == nil || !strings.Contains(reason(err), "unreachable") {
		t.Errorf("a stub without native code: %v", err)
	}
}

// A compiled guest's native code runs in its stub, and traps tell names.
func TestStubRunsGuest(t *testing.T) {
	t.Parallel()
	m := goGuest(t)
	o := rewritten(t, m)
	p := newPress(t)
	r := p.runtimeOf(t, &tank{allowance: 1_000_000, refills: -1})
	wasi_snapshot_preview1.MustInstantiate(t.Context(), r)
	mod, err := p.enter(t, r, o, "")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := call(mod, "_initialize"); err != nil {
		t.Fatal(err)
	}
	plain := startGuest(t, nil, m)
	for name, arg := range map[string]uint64{"hash": 3, "order": 1000, "encode": 3} {
		got, err := call(mod, name, arg)
		want, wantErr := call(plain, name, arg)
		if err != nil || wantErr != nil || !slices.Equal(got, want) {
			t.Errorf("%s: got %v (%v), want %v (%v)", name, got, err, want, wantErr)
		}
	}
	if err := o.Restorable(); err != nil {
		t.Errorf("a Go guest: %v", err)
	}
	if len(o.Segments) < 100 || o.Globals == 0 {
		t.Errorf("%d segments, %d globals", len(o.Segments), o.Globals)
	}
	t.Logf("%d KiB became %d, the stub %d; %d segments, %d globals",
		len(m)>>10, len(o.Module)>>10, len(o.Stub)>>10, len(o.Segments), o.Globals)
}

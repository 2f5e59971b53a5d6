package native

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/tetratelabs/wazero"
)

// header and section write the binary format (WebAssembly core specification, 5.5).
const header = "\x00asm\x01\x00\x00\x00"

func section(id byte, body ...byte) []byte { return append([]byte{id, byte(len(body))}, body...) }

// answering is a module with n functions that give v, v+1, …, the first of which is
// exported as f; its stub has the same functions without their bodies.
func answering(n, v int, mark string) (module, stub []byte) {
	types := section(1, 1, 0x60, 0, 1, 0x7f)
	funcs := section(3, append([]byte{byte(n)}, make([]byte, n)...)...)
	exports := section(7, 1, 1, 'f', 0, 0)
	full, empty := []byte{byte(n)}, []byte{byte(n)}
	for k := range n {
		full = append(full, 4, 0, 0x41, byte(v+k), 0x0b)
		empty = append(empty, 3, 0, 0x00, 0x0b)
	}
	custom := section(0, append([]byte("\x04mark"), mark...)...)
	module = slices.Concat([]byte(header), types, funcs, exports, section(10, full...))
	stub = slices.Concat([]byte(header), types, funcs, exports, section(10, empty...), custom)
	return module, stub
}

// side is a process's part: what compiles, or what runs.
type side struct {
	*Cache
	r wazero.Runtime
}

func newSide(t *testing.T) side {
	t.Helper()
	c, err := New()
	if err != nil {
		t.Fatal(err)
	}
	ctx := context.Background()
	r := wazero.NewRuntimeWithConfig(ctx, wazero.NewRuntimeConfigCompiler().WithCompilationCache(c.Engine()))
	t.Cleanup(func() { _ = errors.Join(r.Close(ctx), c.Close(ctx)) })
	return side{c, r}
}

func machineCode(t *testing.T, module []byte) []byte {
	t.Helper()
	s := newSide(t)
	_, code, err := s.Compile(context.Background(), s.r, module)
	if err != nil || len(code) == 0 {
		t.Fatalf("compiling gave %d bytes, %v", len(code), err)
	}
	return code
}

func run(t *testing.T, r wazero.Runtime, m wazero.CompiledModule) uint64 {
	t.Helper()
	ctx := context.Background()
	in, err := r.InstantiateModule(ctx, m, wazero.NewModuleConfig().WithName(""))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = in.Close(ctx) }()
	got, err := in.ExportedFunction("f").Call(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return got[0]
}

func TestRoundTrip(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	s := newSide(t)
	for _, v := range []int{5, 40} {
		module, stub := answering(3, v, string(rune('a'+v)))
		m, err := s.Attach(ctx, s.r, stub, machineCode(t, module), nil)
		if err != nil {
			t.Fatal(err)
		}
		if got := run(t, s.r, m); got != uint64(v) {
			t.Errorf("the code gives %d, want %d", got, v)
		}
		// Once more while it is there: the same, and closing one leaves the other.
		again, err := s.Attach(ctx, s.r, stub, machineCode(t, module), nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := m.Close(ctx); err != nil {
			t.Fatal(err)
		}
		if got := run(t, s.r, again); got != uint64(v) {
			t.Errorf("attached twice, the code gives %d, want %d", got, v)
		}
		if err := again.Close(ctx); err != nil {
			t.Fatal(err)
		}
		third, err := s.Attach(ctx, s.r, stub, machineCode(t, module), nil)
		if err != nil {
			t.Fatal(err)
		}
		if got := run(t, s.r, third); got != uint64(v) {
			t.Errorf("attached after all was closed, the code gives %d, want %d", got, v)
		}
	}
}

// TestCodeThatDoesNotFit is about what the engine finds out. It does not find code
// that is whole and belongs to another module: stub and code are kept together.
func TestCodeThatDoesNotFit(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	module, stub := answering(3, 5, "m")
	code := machineCode(t, module)
	flip := func(at int) []byte {
		b := bytes.Clone(code)
		b[at] ^= 0x40
		return b
	}
	version := len("WAZEVO") + 1
	counted := version + int(code[version-1])
	offsets := counted + 4
	size := offsets + 3*8 // of three functions
	machine := size + 8
	n := int(binary.LittleEndian.Uint64(code[size:]))
	for name, bad := range map[string][]byte{
		"nothing": {}, "another magic": flip(0), "another release": flip(version), "another length of release": flip(version - 1),
		"another checksum": flip(machine + n), "another instruction": flip(machine + n/2), "another size": flip(size),
		"cut in the head": code[:9], "cut in the offsets": code[:offsets+4], "cut in the code": code[:machine+n/2],
		"cut before the checksum": code[:machine+n], "an endless count": flip(counted + 2),
	} {
		s := newSide(t)
		m, err := s.Attach(ctx, s.r, stub, bad, nil)
		if m != nil || !errors.Is(err, ErrMismatch) {
			t.Errorf("%s: got %v, %v", name, m, err)
		}
		// And nothing of it stays: the right code goes in afterwards.
		if m, err = s.Attach(ctx, s.r, stub, code, nil); err != nil {
			t.Errorf("%s: afterwards: %v", name, err)
		} else if got := run(t, s.r, m); got != 5 {
			t.Errorf("%s: afterwards the code gives %d", name, got)
		}
	}
}

func TestBadModules(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	s := newSide(t)
	if _, _, err := s.Compile(ctx, s.r, []byte("no module")); err == nil || errors.Is(err, ErrMismatch) {
		t.Errorf("compiling what is no module gave %v", err)
	}
	module, _ := answering(1, 1, "")
	if _, _, err := s.Compile(ctx, s.r, module); err != nil {
		t.Fatal(err)
	}
	if _, code, err := s.Compile(ctx, s.r, module); err == nil || !strings.Contains(err.Error(), "had the module already") {
		t.Errorf("compiling it once more gave %d bytes, %v", len(code), err)
	}
	if m, err := s.Attach(ctx, s.r, []byte("no module"), nil, nil); err == nil || m != nil {
		t.Errorf("attaching to what is no module gave %v", err)
	}
}

// TestManyAtOnce attaches different modules from many goroutines.
func TestManyAtOnce(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	s := newSide(t)
	type pair struct{ stub, code []byte }
	var pairs []pair
	for v := range 4 {
		module, stub := answering(2, v, string(rune('A'+v)))
		pairs = append(pairs, pair{stub, machineCode(t, module)})
	}
	done := make(chan error)
	for g := range 4 {
		go func() {
			for k := range 20 {
				v := (g + k) % len(pairs)
				m, err := s.Attach(ctx, s.r, pairs[v].stub, pairs[v].code, nil)
				if err == nil {
					if got := run(t, s.r, m); got != uint64(v) {
						err = errors.New("the code of another module ran")
					}
					err = errors.Join(err, m.Close(ctx))
				}
				if err != nil {
					done <- err
					return
				}
			}
			done <- nil
		}()
	}
	for range 4 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

package wasi

import (
	"bytes"
	"context"
	"encoding/binary"
	"maps"
	"math"
	"slices"
	"testing"
	"time"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	builtin "github.com/tetratelabs/wazero/imports/wasi_snapshot_preview1"
)

// exited is what the fake guest ends with.
type exited uint32

// fake is a guest whose world the test owns.
type fake struct {
	calls         int
	seen          []Sight
	in, out, logs []byte
	real, mono    int64
	slept         []time.Duration
	args, env     []string
	files         Files
}

func (f *fake) Called() { f.calls++ }
func (f *fake) Observe(_ context.Context, s Sight, _ []uint64, again Function) {
	if again == nil {
		panic("nothing to do again")
	}
	f.seen = append(f.seen, s)
}

func (f *fake) Read(p []byte) int {
	n := copy(p, f.in)
	f.in = f.in[n:]
	return n
}
func (f *fake) Write(p []byte)        { f.out = append(f.out, p...) }
func (f *fake) Log(p []byte)          { f.logs = append(f.logs, p...) }
func (f *fake) Random(p []byte)       { copy(p, bytes.Repeat([]byte("r"), len(p))) }
func (f *fake) Realtime() int64       { return f.real }
func (f *fake) Monotonic() int64      { return f.mono }
func (f *fake) Sleep(d time.Duration) { f.slept = append(f.slept, d) }
func (f *fake) Exit(code uint32)      { panic(exited(code)) }
func (f *fake) Files() *Files         { return &f.files }
func (f *fake) Strings() (args, environ []string) {
	return f.args, f.env
}

// newMemory gives a real memory of one page.
func newMemory(tb testing.TB) api.Memory {
	tb.Helper()
	ctx := context.Background()
	r := wazero.NewRuntimeWithConfig(ctx, wazero.NewRuntimeConfigInterpreter())
	tb.Cleanup(func() { _ = r.Close(ctx) })
	// (module (memory (export "m") 1))
	m, err := r.Instantiate(ctx, []byte("\x00asm\x01\x00\x00\x00\x05\x03\x01\x00\x01\x07\x05\x01\x01m\x02\x00"))
	if err != nil {
		tb.Fatal(err)
	}
	return m.Memory()
}

const memorySize = 1 << 16

func words(v ...uint32) (b []byte) {
	for _, w := range v {
		b = binary.LittleEndian.AppendUint32(b, w)
	}
	return b
}

// call performs a function as a guest would.
func call(g Guest, mem api.Memory, name string, params ...uint64) Errno {
	return functions()[name].do(g, mem, params)
}

// TestSameFunctionsAsTheEngineKnows compares names and types with the engine's own
// preview 1.
func TestSameFunctionsAsTheEngineKnows(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	types := func(link func(wazero.Runtime) error) map[string]string {
		r := wazero.NewRuntimeWithConfig(ctx, wazero.NewRuntimeConfigInterpreter())
		t.Cleanup(func() { _ = r.Close(ctx) })
		if err := link(r); err != nil {
			t.Fatal(err)
		}
		got := map[string]string{}
		for name, d := range r.Module(ModuleName).ExportedFunctionDefinitions() {
			got[name] = string(d.ParamTypes()) + ">" + string(d.ResultTypes())
		}
		return got
	}
	want := types(func(r wazero.Runtime) error { _, err := builtin.Instantiate(ctx, r); return err })
	got := types(func(r wazero.Runtime) error { return Instantiate(ctx, r) })
	if len(want) < 40 || !maps.Equal(got, want) {
		for name := range want {
			if got[name] != want[name] {
				t.Errorf("%s has type %q, want %q", name, got[name], want[name])
			}
		}
		t.Errorf("%d functions, want %d", len(got), len(want))
	}
	for name := range want {
		if !Has(name) {
			t.Errorf("Has does not know %s", name)
		}
	}
	for _, name := range []string{"", "fd_teleport", "FD_READ", "fd_read\x00"} {
		if Has(name) {
			t.Errorf("Has knows %q", name)
		}
	}
}

// outside is what no pointer may be.
var outside = []uint64{memorySize, memorySize - 3, math.MaxUint32, math.MaxUint32 - 7, 1 << 31}

func TestPointersOutsideAreFaults(t *testing.T) {
	t.Parallel()
	mem := newMemory(t)
	for _, at := range outside {
		for name, params := range map[string][]uint64{
			"args_get": {at, 0}, "args_get ": {0, at}, "args_sizes_get": {at, 0}, "args_sizes_get ": {0, at},
			"environ_get": {at, 0}, "environ_get ": {0, at}, "environ_sizes_get": {at, 0}, "environ_sizes_get ": {0, at},
			"clock_res_get": {0, at}, "clock_time_get": {0, 0, at}, "clock_time_get ": {1, 0, at},
			"random_get": {at, 8}, "random_get ": {8, at},
			"fd_read": {0, at, 1, 0}, "fd_read ": {0, 0, 0, at}, "fd_write": {1, at, 1, 0}, "fd_write ": {2, 0, 0, at},
			"fd_fdstat_get": {0, at}, "fd_filestat_get": {1, at},
			"poll_oneoff": {at, 0, 1, 0}, "poll_oneoff ": {0, at, 1, 0}, "poll_oneoff  ": {0, 4096, 1, at},
		} {
			g := &fake{args: []string{"a longer name"}, env: []string{"A=1"}, in: []byte("in")}
			if got := call(g, mem, string(bytes.TrimSpace([]byte(name))), params...); got != Fault {
				t.Errorf("%s%v gave %d, want a fault", name, params, got)
			}
		}
	}
	// Vectors whose pieces lie outside, or wrap.
	for _, v := range [][]byte{
		words(memorySize, 1), words(memorySize-1, 2), words(0, memorySize+1), words(8, math.MaxUint32),
		words(math.MaxUint32, 2), words(math.MaxUint32, math.MaxUint32), words(1<<31, 1<<31),
	} {
		mem.Write(0, append(words(1024, 4), v...))
		for _, name := range []string{"fd_read", "fd_write"} {
			g := &fake{in: []byte("input")}
			fd := map[string]uint64{"fd_read": 0, "fd_write": 1}[name]
			if got := call(g, mem, name, fd, 0, 2, 64); got != Fault {
				t.Errorf("%s with the piece %x gave %d, want a fault", name, v, got)
			}
		}
	}
	// A string that begins inside and ends outside.
	g := &fake{args: []string{"12345678"}}
	for at := uint64(memorySize - 9); at < memorySize+2; at++ {
		want := Fault
		if at == memorySize-9 {
			want = Success
		}
		if got := call(g, mem, "args_get", 0, at); got != want {
			t.Errorf("nine bytes at %d gave %d, want %d", at, got, want)
		}
	}
}

func TestReadAndWrite(t *testing.T) {
	t.Parallel()
	mem := newMemory(t)
	mem.Write(0, words(1000, 4, 2000, 0, 3000, 100))
	g := &fake{in: []byte("hello, world")}
	if got := call(g, mem, "fd_read", 0, 0, 3, 64); got != Success {
		t.Fatal(got)
	}
	a, _ := mem.Read(1000, 5)
	b, _ := mem.Read(3000, 9)
	n, _ := mem.ReadUint32Le(64)
	if string(a) != "hell\x00" || string(b) != "o, world\x00" || n != 12 {
		t.Errorf("read %q and %q, %d bytes", a, b, n)
	}
	if got := call(g, mem, "fd_read", 0, 0, 3, 64); got != Success {
		t.Fatal(got)
	}
	if n, _ := mem.ReadUint32Le(64); n != 0 {
		t.Errorf("at the end there are %d bytes", n)
	}
	mem.Write(0, words(1000, 4, 2000, 0, 3000, 8))
	for fd, to := range map[uint64]*[]byte{1: &g.out, 2: &g.logs} {
		if got := call(g, mem, "fd_write", fd, 0, 3, 64); got != Success {
			t.Fatal(got)
		}
		if n, _ := mem.ReadUint32Le(64); n != 12 || string(*to) != "hello, world" {
			t.Errorf("descriptor %d got %q, %d bytes", fd, *to, n)
		}
	}
	// The list and what is read may overlap: it stays within memory.
	mem.Write(0, words(0, 16, 1<<20, 16))
	g.in = bytes.Repeat([]byte{0xff}, 100)
	if got := call(g, mem, "fd_read", 0, 0, 2, 64); got != Fault && got != Success {
		t.Errorf("reading over the list gave %d", got)
	}
	if got := call(g, mem, "fd_write", 1, 0, maxVectors+1, 64); got != Inval {
		t.Errorf("too long a list gave %d", got)
	}
	for _, n := range []uint64{math.MaxUint32, 1 << 29, 1<<29 + 1} { // times 8 they wrap
		if got := call(g, mem, "fd_write", 1, 0, n, 64); got != Inval {
			t.Errorf("a list of %d gave %d", n, got)
		}
	}
}

func TestDescriptors(t *testing.T) {
	t.Parallel()
	mem := newMemory(t)
	uses := map[string]func(fd uint64) []uint64{
		"fd_fdstat_get": func(fd uint64) []uint64 { return []uint64{fd, 512} }, "fd_fdstat_set_flags": func(fd uint64) []uint64 { return []uint64{fd, 4} },
		"fd_filestat_get": func(fd uint64) []uint64 { return []uint64{fd, 512} },
	}
	g := &fake{}
	for fd := range uint64(3) {
		for name, params := range uses {
			if got := call(g, mem, name, params(fd)...); got != Success {
				t.Errorf("%s(%d) gave %d", name, fd, got)
			}
		}
		for _, name := range []string{"fd_seek", "fd_tell", "fd_pread", "fd_pwrite"} {
			if got := call(g, mem, name, fd, 0, 0, 0, 0); got != Spipe {
				t.Errorf("%s(%d) gave %d", name, fd, got)
			}
		}
	}
	for _, fd := range []uint64{3, 4, 5, math.MaxUint32} { // while the others are open
		if call(g, mem, "fd_filestat_get", fd, 512) != Badf || call(g, mem, "fd_close", fd) != Badf || call(g, mem, "fd_write", fd, 0, 0, 64) != Badf {
			t.Errorf("descriptor %d is open", fd)
		}
	}
	// What may be done, as rights: reading the first, writing the others, waiting for all.
	for fd, want := range map[uint64]uint64{0: 1<<1 | 1<<27, 1: 1<<6 | 1<<27, 2: 1<<6 | 1<<27} {
		call(g, mem, "fd_fdstat_get", fd, 512)
		kind, _ := mem.ReadByte(512)
		if rights, _ := mem.ReadUint64Le(520); rights != want || kind != 0 {
			t.Errorf("descriptor %d is of kind %d with the rights %#x", fd, kind, rights)
		}
	}
	mem.Write(0, words(1000, 4))
	if call(g, mem, "fd_write", 0, 0, 1, 64) != Badf || call(g, mem, "fd_read", 1, 0, 1, 64) != Badf || call(g, mem, "fd_read", 2, 0, 1, 64) != Badf {
		t.Error("a descriptor works in the wrong direction")
	}
	for fd := range uint64(3) {
		if call(g, mem, "fd_close", fd) != Success || call(g, mem, "fd_close", fd) != Badf {
			t.Errorf("descriptor %d cannot be closed once", fd)
		}
	}
	all := []uint64{0, 1, 2, 3, 4, 100, math.MaxUint32, 1 << 31}
	for _, fd := range all { // closed, or never open
		for name, params := range uses {
			if got := call(g, mem, name, params(fd)...); got != Badf {
				t.Errorf("%s(%d) gave %d", name, fd, got)
			}
		}
		for _, name := range []string{"fd_read", "fd_write", "fd_close", "fd_seek", "fd_tell", "fd_pread", "fd_pwrite"} {
			if got := call(g, mem, name, fd, 0, 1, 64, 64); got != Badf {
				t.Errorf("%s(%d) gave %d", name, fd, got)
			}
		}
	}
	if len(g.out)+len(g.logs) > 0 {
		t.Errorf("closed descriptors took %q %q", g.out, g.logs)
	}
	// The upper half of a parameter is not the guest's.
	if call(&fake{}, mem, "fd_close", 1<<32|1) != Success {
		t.Error("the upper half of an i32 matters")
	}
}

// TestNothingElseExists calls all that would reach files or sockets, with every
// descriptor and with pointers to a path.
func TestNothingElseExists(t *testing.T) {
	t.Parallel()
	mem := newMemory(t)
	mem.Write(100, []byte("/etc/passwd"))
	known := []string{
		"args_get", "args_sizes_get", "environ_get", "environ_sizes_get", "clock_res_get", "clock_time_get", "random_get", "poll_oneoff",
		"sched_yield", "proc_raise", "fd_read", "fd_write", "fd_close", "fd_fdstat_get", "fd_fdstat_set_flags", "fd_filestat_get",
		"fd_seek", "fd_tell", "fd_pread", "fd_pwrite",
	}
	tried := 0
	for name, f := range functions() {
		if slices.Contains(known, name) {
			continue
		}
		tried++
		for _, fd := range []uint64{0, 1, 2, 3, 4, 1 << 20, math.MaxUint32} {
			params := []uint64{fd, 0, 100, 11, 0, math.MaxUint64, math.MaxUint64, 0, 64}[:len(f.params)]
			g := &fake{}
			before, _ := mem.Read(0, memorySize)
			kept := bytes.Clone(before)
			if got := f.do(g, mem, params); got != Badf {
				t.Errorf("%s(%d) gave %d", name, fd, got)
			}
			if !bytes.Equal(kept, before) {
				t.Errorf("%s(%d) wrote to memory", name, fd)
			}
		}
	}
	if tried != len(functions())-len(known) || tried < 20 {
		t.Errorf("%d functions were tried", tried)
	}
	if got := call(&fake{}, mem, "proc_raise", 9); got != Notsup {
		t.Errorf("raising a signal gave %d", got)
	}
	if got := call(&fake{}, mem, "sched_yield"); got != Success {
		t.Errorf("yielding gave %d", got)
	}
}

func TestStrings(t *testing.T) {
	t.Parallel()
	mem := newMemory(t)
	g := &fake{args: []string{"guest", ""}, env: []string{"A=1", "B=été"}}
	for name, want := range map[string]string{"args": "guest\x00\x00", "environ": "A=1\x00B=été\x00"} {
		if call(g, mem, name+"_sizes_get", 0, 4) != Success || call(g, mem, name+"_get", 100, 200) != Success {
			t.Fatal(name)
		}
		n, _ := mem.ReadUint32Le(0)
		size, _ := mem.ReadUint32Le(4)
		text, _ := mem.Read(200, size)
		second, _ := mem.ReadUint32Le(104)
		if n != 2 || string(text) != want || second != 200+uint32(bytes.IndexByte(text, 0))+1 {
			t.Errorf("%s: %d strings, %q, the second at %d", name, n, text, second)
		}
	}
}

func TestClocksAndEntropy(t *testing.T) {
	t.Parallel()
	mem := newMemory(t)
	g := &fake{real: 1_700_000_000_123_456_789, mono: 42}
	for id, want := range map[uint64]uint64{0: uint64(g.real), 1: 42} {
		if call(g, mem, "clock_time_get", id, 1, 8) != Success || call(g, mem, "clock_res_get", id, 16) != Success {
			t.Fatal(id)
		}
		now, _ := mem.ReadUint64Le(8)
		res, _ := mem.ReadUint64Le(16)
		if now != want || res != resolution {
			t.Errorf("clock %d is %d with a resolution of %d", id, now, res)
		}
	}
	for _, id := range []uint64{2, 3, 4, math.MaxUint32} { // those of processes and threads, and none
		if call(g, mem, "clock_time_get", id, 1, 8) != Inval || call(g, mem, "clock_res_get", id, 16) != Inval {
			t.Errorf("there is a clock %d", id)
		}
	}
	if call(g, mem, "random_get", 100, 3) != Success || call(g, mem, "random_get", memorySize, 0) != Success {
		t.Error("no entropy")
	}
	if b, _ := mem.Read(99, 5); string(b) != "\x00rrr\x00" {
		t.Errorf("entropy went to %q", b)
	}
}

// TestSights sees which calls are told of before they happen, and with what.
func TestSights(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	r := wazero.NewRuntimeWithConfig(ctx, wazero.NewRuntimeConfigInterpreter())
	t.Cleanup(func() { _ = r.Close(ctx) })
	if err := Instantiate(ctx, r); err != nil {
		t.Fatal(err)
	}
	mem := newMemory(t)
	module := withMemory{mem: mem}
	want := map[string]map[uint64]Sight{
		"fd_read": {0: Input}, "fd_write": {1: Output}, "random_get": {0: Entropy}, "poll_oneoff": {0: Waiting},
		"clock_time_get": {0: Realtime, 1: Monotonic},
	}
	for name, f := range functions() {
		for first := range uint64(3) {
			g := &fake{}
			f.host()(NewContext(ctx, g), module, []uint64{first, 0, 0, 64, 0, 0, 0, 0, 0})
			sight, some := want[name][first]
			if name == "random_get" || name == "poll_oneoff" {
				sight, some = want[name][0], true
			}
			if name == "clock_time_get" && first == 2 {
				sight, some = Monotonic, true // before it is found not to exist
			}
			if g.calls != 1 || some != (len(g.seen) == 1) || some && g.seen[0] != sight {
				t.Errorf("%s(%d): %d calls told, sights %v", name, first, g.calls, g.seen)
			}
		}
	}
}

// withMemory is a module of which only the memory is asked for.
type withMemory struct {
	api.Module
	mem api.Memory
}

func (m withMemory) Memory() api.Memory { return m.mem }

func TestContext(t *testing.T) {
	t.Parallel()
	type key struct{}
	g := &fake{}
	ctx := NewContext(context.WithValue(context.Background(), key{}, "outer"), g)
	if From(ctx) != g || ctx.Value(key{}) != "outer" || From(context.Background()) != nil {
		t.Error("the context does not carry its guest")
	}
}

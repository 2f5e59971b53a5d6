package goseed

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/imports/wasi_snapshot_preview1"
)

// guest compiles testdata/guest, once.
var guest = sync.OnceValues(func() ([]byte, error) {
	dir, err := os.MkdirTemp("", "goseed")
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	out := filepath.Join(dir, "guest.wasm")
	cmd := exec.Command("go", "build", "-C", filepath.Join("testdata", "guest"), "-buildmode=c-shared", "-o", out, ".")
	cmd.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm")
	if said, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("building the guest: %v: %s", err, said)
	}
	return os.ReadFile(out)
})

// constant gives the same entropy whenever it is asked.
type constant [SeedSize]byte

func (c constant) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = c[i%SeedSize]
	}
	return len(p), nil
}

func freshOf(b byte) (f [FreshSize]byte) {
	_, _ = rand.NewChaCha8(seedOf(b)).Read(f[:]) // it never fails
	return f
}

func seedOf(n byte) (s [SeedSize]byte) {
	for i := range s {
		s[i] = n + byte(i)*3
	}
	return s
}

// start runs the guest's initialisation, in which it draws n numbers, and gives its
// memory and what it prints in turns.
func start(t *testing.T, r wazero.Runtime, m wazero.CompiledModule, entropy [SeedSize]byte, n int) (memory []byte, turn func() string) {
	t.Helper()
	ctx := context.Background()
	var out bytes.Buffer
	mod, err := r.InstantiateModule(ctx, m, wazero.NewModuleConfig().WithName("").WithStartFunctions("_initialize").
		WithEnv("DRAW", fmt.Sprint(n)).WithRandSource(constant(entropy)).WithStdout(&out).WithStderr(os.Stderr))
	if err != nil {
		t.Fatal(err)
	}
	size := mod.Memory().Size()
	memory, _ = mod.Memory().Read(0, size)
	return memory, func() string {
		out.Reset()
		if _, err := mod.ExportedFunction("turn").Call(ctx); err != nil {
			t.Fatal(err)
		}
		if mod.Memory().Size() != size {
			t.Fatal("the guest's memory grew and has moved")
		}
		return out.String()
	}
}

func newGuest(t *testing.T) (wazero.Runtime, wazero.CompiledModule) {
	t.Helper()
	if testing.Short() {
		t.Skip("compiling guests takes seconds")
	}
	code, err := guest()
	if err != nil {
		t.Fatal(err)
	}
	ctx := context.Background()
	r := wazero.NewRuntime(ctx)
	t.Cleanup(func() { _ = r.Close(ctx) })
	wasi_snapshot_preview1.MustInstantiate(ctx, r)
	m, err := r.CompileModule(ctx, code)
	if err != nil {
		t.Fatal(err)
	}
	return r, m
}

// TestRefreshedGuestDrawsAnew begins with one image again and again: what Go's
// runtime draws is the same unless it is refreshed, and then never.
func TestRefreshedGuestDrawsAnew(t *testing.T) {
	t.Parallel()
	r, m := newGuest(t)
	// How often the generator has seeded itself by then: never to some forty times.
	for _, drawn := range []int{0, 1, 100, 130, 3000, 5000} {
		entropy := seedOf(byte(drawn))
		memory, turn := start(t, r, m, entropy, drawn)
		s, ok := Find(memory, entropy)
		if !ok {
			t.Fatalf("after %d numbers the generator is not found", drawn)
		}
		image := bytes.Clone(memory)
		seen := map[string]map[string]bool{}
		const turns = 6
		for k := range turns {
			copy(memory, image)
			s.Refresh(memory, freshOf(byte(100+k)))
			for line := range strings.Lines(turn()) {
				kind, value, _ := strings.Cut(strings.TrimSpace(line), ": ")
				if seen[kind] == nil {
					seen[kind] = map[string]bool{}
				}
				seen[kind][value] = true
			}
		}
		if len(seen) != 4 {
			t.Fatalf("the guest prints %v", seen)
		}
		for kind, values := range seen {
			least := turns
			if strings.HasSuffix(kind, "order") { // there are not many orders
				least = 3
			}
			if len(values) < least {
				t.Errorf("after %d numbers, %s is only %d different things in %d turns", drawn, kind, len(values), turns)
			}
		}
		// The check of the check: without, all is the same.
		copy(memory, image)
		first := turn()
		copy(memory, image)
		if turn() != first {
			t.Errorf("after %d numbers, the guest draws anew without being refreshed: this test shows nothing", drawn)
		}
		// The same entropy gives the same again, so nothing else is left to chance.
		copy(memory, image)
		s.Refresh(memory, freshOf(9))
		first = turn()
		copy(memory, image)
		s.Refresh(memory, freshOf(9))
		if turn() != first {
			t.Errorf("after %d numbers, the guest draws from something else too", drawn)
		}
	}
}

func TestNotFound(t *testing.T) {
	t.Parallel()
	r, m := newGuest(t)
	entropy := seedOf(1)
	memory, _ := start(t, r, m, entropy, 0)
	if s, ok := Find(memory, seedOf(2)); ok {
		t.Errorf("with another entropy it is found at %d", s.at)
	}
	s, ok := Find(memory, entropy)
	if !ok {
		t.Fatal("it is not there")
	}
	spoil := func(name string, at uint64, value uint32) {
		b := bytes.Clone(memory)
		binary.LittleEndian.PutUint32(b[s.at+at:], value)
		if other, ok := Find(b, entropy); ok && other == s {
			t.Errorf("with %s it is still found", name)
		}
	}
	spoil("another second word of the seed", offSeed+8, 7)
	spoil("more numbers used than there are", offNext, numbers+1)
	spoil("another size of block", offHave, 16)
	spoil("an odd count", offCount, 3)
	spoil("a large count", offCount, lastCount+4)
	// Without the smaller generator in its place, nothing is written there.
	b := bytes.Clone(memory)
	binary.LittleEndian.PutUint64(b[s.at+offCheap:], 1)
	if other, ok := Find(b, entropy); !ok || other.cheap || !s.cheap {
		t.Errorf("without the smaller generator it finds %+v, %v", other, ok)
	} else if other.Refresh(b, freshOf(3)); binary.LittleEndian.Uint64(b[s.at+offCheap:]) != 1 {
		t.Error("something was written that is no generator")
	}
	// Two that could be it: neither is taken for the one.
	twice := append(bytes.Clone(memory), memory[s.at:s.at+stateSize]...)
	if _, ok := Find(twice, entropy); ok {
		t.Error("of two that are alike one is chosen")
	}
	for _, n := range []int{0, 1, offSeed, stateSize - 1, stateSize} {
		if _, ok := Find(make([]byte, n), entropy); ok {
			t.Errorf("it is found in %d zeroes", n)
		}
	}
}

// TestSuccessor compares with the generator itself: the numbers after a reseeding are
// those of one that begins with the successor.
func TestSuccessor(t *testing.T) {
	t.Parallel()
	for n := range byte(5) {
		var seed [seedWords]uint64
		entropy := seedOf(n)
		for i := range seed {
			seed[i] = binary.LittleEndian.Uint64(entropy[8*i:])
		}
		g := rand.NewChaCha8(entropy)
		for range 4*numbers - seedWords {
			g.Uint64()
		}
		for generation := range 3 {
			seed = successor(seed)
			fresh := rand.NewChaCha8(bytesOf(seed))
			for k := range 4*numbers - seedWords {
				if g.Uint64() != fresh.Uint64() {
					t.Fatalf("generation %d: number %d differs", generation, k)
				}
			}
		}
	}
}

// FuzzFind puts what Find looks for into whatever memory there is; Refresh must stay
// within what was found.
func FuzzFind(f *testing.F) {
	entropy := seedOf(0)
	stream := rand.NewChaCha8(entropy)
	var seed []byte
	for range seedWords {
		seed = binary.LittleEndian.AppendUint64(seed, stream.Uint64())
	}
	f.Add(make([]byte, 1000), uint16(400), uint32(3), uint32(numbers), uint32(4))
	f.Add(make([]byte, stateSize), uint16(offSeed), uint32(0), uint32(numbers-seedWords), uint32(lastCount))
	f.Fuzz(func(t *testing.T, memory []byte, at uint16, next, have, count uint32) {
		at &^= 7
		if int(at)+offCount-offSeed+4 <= len(memory) {
			copy(memory[at:], seed)
			for k, v := range []uint32{next, have, count} {
				binary.LittleEndian.PutUint32(memory[int(at)+offNext-offSeed+4*k:], v)
			}
		}
		before := bytes.Clone(memory)
		s, ok := Find(memory, entropy)
		if !bytes.Equal(before, memory) {
			t.Error("looking has changed the memory")
		}
		if !ok {
			return
		}
		if s.at+stateSize > uint64(len(memory)) || next > have || have > numbers || count > lastCount {
			t.Errorf("found at %d of %d with %d of %d, %d", s.at, len(memory), next, have, count)
		}
		s.Refresh(memory, freshOf(1))
		for i := range memory {
			if inside := uint64(i) >= s.at && uint64(i) < s.at+offCheap+8; !inside && memory[i] != before[i] {
				t.Errorf("byte %d was changed, outside the generator at %d", i, s.at)
			}
		}
	})
}

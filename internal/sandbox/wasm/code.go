package wasm

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/experimental"

	"github.com/casemate-dev/casemate/internal/function"
	"github.com/casemate-dev/casemate/internal/sandbox/wasm/memory"
	"github.com/casemate-dev/casemate/internal/sandbox/wasm/native"
	"github.com/casemate-dev/casemate/internal/sandbox/wasm/rewrite"
	"github.com/casemate-dev/casemate/internal/sandbox/wire"
)

// code is a module in the form in which it is kept between compiling and running:
// a stub without function bodies, the machine code of the bodies, and the data that
// memory begins with. It is executed as it is, so whoever keeps it sees to it that
// nobody changes it.
type code struct {
	facts
	stub, native, data []byte
}

// facts is what was learned of a module before it was compiled.
type facts struct {
	ID         string           `json:"id"`       // CodeID when it was made
	Artifact   function.Digest  `json:"artifact"` // what it was made from
	Imports    []rewrite.Import `json:"imports"`
	Exports    []rewrite.Export `json:"exports"`
	HasMemory  bool             `json:"memory"`
	MemoryMin  uint32           `json:"memoryMin"` // in pages
	Globals    int              `json:"globals"`
	HasStart   bool             `json:"start"`
	Restorable string           `json:"restorable"` // why its instances cannot be used again, "" when they can
	Go         bool             `json:"go"`         // made by Go's own compiler

	Stub   int `json:"stub"` // sizes of what follows, in bytes
	Native int `json:"native"`
	Data   int `json:"data"`
}

// codeMagic begins the encoded form and names it. A change of the form, of the
// rewriter or of what it means for the engine makes it another.
const codeMagic = "casemate.code/2\n"

// features is what modules may use: core WebAssembly 2.0.
const features = api.CoreFeaturesV2

// newRuntime gives a runtime whose machine code comes and goes through the cache.
func newRuntime(cache *native.Cache) wazero.Runtime {
	// The guest's own limit is held by its memory, which notices a refusal; this
	// one is the engine's, below the size at which 32-bit offsets wrap.
	return wazero.NewRuntimeWithConfig(context.Background(), wazero.NewRuntimeConfig().
		WithCompilationCache(cache.Engine()).
		WithMemoryLimitPages(1<<16-1).
		WithDebugInfoEnabled(false).
		WithCoreFeatures(features))
}

// compile checks, rewrites and compiles a module, and gives its encoded form. It may
// take seconds and much memory.
func compile(module []byte, digest function.Digest) ([]byte, *failure) {
	if got := function.DigestOf(module); got != digest {
		return nil, tampered(digest, got)
	}
	out, err := rewrite.Module(module)
	if err != nil {
		return nil, badModule("%v", err)
	}
	if f := checkImports(out.Imports); f != nil {
		return nil, f
	}
	if err := checkSegments(out); err != nil {
		return nil, badModule("%v", err)
	}
	cache, err := native.New()
	if err != nil {
		return nil, unavailable(err)
	}
	ctx := context.Background()
	r := newRuntime(cache)
	defer func() { _ = r.Close(ctx) }()
	// A Go module has thousands of functions; who has just saved a file waits.
	ctx = experimental.WithCompilationWorkers(ctx, runtime.NumCPU())
	_, machine, err := cache.Compile(ctx, r, out.Module)
	if err != nil {
		return nil, badModule("the module is not valid: %v", wire.Cut(err.Error(), 512))
	}
	c := code{stub: out.Stub, native: machine, data: packSegments(joined(out.Segments)), facts: facts{
		ID: CodeID(), Artifact: digest, Imports: out.Imports, Exports: out.Exports,
		HasMemory: out.HasMemory, MemoryMin: out.MemoryMin, Globals: out.Globals, HasStart: out.HasStart,
		Go: madeByGo(module),
	}}
	if err := out.Restorable(); err != nil {
		c.Restorable = err.Error()
	}
	b, err := c.encode()
	if err != nil {
		return nil, unavailable(err)
	}
	return b, nil
}

// checkSegments makes sure that the data lies within the memory, as instantiating
// the module would.
func checkSegments(out *rewrite.Output) error {
	size := uint64(out.MemoryMin) * pageSize
	for i, s := range out.Segments {
		if end := uint64(s.Offset) + uint64(len(s.Data)); end > size {
			return fmt.Errorf("the module's data segment %d ends at %d, outside its memory of %d bytes", i, end, size)
		}
	}
	return nil
}

// joinBelow is how many zeroes between two segments are kept, in bytes, rather than
// beginning another: Go's linker leaves out eight, which makes tens of thousands.
const joinBelow = 256

// joined gives fewer segments that make the same memory: those become one that follow
// each other closely. Where segments overlap, all stay as they are.
func joined(segments []rewrite.Segment) []rewrite.Segment {
	var all []rewrite.Segment
	end := uint64(0)
	sorted := slices.SortedFunc(slices.Values(segments), func(a, b rewrite.Segment) int { return cmp.Compare(a.Offset, b.Offset) })
	for _, s := range sorted {
		at := uint64(s.Offset)
		if at < end {
			return segments
		}
		last := len(all) - 1
		if last >= 0 && at-end < joinBelow {
			all[last].Data = append(append(all[last].Data, make([]byte, at-end)...), s.Data...)
		} else {
			// Not the module's own bytes: others are appended.
			all = append(all, rewrite.Segment{Offset: s.Offset, Data: bytes.Clone(s.Data)})
		}
		end = at + uint64(len(s.Data))
	}
	return all
}

// packSegments encodes segments: offset and length of 32 bits each, then the bytes.
func packSegments(segments []rewrite.Segment) []byte {
	n := 0
	for _, s := range segments {
		n += 8 + len(s.Data)
	}
	b := make([]byte, 0, n)
	for _, s := range segments {
		b = binary.LittleEndian.AppendUint32(b, s.Offset)
		b = binary.LittleEndian.AppendUint32(b, uint32(len(s.Data)))
		b = append(b, s.Data...)
	}
	return b
}

// errCode means that an encoded form is damaged, or of another release.
var errCode = errors.New("the compiled code is damaged or of another release")

// layOut says what the memory holds that an instance begins with, besides zeroes. The
// pieces share memory with the code.
func (c *code) layOut() (size uint64, pieces []memory.Piece, err error) {
	if !c.HasMemory {
		return 0, nil, nil
	}
	size = uint64(c.MemoryMin) * pageSize
	for b := c.data; len(b) > 0; {
		if len(b) < 8 {
			return 0, nil, errCode
		}
		at, n := binary.LittleEndian.Uint32(b), binary.LittleEndian.Uint32(b[4:])
		b = b[8:]
		if uint64(n) > uint64(len(b)) || uint64(at)+uint64(n) > size {
			return 0, nil, errCode
		}
		pieces = append(pieces, memory.Piece{Offset: uint64(at), Data: b[:n]})
		b = b[n:]
	}
	return size, pieces, nil
}

func (c *code) encode() ([]byte, error) {
	c.Stub, c.Native, c.Data = len(c.stub), len(c.native), len(c.data)
	head, err := json.Marshal(&c.facts)
	if err != nil {
		return nil, fmt.Errorf("encoding code: %v", err)
	}
	// The machine code shall begin a page, so that it can be mapped where it is.
	size, pad := len(codeMagic)+8+len(head)+c.Stub, 0
	if at, _, ok := native.MachineCode(c.native); ok {
		page := os.Getpagesize()
		pad = (page - (size+at)%page) % page
	}
	b := make([]byte, 0, size+pad+c.Native+c.Data)
	b = append(b, codeMagic...)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(head)))
	b = binary.LittleEndian.AppendUint32(b, uint32(pad))
	b = append(b, head...)
	b = append(b, c.stub...)
	b = append(b, make([]byte, pad)...)
	b = append(b, c.native...)
	return append(b, c.data...), nil
}

// decodeCode reads an encoded form. The result shares memory with b.
func decodeCode(b []byte) (*code, error) {
	if len(b) < len(codeMagic)+8 || string(b[:len(codeMagic)]) != codeMagic {
		return nil, errCode
	}
	b = b[len(codeMagic):]
	n, pad := binary.LittleEndian.Uint32(b), binary.LittleEndian.Uint32(b[4:])
	b = b[8:]
	if uint64(n) > uint64(len(b)) {
		return nil, errCode
	}
	c := &code{}
	if err := json.Unmarshal(b[:n], &c.facts); err != nil {
		return nil, errCode
	}
	b = b[n:]
	var padding []byte
	for _, part := range []struct {
		to   *[]byte
		size int
	}{{&c.stub, c.Stub}, {&padding, int(pad)}, {&c.native, c.Native}, {&c.data, c.Data}} {
		if part.size < 0 || part.size > len(b) {
			return nil, errCode
		}
		*part.to, b = b[:part.size:part.size], b[part.size:]
	}
	if len(b) > 0 || c.ID != CodeID() || c.Globals < 0 || c.MemoryMin > 1<<16 {
		return nil, errCode
	}
	return c, nil
}

// goBuildID is the custom section that Go's linker writes into each module.
const goBuildID = "go:buildid"

// madeByGo reports whether Go's own compiler made the module. A wrong answer costs
// speed, never state: see boot.
func madeByGo(module []byte) bool {
	const header = 8
	for b := module[min(header, len(module)):]; len(b) > 0; {
		id := b[0]
		size, n := binary.Uvarint(b[1:])
		if n <= 0 || size > uint64(len(b)-1-n) {
			return false
		}
		body := b[1+n:][:size]
		if id != 0 {
			return false // Go writes it first
		}
		length, n2 := binary.Uvarint(body)
		if n2 > 0 && length <= uint64(len(body)-n2) && string(body[n2:][:length]) == goBuildID {
			return true
		}
		b = b[1+n:][size:]
	}
	return false
}

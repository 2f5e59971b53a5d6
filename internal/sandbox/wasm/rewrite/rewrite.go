package rewrite

import (
	"fmt"
	"strconv"
)

// Names that a rewritten module has besides its own.
const (
	// ImportModule and ImportName name the imported function, of type () -> ().
	ImportModule = "casemate_fuel"
	ImportName   = "tick"
	// GlobalExport names the exported mutable i64 global that holds what is left.
	GlobalExport = "casemate_fuel"
	// MemoryExport names the module's memory, when it defines one itself.
	MemoryExport = "casemate_memory"
	// StartExport names the function which the module would have run at its start,
	// of type () -> (), when it has one.
	StartExport = "casemate_start"
	// Reserved begins all these names, and no name that a module exports itself.
	Reserved = "casemate_"

	globalPrefix = Reserved + "global_"
)

// GlobalName is the name under which a module's mutable global is exported: the
// i-th, from 0, of those of type i32, i64, f32 or f64 which it defines itself.
func GlobalName(i int) string { return globalPrefix + strconv.Itoa(i) }

// Bounds on what a module may ask for. The engine's decoder allocates what a
// module announces, so they are checked before it sees the module.
const (
	// MaxTableElements bounds the elements of all the module's own tables taken
	// together, now and after growing: tables lie outside linear memory, so no
	// other limit would see them (8 bytes each).
	MaxTableElements = 1 << 20
	// MaxLocals bounds the locals of one function, as browsers do.
	MaxLocals = 50_000
	// MaxVariables bounds the mutable numeric globals that a module defines: each is
	// exported, and put back after each use. Compilers make fewer than ten.
	MaxVariables = 5_000
	// The other bounds are those that browsers keep to, or near them.
	maxTypes     = 100_000
	maxImports   = 100_000
	maxExports   = 100_000
	maxFunctions = 1_000_000
	maxParams    = 1_000 // and as many results
	maxLoopDepth = 10_000
	// maxMemoryPages is 4 GiB, the most that 32-bit addresses reach.
	maxMemoryPages = 1 << 16
	// maxWeight bounds one payment; it is what fits into four bytes of LEB128.
	maxWeight = 1<<27 - 1
	// maxGrowth times the input's size plus outputSlack bounds the output.
	// Compilers' output grows by a fifth; only a module of empty loops meets this.
	maxGrowth   = 4
	outputSlack = 64 << 10
)

// Output is a rewritten module. The package comment tells how to make an instance
// of it, and what the stub is for.
type Output struct {
	// Module is to be compiled.
	Module []byte
	// Stub differs from Module in nothing but its functions' bodies, each of which
	// is a single unreachable, and a custom section at the end.
	Stub []byte
	// Segments is the active data, to be copied into zeroed memory before anything
	// runs, or nil when all of it stays in the module: when a segment's offset is not
	// an i32 constant, or the memory is imported. Whether they fit is not checked.
	Segments []Segment
	// Globals is the number of GlobalName exports.
	Globals int
	Facts
}

// Segment is a piece of a memory's initial contents. Data aliases the input.
type Segment struct {
	Offset uint32 // in bytes
	Data   []byte
}

// Facts is what was learned of a module on the way. Names added by Module are not
// among them. Slices of equal signatures may share memory: do not change them.
type Facts struct {
	Imports []Import
	Exports []Export

	Functions int // with a body, imports not counted
	Loops     int
	HasStart  bool

	// MutatesTable is set when the code holds table.set, fill, copy, init or grow;
	// DropsData and DropsElements when it holds data.drop or elem.drop;
	// GrowsMemory when it holds memory.grow.
	MutatesTable, DropsData, DropsElements, GrowsMemory bool
	// MutableVector and MutableReference are set when the module defines a mutable
	// global of such a type, whose value a host cannot read and write.
	MutableVector, MutableReference bool

	// The module's memory, its own or imported, in pages of 64 KiB. MemoryMax is
	// zero unless HasMemoryMax.
	HasMemory, HasMemoryMax bool
	MemoryMin, MemoryMax    uint32

	DataSegments int // of the input
}

// Kind is what an import or export is; the values are those of the binary format.
type Kind byte

// The kinds.
const (
	KindFunc Kind = iota
	KindTable
	KindMemory
	KindGlobal
)

// String gives the name of the text format.
func (k Kind) String() string {
	switch k {
	case KindFunc:
		return "func"
	case KindTable:
		return "table"
	case KindMemory:
		return "memory"
	case KindGlobal:
		return "global"
	}
	return fmt.Sprintf("kind %d", byte(k))
}

// Import is one import. Signature is set for functions.
type Import struct {
	Module, Name string
	Kind         Kind
	Signature    Signature
}

// Export is one export. Signature is set for functions.
type Export struct {
	Name      string
	Kind      Kind
	Signature Signature
}

// ModuleError says why a module was refused and at which byte. The reason is made
// for whoever built the module and may be shown.
type ModuleError struct {
	Offset int
	Reason string
}

// Error implements error.
func (e *ModuleError) Error() string {
	return fmt.Sprintf("module refused at byte %#x: %s", e.Offset, e.Reason)
}

// Module rewrites a module. The error is a *ModuleError, and the output nil then.
// The input is not changed, whatever it is; memory used is bounded by a small
// multiple of its length.
func Module(code []byte) (*Output, error) {
	w := &rewriter{reader: reader{buf: code, end: len(code)}}
	w.limit = maxGrowth*len(code) + outputSlack
	w.out = make([]byte, 0, len(code)+len(code)/3+128)
	w.module()
	if w.err != nil {
		return nil, w.err
	}
	return &Output{
		Module: w.out, Stub: w.stub(), Segments: w.segments, Globals: len(w.variables), Facts: w.facts,
	}, nil
}

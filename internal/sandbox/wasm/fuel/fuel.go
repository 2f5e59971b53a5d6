package fuel

import "fmt"

// Names that an instrumented module has besides its own.
const (
	// ImportModule and ImportName name the imported function, of type () -> ().
	ImportModule = "casemate_fuel"
	ImportName   = "tick"
	// GlobalExport names the exported mutable i64 global that holds what is left.
	GlobalExport = "casemate_fuel"
)

// Bounds on what a module may ask for. The engine's decoder allocates what a
// module announces, so they are checked before it sees the module.
const (
	// MaxTableElements bounds the elements of all the module's own tables taken
	// together, now and after growing: tables lie outside linear memory, so no
	// other limit would see them (8 bytes each).
	MaxTableElements = 1 << 20
	// MaxLocals bounds the locals of one function, as browsers do.
	MaxLocals = 50_000
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

// Facts is what was learned of a module on the way. Names added by Instrument are
// not among them. Slices of equal signatures may share memory: do not change them.
type Facts struct {
	Imports []Import
	Exports []Export

	Functions int // with a body, imports not counted
	Loops     int
	HasStart  bool

	// MutatesTable is set when the code holds table.set, fill, copy, init or grow;
	// DropsData and DropsElements when it holds data.drop or elem.drop;
	// GrowsMemory when it holds memory.grow. An instance of a module without the
	// first three changes nothing but memory and globals.
	MutatesTable, DropsData, DropsElements, GrowsMemory bool

	// The module's memory, its own or imported, in pages of 64 KiB. MemoryMax is
	// zero unless HasMemoryMax.
	HasMemory, HasMemoryMax bool
	MemoryMin, MemoryMax    uint32

	DataSegments int
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

// Instrument returns a copy of the module which pays fuel, and what it learned of
// the module. The error is a *ModuleError. The input is not changed, whatever it
// is; memory used is bounded by a small multiple of its length.
func Instrument(module []byte) ([]byte, Facts, error) {
	w := &rewriter{reader: reader{buf: module, end: len(module)}}
	w.limit = maxGrowth*len(module) + outputSlack
	w.out = make([]byte, 0, len(module)+len(module)/3+128)
	w.module()
	if w.err != nil {
		return nil, Facts{}, w.err
	}
	return w.out, w.facts, nil
}

package fuel

func (w *rewriter) typeSection() {
	n := w.countUpTo(maxTypes, 3, "types")
	w.vector(n + 1)
	start := w.pos
	w.types = make([]Signature, 0, n)
	// One backing array for all signatures; a value type is a byte.
	all := make([]ValueType, 0, w.end-w.pos)
	list := func() []ValueType {
		from := len(all)
		for range w.countUpTo(maxParams, 1, "parameters or results in one type") {
			all = append(all, w.valueType())
		}
		return all[from:len(all):len(all)]
	}
	for range n {
		at := w.pos
		switch form := w.byte(); form {
		case 0x60:
		case 0x4e, 0x4f, 0x50, 0x5e, 0x5f:
			w.unsupported(at, "garbage collection")
			return
		default:
			w.fail(at, "%#x is no function type", form)
			return
		}
		params := list()
		w.types = append(w.types, Signature{Params: params, Results: list()})
	}
	w.copyFrom(start)
	w.addType()
}

func (w *rewriter) importSection() {
	n := w.countUpTo(maxImports, 4, "imports")
	w.vector(n + 1)
	start := w.pos
	w.facts.Imports = make([]Import, 0, n)
	for range n {
		at := w.pos
		imp := Import{Module: string(w.name()), Name: string(w.name())}
		if imp.Module == ImportModule {
			w.fail(at, "it imports from %q, which is the platform's own", ImportModule)
			return
		}
		kindAt := w.pos
		imp.Kind = Kind(w.byte())
		switch imp.Kind {
		case KindFunc:
			t := w.index(len(w.types), "type")
			if w.err == nil {
				imp.Signature = w.types[t]
			}
			w.funcTypes = append(w.funcTypes, t)
			w.importedFuncs++
		case KindTable:
			w.refType()
			w.limits()
			w.tables++
		case KindMemory:
			w.memory()
		case KindGlobal:
			w.globalType()
			w.globals++
		case 4:
			w.unsupported(kindAt, "exception handling")
		default:
			w.fail(kindAt, "%d is no kind of import", imp.Kind)
		}
		w.facts.Imports = append(w.facts.Imports, imp)
	}
	w.copyFrom(start)
	w.addImport()
}

func (w *rewriter) functionSection() {
	start := w.pos
	for range w.countUpTo(maxFunctions, 1, "functions") {
		w.funcTypes = append(w.funcTypes, w.index(len(w.types), "type"))
	}
	w.copyFrom(start)
	w.facts.Functions = len(w.funcTypes) - w.importedFuncs
}

// tableSection caps how far tables grow: what the module's tables do not take at
// once of MaxTableElements is shared out evenly.
func (w *rewriter) tableSection() {
	type table struct {
		elem            ValueType
		lowest, highest uint32
	}
	at := w.pos
	n := w.count(3)
	tables := make([]table, 0, n)
	var total uint64
	for range n {
		first := w.pos
		if w.pos < w.end && w.buf[w.pos] == 0x40 {
			w.unsupported(first, "typed function references")
			return
		}
		t := table{elem: w.refType()}
		var bounded bool
		t.lowest, t.highest, bounded = w.limits()
		if !bounded {
			t.highest = 1<<32 - 1
		}
		total += uint64(t.lowest)
		tables = append(tables, t)
	}
	if total > MaxTableElements {
		w.fail(at, "its tables have %d elements; at most %d are allowed", total, MaxTableElements)
		return
	}
	w.tables += n
	w.vector(n)
	for _, t := range tables {
		room := uint32(MaxTableElements-total) / uint32(n)
		w.out = append(w.out, byte(t.elem), 1)
		w.out = appendU32(w.out, t.lowest)
		w.out = appendU32(w.out, min(t.highest, t.lowest+room))
	}
}

func (w *rewriter) memorySection() {
	start := w.pos
	for range w.count(2) {
		w.memory()
	}
	w.copyFrom(start)
}

func (w *rewriter) memory() {
	at := w.pos
	w.memories++
	if w.memories > 1 {
		w.unsupported(at, "multi-memory")
		return
	}
	f := &w.facts
	f.HasMemory = true
	f.MemoryMin, f.MemoryMax, f.HasMemoryMax = w.memoryType()
}

func (w *rewriter) globalType() {
	w.valueType()
	at := w.pos
	if w.byte() > 1 {
		w.fail(at, "a global is mutable or not: 0 or 1")
	}
}

func (w *rewriter) globalSection() {
	n := w.count(4)
	w.globals += n
	w.vector(n + 1)
	for range n {
		start := w.pos
		w.globalType()
		w.copyFrom(start)
		w.constant()
	}
	w.addGlobal()
}

func (w *rewriter) exportSection() {
	n := w.countUpTo(maxExports, 3, "exports")
	w.vector(n + 1)
	w.facts.Exports = make([]Export, 0, n)
	for range n {
		start := w.pos
		exp := Export{Name: string(w.name())}
		if exp.Name == GlobalExport {
			w.fail(start, "it exports %q, which is the platform's own", GlobalExport)
			return
		}
		at := w.pos
		exp.Kind = Kind(w.byte())
		w.copyFrom(start)
		switch exp.Kind {
		case KindFunc:
			i := w.index(len(w.funcTypes), "function")
			if w.err == nil {
				exp.Signature = w.types[w.funcTypes[i]]
			}
			w.function(i)
		case KindTable:
			w.vector(int(w.index(w.tables, "table")))
		case KindMemory:
			w.vector(int(w.index(w.memories, "memory")))
		case KindGlobal:
			w.vector(int(w.index(w.globals, "global")))
		case 4:
			w.unsupported(at, "exception handling")
		default:
			w.fail(at, "%d is no kind of export", exp.Kind)
		}
		w.facts.Exports = append(w.facts.Exports, exp)
	}
	w.addExport()
}

// Bits of an element segment's flags (core 2.0, section 5.5.12).
const (
	elemNotActive   = 1
	elemHasTable    = 2 // declarative, when not active
	elemExpressions = 4
)

func (w *rewriter) elementSection() {
	n := w.count(3)
	w.vector(n)
	for range n {
		at := w.pos
		flags := w.u32()
		if flags > 7 {
			w.fail(at, "%d are no flags of an element segment", flags)
			return
		}
		w.vector(int(flags))
		if flags&elemNotActive == 0 {
			if flags&elemHasTable != 0 {
				w.vector(int(w.index(w.tables, "table")))
			}
			w.constant()
		}
		if flags&(elemNotActive|elemHasTable) != 0 {
			w.elementKind(flags&elemExpressions != 0)
		}
		m := w.count(1)
		w.vector(m)
		for range m {
			if flags&elemExpressions != 0 {
				w.constant()
			} else {
				w.function(w.index(len(w.funcTypes), "function"))
			}
		}
	}
}

func (w *rewriter) elementKind(expressions bool) {
	start := w.pos
	if expressions {
		w.refType()
	} else if kind := w.byte(); kind != 0 {
		w.fail(start, "%#x is no kind of element", kind)
	}
	w.copyFrom(start)
}

func (w *rewriter) dataSection() {
	start := w.pos
	n := w.count(2)
	w.facts.DataSegments = n
	for range n {
		at := w.pos
		switch flags := w.u32(); flags {
		case 0, 2:
			if flags == 2 && w.u32() != 0 {
				w.unsupported(at, "multi-memory")
				return
			}
			if w.pos < w.end && w.buf[w.pos] == opRefFunc {
				w.fail(w.pos, "an offset is not a number")
				return
			}
			w.skipConstant()
		case 1:
		default:
			w.fail(at, "%d are no flags of a data segment", flags)
			return
		}
		w.skip(w.count(1))
	}
	w.copyFrom(start)
}

// constant copies a constant expression and moves the function index in it.
func (w *rewriter) constant() {
	if w.pos < w.end && w.buf[w.pos] == opRefFunc {
		w.pos++
		w.out = append(w.out, opRefFunc)
		w.function(w.index(len(w.funcTypes), "function"))
		w.constantEnd()
		w.out = append(w.out, opEnd)
		return
	}
	start := w.pos
	w.skipConstant()
	w.copyFrom(start)
}

// skipConstant reads a constant expression. In core 2.0 none but a single
// instruction is valid, as nothing in it takes operands.
func (w *rewriter) skipConstant() {
	at := w.pos
	switch op := w.byte(); op {
	case opI32Const:
		w.signed(32)
	case opI64Const:
		w.signed(64)
	case opF32Const:
		w.skip(4)
	case opF64Const:
		w.skip(8)
	case opGlobalGet:
		w.index(w.globals, "global")
	case opRefNull:
		w.refType()
	case opVectorPrefix:
		if sub := w.byte(); sub != vecConst {
			w.fail(at, "vector instruction %#x is not constant", sub)
		}
		w.skip(16)
	default:
		w.fail(at, "instruction %#x is not constant", op)
	}
	w.constantEnd()
}

func (w *rewriter) constantEnd() {
	at := w.pos
	switch op := w.byte(); op {
	case opEnd:
	case opI32Const, opI64Const, opGlobalGet, 0x6a, 0x6b, 0x6c, 0x7c, 0x7d, 0x7e:
		w.unsupported(at, "extended constant expressions")
	default:
		w.fail(at, "a constant is not a single instruction")
	}
}

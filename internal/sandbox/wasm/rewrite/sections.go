package rewrite

import "strings"

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
			w.importedMem = true
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

func (w *rewriter) globalType() (t ValueType, mutable bool) {
	t = w.valueType()
	at := w.pos
	m := w.byte()
	if m > 1 {
		w.fail(at, "a global is mutable or not: 0 or 1")
	}
	return t, m == 1
}

func (w *rewriter) globalSection() {
	n := w.count(4)
	first := w.globals
	w.globals += n
	w.vector(n + 1)
	for i := range n {
		start := w.pos
		t, mutable := w.globalType()
		w.copyFrom(start)
		w.constant()
		if !mutable {
			continue
		}
		switch t {
		case V128:
			w.facts.MutableVector = true
		case FuncRef, ExternRef:
			w.facts.MutableReference = true
		default:
			if len(w.variables) == MaxVariables {
				w.fail(start, "it has more than %d mutable globals", MaxVariables)
				return
			}
			w.variables = append(w.variables, uint32(first+i))
		}
	}
	w.addGlobal()
}

func (w *rewriter) exportSection() {
	n := w.countUpTo(maxExports, 3, "exports")
	w.beginExports()
	w.exports = n
	w.facts.Exports = make([]Export, 0, n)
	for range n {
		start := w.pos
		exp := Export{Name: string(w.name())}
		if strings.HasPrefix(exp.Name, Reserved) {
			w.fail(start, "it exports %q; names that begin with %q are the platform's own", exp.Name, Reserved)
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
				w.reference(i)
			}
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
	w.addExports()
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
				w.reference(w.index(len(w.funcTypes), "function"))
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

package rewrite

// rewriter reads a module from front to back and writes the new one, in one pass:
// the order of sections is such that whatever a section needs to know stands in
// an earlier one.
type rewriter struct {
	reader
	out   []byte
	limit int // of out
	facts Facts

	types         []Signature
	funcTypes     []uint32 // of all functions, imported ones first
	importedFuncs int
	globals       int
	tables        int
	memories      int
	bodies        int
	done          place // sections written so far
	names         [2]int

	variables   []uint32 // own mutable numeric globals
	importedMem bool
	hasCount    bool     // of data segments
	declared    []uint64 // functions that ref.func may name, a bit each
	exportsAt   int      // where the export section's contents begin in out
	exports     int      // written so far
	codeAt      [2]int   // the code section in out, its id included
	segments    []Segment

	body   []byte  // of the function being rewritten
	frames []frame // its open loops
	blocks []int   // for each open block, how many stretches its frame had had
	check  []byte  // "if the fuel is below zero, call the host"
}

// place is a section's place in the binary format's order.
type place int

const (
	placeNone place = iota
	placeType
	placeImport
	placeFunction
	placeTable
	placeMemory
	placeGlobal
	placeExport
	placeStart
	placeElement
	placeDataCount
	placeCode
	placeData
	placeEnd
)

// Section ids.
const (
	idCustom    = 0
	idType      = 1
	idImport    = 2
	idFunction  = 3
	idTable     = 4
	idMemory    = 5
	idGlobal    = 6
	idExport    = 7
	idStart     = 8
	idElement   = 9
	idCode      = 10
	idData      = 11
	idDataCount = 12
	idTag       = 13
)

func placeOf(id byte) place {
	switch id {
	case idCode:
		return placeCode
	case idData:
		return placeData
	case idDataCount:
		return placeDataCount
	}
	return place(id) // type to element stand in the order of their ids
}

const (
	moduleHeader    = "\x00asm\x01\x00\x00\x00"
	componentHeader = "\x00asm\x0d\x00\x01\x00"
)

func (w *rewriter) module() {
	switch head := string(w.buf[:min(len(w.buf), len(moduleHeader))]); head {
	case moduleHeader:
	case componentHeader:
		w.fail(4, "it is a component; core modules are supported")
		return
	default:
		w.fail(0, "it is not a WebAssembly module of version 1")
		return
	}
	w.skip(len(moduleHeader))
	w.out = append(w.out, moduleHeader...)
	for w.err == nil && w.pos < len(w.buf) {
		w.section()
	}
	if w.err != nil {
		return
	}
	w.fillUpTo(placeEnd)
	if local := len(w.funcTypes) - w.importedFuncs; local != w.bodies {
		w.fail(w.pos, "%d functions are declared, but %d have a body", local, w.bodies)
		return
	}
	w.writeNames()
	w.checkSize()
}

func (w *rewriter) section() {
	at := w.pos
	id := w.byte()
	size := w.count(1)
	if w.err != nil {
		return
	}
	w.end = w.pos + size
	if id == idCustom {
		// Only names are kept; other custom sections may hold function indices or
		// offsets into code, which would point astray.
		if string(w.name()) == "name" && w.names[1] == 0 {
			w.names = [2]int{w.pos, w.end}
		}
		w.pos = w.end
	} else {
		w.knownSection(id, at)
	}
	if w.pos != w.end {
		w.fail(w.pos, "section %d has bytes too many", id)
	}
	w.end = len(w.buf)
	w.checkSize()
}

func (w *rewriter) knownSection(id byte, at int) {
	if id == idTag {
		w.unsupported(at, "exception handling")
		return
	}
	if id > idTag {
		w.fail(at, "%d is no section id", id)
		return
	}
	p := placeOf(id)
	if p <= w.done {
		w.fail(at, "section %d is repeated or out of order", id)
		return
	}
	w.fillUpTo(p)
	w.done = p
	if id == idStart {
		w.startSection()
		return
	}
	mark := w.begin(id)
	switch id {
	case idType:
		w.typeSection()
	case idImport:
		w.importSection()
	case idFunction:
		w.functionSection()
	case idTable:
		w.tableSection()
	case idMemory:
		w.memorySection()
	case idGlobal:
		w.globalSection()
	case idExport:
		w.exportSection()
	case idElement:
		w.elementSection()
	case idDataCount:
		w.hasCount = true
		start := w.pos
		w.u32()
		w.copyFrom(start)
	case idCode:
		w.codeSection()
		w.codeAt = [2]int{mark - sectionHead, len(w.out)}
	case idData:
		if !w.dataSection() {
			w.out = w.out[:mark-sectionHead]
			return
		}
	}
	w.finish(mark)
}

// fillUpTo writes the sections that we need, the module lacks, and which stand
// before p.
func (w *rewriter) fillUpTo(p place) {
	missing := func(q place) bool { return w.done < q && q < p }
	if missing(placeType) {
		mark := w.begin(idType)
		w.vector(1)
		w.addType()
		w.finish(mark)
	}
	if missing(placeImport) {
		mark := w.begin(idImport)
		w.vector(1)
		w.addImport()
		w.finish(mark)
	}
	if missing(placeGlobal) {
		mark := w.begin(idGlobal)
		w.vector(1)
		w.addGlobal()
		w.finish(mark)
	}
	if missing(placeExport) {
		mark := w.begin(idExport)
		w.beginExports()
		w.addExports()
		w.finish(mark)
	}
}

func (w *rewriter) addType() { w.out = append(w.out, 0x60, 0, 0) }

func (w *rewriter) addImport() {
	w.string(ImportModule)
	w.string(ImportName)
	w.out = append(w.out, byte(KindFunc))
	w.out = appendU32(w.out, uint32(len(w.types)))
}

func (w *rewriter) addGlobal() {
	w.out = append(w.out, byte(I64), 1, opI64Const, 0, opEnd)
}

// beginExports leaves room for the number of exports, which is not known before the
// start section was seen.
func (w *rewriter) beginExports() {
	w.exportsAt = len(w.out)
	w.out = append(w.out, 0, 0, 0, 0, 0)
}

// addExports writes what the host needs of the module's state.
func (w *rewriter) addExports() {
	w.addExport(GlobalExport, KindGlobal, uint32(w.globals))
	if w.memories > 0 && !w.importedMem {
		w.addExport(MemoryExport, KindMemory, 0)
	}
	for i, g := range w.variables {
		w.addExport(GlobalName(i), KindGlobal, g)
	}
}

// addExport writes an export behind the last one. Nothing may stand behind the
// export section yet.
func (w *rewriter) addExport(name string, kind Kind, index uint32) {
	w.string(name)
	w.out = append(w.out, byte(kind))
	w.out = appendU32(w.out, index)
	w.exports++
	putPadded(w.out[w.exportsAt:w.exportsAt+5], uint32(w.exports))
}

// startSection makes an export of the start section. The export section, which
// stands just before it, is the last that was written.
func (w *rewriter) startSection() {
	at := w.pos
	i := w.index(len(w.funcTypes), "function")
	if w.err != nil {
		return
	}
	if t := w.types[w.funcTypes[i]]; len(t.Params)+len(t.Results) > 0 {
		w.fail(at, "the start function is of type %v; it must take and return nothing", t)
		return
	}
	w.facts.HasStart = true
	w.addExport(StartExport, KindFunc, w.moved(i))
	w.finish(w.exportsAt)
}

// sectionHead is the length of what begin writes.
const sectionHead = 6

// begin opens a section; its size is filled in by finish.
func (w *rewriter) begin(id byte) (mark int) {
	w.out = append(w.out, id, 0, 0, 0, 0, 0)
	return len(w.out)
}

func (w *rewriter) finish(mark int) {
	putPadded(w.out[mark-5:mark], uint32(len(w.out)-mark))
}

func (w *rewriter) vector(n int) { w.out = appendU32(w.out, uint32(n)) }

// copyFrom writes what was read since start as it is.
func (w *rewriter) copyFrom(start int) { w.out = append(w.out, w.buf[start:w.pos]...) }

func (w *rewriter) string(s string) {
	w.vector(len(s))
	w.out = append(w.out, s...)
}

// declare notes that ref.func may name a function. The start function's export must
// not make one valid that was not.
func (w *rewriter) declare(i uint32) {
	if w.declared == nil {
		w.declared = make([]uint64, len(w.funcTypes)/64+1)
	}
	w.declared[i/64] |= 1 << (i % 64)
}

func (w *rewriter) isDeclared(i uint32) bool {
	return w.declared != nil && w.declared[i/64]>>(i%64)&1 == 1
}

// reference writes the index of a function in the new module, and declares it.
func (w *rewriter) reference(i uint32) {
	w.declare(i)
	w.function(i)
}

// function writes the index of a function in the new module.
func (w *rewriter) function(i uint32) { w.out = appendU32(w.out, w.moved(i)) }

// moved gives a function's index in the new module: the added import stands after
// the module's own and before its local functions.
func (w *rewriter) moved(i uint32) uint32 {
	if int(i) >= w.importedFuncs {
		return i + 1
	}
	return i
}

func (w *rewriter) checkSize() {
	if len(w.out)+len(w.body) > w.limit {
		w.fail(w.pos, "it would grow beyond %d times its size: too many loops or functions for its length", maxGrowth)
	}
}

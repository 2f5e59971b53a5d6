package rewrite

// Instructions that the rewriter writes or treats in a way of their own.
const (
	opUnreachable   = 0x00
	opNop           = 0x01
	opBlock         = 0x02
	opLoop          = 0x03
	opIf            = 0x04
	opElse          = 0x05
	opEnd           = 0x0b
	opBr            = 0x0c
	opBrIf          = 0x0d
	opBrTable       = 0x0e
	opReturn        = 0x0f
	opCall          = 0x10
	opCallIndirect  = 0x11
	opDrop          = 0x1a
	opSelect        = 0x1b
	opSelectTyped   = 0x1c
	opLocalGet      = 0x20
	opLocalSet      = 0x21
	opLocalTee      = 0x22
	opGlobalGet     = 0x23
	opGlobalSet     = 0x24
	opTableGet      = 0x25
	opTableSet      = 0x26
	opI32Load       = 0x28
	opI64Store32    = 0x3e
	opMemorySize    = 0x3f
	opMemoryGrow    = 0x40
	opI32Const      = 0x41
	opI64Const      = 0x42
	opF32Const      = 0x43
	opF64Const      = 0x44
	opI32Eqz        = 0x45
	opI64LtS        = 0x53
	opI64Sub        = 0x7d
	opI64Shl        = 0x86
	opI64ShrU       = 0x88
	opI64ExtendI32U = 0xad
	opI64Extend32S  = 0xc4
	opRefNull       = 0xd0
	opRefIsNull     = 0xd1
	opRefFunc       = 0xd2
	opMiscPrefix    = 0xfc
	opVectorPrefix  = 0xfd

	blockEmpty = 0x40
)

// What a bulk operation costs: a unit moves 16 bytes, a page takes 4096.
const (
	bytesPerUnitShift = 4
	unitsPerPageShift = 16 - bytesPerUnitShift
)

// expression rewrites the code of a function up to its last end. It tells whether
// it made use of the scratch local.
func (w *rewriter) expression(scratch uint32) (usesScratch bool) {
	depth := 0
	copied := w.pos // what was read before this is in w.body already
	flush := func(upTo int) {
		w.body = append(w.body, w.buf[copied:upTo]...)
		copied = upTo
	}
	top := &w.frames[0]
	for w.pos < w.end {
		at := w.pos
		op := w.buf[at]
		w.pos++
		top.weight += weigh(op)
		switch op {
		case opElse:
			if depth == 0 || top.depth == depth {
				w.fail(at, "there is an else without an if")
				return false
			}
			flush(w.pos)
			w.join(w.blocks[depth-1])
		case opBlock, opIf:
			top.weight += perUnit * w.blockType()
			w.blocks = append(w.blocks, top.stretches)
			depth++
		case opLoop:
			width := w.blockType()
			w.blocks = append(w.blocks, 0) // not asked for: a loop's label is at its beginning
			depth++
			w.facts.Loops++
			flush(w.pos)
			w.open(depth, perUnit*(1+width))
			top = &w.frames[len(w.frames)-1]
		case opEnd:
			if depth == 0 {
				flush(w.pos)
				w.shut()
				return usesScratch
			}
			depth--
			began := w.blocks[depth]
			w.blocks = w.blocks[:depth]
			if top.depth == depth+1 {
				w.shut()
				top = &w.frames[len(w.frames)-1]
				break
			}
			flush(w.pos)
			w.join(began)
		case opCall, opRefFunc:
			flush(w.pos)
			i := w.index(len(w.funcTypes), "function")
			if op == opRefFunc && w.err == nil && !w.isDeclared(i) {
				w.fail(at, "ref.func names function %d, which is not declared (by an export, an element or a global)", i)
			}
			copied = w.pos
			w.body = appendU32(w.body, w.moved(i))
		case opMemorySize, opMemoryGrow:
			if op == opMemoryGrow {
				w.facts.GrowsMemory = true
				usesScratch = true
				flush(at)
				w.payOperand(scratch, opI64Shl, unitsPerPageShift)
			}
			w.memoryIndex()
		case opMiscPrefix:
			bulk, shift := w.miscellaneous(at)
			if bulk {
				usesScratch = true
				flush(at)
				w.payOperand(scratch, opI64ShrU, shift)
			}
		default:
			w.operands(at, op)
		}
	}
	w.fail(w.pos, "a function body does not end")
	return false
}

// operands reads what follows an instruction that is taken over as it is.
func (w *rewriter) operands(at int, op byte) {
	switch op {
	case opLocalGet, opLocalSet, opLocalTee, opBr, opBrIf:
		w.u32()
	case opI32Const:
		w.signed(32)
	case opI64Const:
		w.signed(64)
	case opF32Const:
		w.skip(4)
	case opF64Const:
		w.skip(8)
	case opUnreachable, opNop, opReturn, opDrop, opSelect, opRefIsNull:
	case opBrTable:
		for range w.count(1) {
			w.u32()
		}
		w.u32()
	case opCallIndirect:
		w.index(len(w.types), "type")
		w.index(w.tables, "table")
	case opSelectTyped:
		if n := w.u32(); n != 1 {
			w.fail(at, "select is of %d types", n)
		}
		w.valueType()
	case opGlobalGet, opGlobalSet:
		// The fuel's own index lies just beyond: no module may reach it.
		w.index(w.globals, "global")
	case opTableGet, opTableSet:
		w.index(w.tables, "table")
		w.facts.MutatesTable = w.facts.MutatesTable || op == opTableSet
	case opRefNull:
		w.refType()
	case opVectorPrefix:
		w.vectorInstruction(at)
	default:
		switch {
		case op >= opI32Load && op <= opI64Store32:
			w.memoryArgument()
		case op >= opI32Eqz && op <= opI64Extend32S:
		default:
			w.unknown(at, op)
		}
	}
}

// perUnit is how many parts a unit of fuel has while weights are added up.
const perUnit = 4

// weigh gives what an instruction costs, in parts of a unit: nothing when it only marks
// a place, a part when compilers mostly make nothing of it, else a unit.
func weigh(op byte) int {
	switch op {
	case opBlock, opLoop, opElse, opEnd, opNop:
		return 0
	case opLocalGet, opLocalSet, opLocalTee, opI32Const, opI64Const, opF32Const, opF64Const, opDrop:
		return 1
	}
	return perUnit
}

// unknown refuses an instruction which core 2.0 does not have.
func (w *rewriter) unknown(at int, op byte) {
	switch op {
	case 0x06, 0x07, 0x08, 0x09, 0x0a, 0x18, 0x19, 0x1f:
		w.unsupported(at, "exception handling")
	case 0x12, 0x13:
		w.unsupported(at, "tail calls")
	case 0x14, 0x15, 0xd4, 0xd5, 0xd6:
		w.unsupported(at, "typed function references")
	case 0xd3, 0xfb:
		w.unsupported(at, "garbage collection")
	case 0xfe:
		w.unsupported(at, "threads (atomic instructions)")
	default:
		w.fail(at, "%#x is no instruction", op)
	}
}

// blockType reads a block's type and gives the number of values it moves.
func (w *rewriter) blockType() int {
	at := w.pos
	if w.pos >= w.end {
		w.fail(at, "it ends too early")
		return 0
	}
	switch b := w.buf[w.pos]; {
	case b == blockEmpty:
		w.pos++
		return 0
	case b < 0x80 && b > blockEmpty: // negative: a value type in one byte
		w.valueType()
		return 1
	}
	// An index is a signed number of 33 bits which is not negative; so the bits of
	// an unsigned one of 32, but for the sign's place.
	w.signed(33)
	if w.err != nil {
		return 0
	}
	if w.buf[w.pos-1]&0x40 != 0 {
		w.fail(at, "a block has no such type")
		return 0
	}
	var i uint64
	for k, b := range w.buf[at:w.pos] {
		i |= uint64(b&0x7f) << (7 * k)
	}
	if i >= uint64(len(w.types)) {
		w.fail(at, "there is no type %d", i)
		return 0
	}
	return len(w.types[i].Params) + len(w.types[i].Results)
}

func (w *rewriter) memoryIndex() {
	at := w.pos
	if w.byte() != 0 {
		w.unsupported(at, "multi-memory")
	}
}

func (w *rewriter) memoryArgument() {
	at := w.pos
	if align := w.u32(); align >= 0x40 {
		w.unsupported(at, "multi-memory")
	}
	w.u32()
}

// miscellaneous reads an instruction behind the prefix 0xfc. When it is one whose
// last operand says how much it does, bulk is true, and a unit pays for 2^perUnit.
func (w *rewriter) miscellaneous(at int) (bulk bool, perUnit byte) {
	f := &w.facts
	switch op := w.u32(); op {
	case 0, 1, 2, 3, 4, 5, 6, 7: // trunc_sat
		return false, 0
	case 8: // memory.init
		w.u32()
		w.memoryIndex()
		return true, bytesPerUnitShift
	case 9: // data.drop
		w.u32()
		f.DropsData = true
		return false, 0
	case 10: // memory.copy
		w.memoryIndex()
		w.memoryIndex()
		return true, bytesPerUnitShift
	case 11: // memory.fill
		w.memoryIndex()
		return true, bytesPerUnitShift
	case 12, 14: // table.init, table.copy
		w.u32()
		w.index(w.tables, "table")
		f.MutatesTable = true
		return true, 0
	case 13: // elem.drop
		w.u32()
		f.DropsElements = true
		return false, 0
	case 15, 17: // table.grow, table.fill
		w.index(w.tables, "table")
		f.MutatesTable = true
		return true, 0
	case 16: // table.size
		w.index(w.tables, "table")
		return false, 0
	default:
		w.fail(at, "0xfc %#x is no instruction", op)
		return false, 0
	}
}

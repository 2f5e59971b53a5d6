package rewrite

// constant copies a constant expression and moves the function index in it.
func (w *rewriter) constant() {
	if w.pos < w.end && w.buf[w.pos] == opRefFunc {
		w.pos++
		w.out = append(w.out, opRefFunc)
		w.reference(w.index(len(w.funcTypes), "function"))
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

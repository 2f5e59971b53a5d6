package rewrite

// frame is a function body or loop which is being read. It is paid for in
// stretches: each pays where it begins, and its payment is filled in where the next
// begins or the frame ends, when its weight is known.
type frame struct {
	depth     int // of the blocks around it
	at        int // of the payment's amount in the new body
	weight    int // of the stretch until now, in parts of a unit
	stretches int // that the frame has had
}

// stretchWeight is how much a stretch weighs at the least before a new one is begun
// without need: small bodies shall pay once.
const stretchWeight = 32 * perUnit

// amountSize is the length of a payment's amount, padded so that it can be filled
// in later.
const amountSize = 4

func (w *rewriter) codeSection() {
	w.prepareCheck()
	n := w.count(2)
	if local := len(w.funcTypes) - w.importedFuncs; local != n {
		w.fail(w.pos, "%d functions are declared, but %d have a body", local, n)
		return
	}
	w.bodies = n
	w.vector(n)
	outer := w.end
	for i := range n {
		size := w.count(1)
		if w.err != nil {
			return
		}
		w.end = w.pos + size
		w.functionBody(w.types[w.funcTypes[w.importedFuncs+i]])
		if w.pos != w.end {
			w.fail(w.pos, "a function body has bytes too many")
		}
		w.end = outer
	}
	w.body = nil
}

// functionBody rewrites one function: its locals, a payment, its code.
func (w *rewriter) functionBody(sig Signature) {
	at := w.pos
	groups := w.count(2)
	start := w.pos
	locals := uint64(0)
	for range groups {
		locals += uint64(w.u32())
		w.valueType()
		if locals > MaxLocals {
			w.fail(at, "a function has more than %d locals", MaxLocals)
			return
		}
	}
	declared := w.buf[start:w.pos]

	w.body = w.body[:0]
	w.frames = w.frames[:0]
	w.blocks = w.blocks[:0]
	w.open(0, perUnit*(1+len(sig.Params)+len(sig.Results)+int(locals)))
	scratch := uint32(len(sig.Params)) + uint32(locals)
	usesScratch := w.expression(scratch)
	if w.err != nil {
		return
	}

	var head [2 * 5]byte
	h := head[:0]
	size := len(declared) + len(w.body)
	if usesScratch {
		h = appendU32(h, uint32(groups+1))
		size += 2
	} else {
		h = appendU32(h, uint32(groups))
	}
	w.out = appendU32(w.out, uint32(size+len(h)))
	w.out = append(w.out, h...)
	w.out = append(w.out, declared...)
	if usesScratch {
		w.out = append(w.out, 1, byte(I32))
	}
	w.out = append(w.out, w.body...)
}

// prepareCheck builds what follows each subtraction. The fuel lies in a register
// by then: reading the global again costs nothing.
func (w *rewriter) prepareCheck() {
	c := w.check[:0]
	c = append(c, opGlobalSet)
	c = appendU32(c, uint32(w.globals))
	c = append(c, opGlobalGet)
	c = appendU32(c, uint32(w.globals))
	c = append(c, opI64Const, 0, opI64LtS, opIf, blockEmpty, opCall)
	c = appendU32(c, uint32(w.importedFuncs))
	w.check = append(c, opEnd)
}

// open starts a frame with its payment.
func (w *rewriter) open(depth, weight int) {
	if len(w.frames) > maxLoopDepth {
		w.fail(w.pos, "loops are nested more than %d deep", maxLoopDepth)
		return
	}
	w.body = append(w.body, opGlobalGet)
	w.body = appendU32(w.body, uint32(w.globals))
	w.body = append(w.body, opI64Const)
	w.frames = append(w.frames, frame{depth: depth, at: len(w.body), weight: weight})
	w.body = append(w.body, 0, 0, 0, 0, opI64Sub)
	w.body = append(w.body, w.check...)
	w.checkSize()
}

// join is called where control may arrive from a place further up in the same frame:
// at an else, and behind the end of a block, both of which were given the number of
// stretches that the frame had had where that place is. Whoever comes from there has
// paid for the stretch that was begun then. If another was begun since, a new one must
// begin here, for all to pay; if not, one may.
func (w *rewriter) join(stretches int) {
	f := &w.frames[len(w.frames)-1]
	if f.stretches == stretches && f.weight < stretchWeight {
		return
	}
	w.fill(f)
	f.weight = 0
	f.stretches++
	w.body = append(w.body, opGlobalGet)
	w.body = appendU32(w.body, uint32(w.globals))
	w.body = append(w.body, opI64Const)
	f.at = len(w.body)
	// Nobody is called here: a frame goes only forward from one stretch to the next,
	// so this ends, at the next loop's header or the next function's entry at the latest.
	w.body = append(w.body, 0, 0, 0, 0, opI64Sub, opGlobalSet)
	w.body = appendU32(w.body, uint32(w.globals))
	w.checkSize()
}

// shut ends the innermost frame.
func (w *rewriter) shut() {
	w.fill(&w.frames[len(w.frames)-1])
	w.frames = w.frames[:len(w.frames)-1]
}

// fill puts in what a frame's stretch costs.
func (w *rewriter) fill(f *frame) {
	units := (f.weight + perUnit - 1) / perUnit
	if units > maxWeight {
		w.fail(w.pos, "a function or loop is too long")
		return
	}
	putPadded(w.body[f.at:f.at+amountSize], uint32(units))
}

// payOperand pays for an instruction whose last operand, an i32, says how much it
// does: size units of 2^-down, or 2^up, each. scratch is a spare local.
func (w *rewriter) payOperand(scratch uint32, shift byte, by byte) {
	b := append(w.body, opLocalTee)
	b = appendU32(b, scratch)
	b = append(b, opGlobalGet)
	b = appendU32(b, uint32(w.globals))
	b = append(b, opLocalGet)
	b = appendU32(b, scratch)
	b = append(b, opI64ExtendI32U)
	if by > 0 {
		b = append(b, opI64Const, by, shift)
	}
	b = append(b, opI64Sub)
	w.body = append(b, w.check...)
	w.checkSize()
}

package rewrite

// Subsections of the name section that are kept.
const (
	nameModule    = 0
	nameFunctions = 1
)

// writeNames writes the name section with moved function indices, so that a trap's
// trace tells names. Names of locals and the like are dropped. Names are an aid:
// when the section cannot be read, the module goes without.
func (w *rewriter) writeNames() {
	if w.names[1] == 0 {
		return
	}
	before := len(w.out)
	mark := w.begin(idCustom)
	w.out = append(w.out, 4)
	w.out = append(w.out, "name"...)
	outer := w.reader
	w.reader = reader{buf: w.buf, pos: w.names[0], end: w.names[1]}
	for w.err == nil && w.pos < w.end {
		w.nameSubsection()
	}
	bad := w.err != nil
	w.reader = outer
	if bad {
		w.out = w.out[:before]
		return
	}
	w.finish(mark)
}

func (w *rewriter) nameSubsection() {
	id := w.byte()
	size := w.count(1)
	outer := w.end
	w.end = w.pos + size
	mark := w.begin(id)
	switch id {
	case nameModule:
		start := w.pos
		w.name()
		w.copyFrom(start)
		w.finish(mark)
	case nameFunctions:
		n := w.count(2)
		w.vector(n)
		next := uint32(0)
		for range n {
			at := w.pos
			i := w.index(len(w.funcTypes), "function")
			if i < next {
				w.fail(at, "names are not in order")
			}
			next = i + 1
			w.function(i)
			start := w.pos
			w.name()
			w.copyFrom(start)
		}
		w.finish(mark)
	default:
		w.out = w.out[:mark-sectionHead]
		w.pos = w.end
	}
	if w.pos != w.end {
		w.fail(w.pos, "a subsection of names has bytes too many")
	}
	w.end = outer
}

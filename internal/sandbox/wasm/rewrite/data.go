package rewrite

// minActive is the length of the shortest active segment.
const minActive = 5

// dataSection moves active segments out of the module, so that the host writes them
// once, and not the engine at each start. It tells whether a section remains.
func (w *rewriter) dataSection() (remains bool) {
	start, mark := w.pos, len(w.out)
	n := w.count(2)
	w.facts.DataSegments = n
	most := min(n, (w.end-w.pos)/minActive)
	movable, active := !w.importedMem, false
	w.vector(n)
	for range n {
		from := w.pos
		s := w.dataSegment()
		if !movable || w.err != nil {
			continue
		}
		switch s.mode {
		case dataPassive:
			w.copyFrom(from)
		case dataConstant:
			if w.segments == nil {
				w.segments = make([]Segment, 0, most)
			}
			active = true
			w.segments = append(w.segments, Segment{Offset: s.offset, Data: s.data})
			w.out = append(w.out, byte(dataPassive), 0)
		case dataComputed:
			movable = false
		}
	}
	if !movable {
		w.segments = nil
		w.out = w.out[:mark]
		w.copyFrom(start)
		return true
	}
	// Without the count no instruction can name a segment.
	return w.hasCount || !active
}

// dataMode is how a segment comes into memory.
type dataMode byte

const (
	dataConstant dataMode = iota // at an offset which is an i32 constant
	dataPassive                  // by an instruction; the value is that of the flag
	dataComputed                 // at another offset
)

type dataSegment struct {
	mode   dataMode
	offset uint32
	data   []byte
}

// dataSegment reads a segment (core 2.0, section 5.5.14).
func (w *rewriter) dataSegment() (s dataSegment) {
	at := w.pos
	switch flags := w.u32(); flags {
	case 0, 2:
		if flags == 2 && w.u32() != 0 {
			w.unsupported(at, "multi-memory")
			return s
		}
		if w.memories == 0 {
			w.fail(at, "a data segment is placed into memory, but there is none")
			return s
		}
		s.mode, s.offset = w.dataOffset()
	case 1:
		s.mode = dataPassive
	default:
		w.fail(at, "%d are no flags of a data segment", flags)
		return s
	}
	n := w.count(1)
	s.data = w.buf[w.pos : w.pos+n : w.pos+n]
	w.pos += n
	return s
}

func (w *rewriter) dataOffset() (dataMode, uint32) {
	at := w.pos
	switch {
	case at >= w.end:
	case w.buf[at] == opI32Const:
		w.pos++
		offset := w.i32()
		w.constantEnd()
		return dataConstant, offset
	case w.buf[at] == opRefFunc:
		w.fail(at, "an offset is not a number")
	}
	w.skipConstant()
	return dataComputed, 0
}

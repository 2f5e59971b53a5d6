package rewrite

import (
	"fmt"
	"unicode/utf8"
)

// reader walks the module. The first failure sticks: it moves pos to end, so that
// every loop comes to its end soon, and whatever is read afterwards is zero.
type reader struct {
	buf []byte
	pos int
	end int // of the section or body being read
	err *ModuleError
}

func (r *reader) fail(at int, format string, args ...any) {
	if r.err == nil {
		r.err = &ModuleError{Offset: at, Reason: fmt.Sprintf(format, args...)}
	}
	r.pos = r.end
}

// unsupported refuses what a proposal beyond core 2.0 brings.
func (r *reader) unsupported(at int, feature string) {
	r.fail(at, "it uses %s, which is not supported (core WebAssembly 2.0 is)", feature)
}

func (r *reader) byte() byte {
	if r.pos >= r.end {
		r.fail(r.pos, "it ends too early")
		return 0
	}
	b := r.buf[r.pos]
	r.pos++
	return b
}

func (r *reader) skip(n int) {
	if n > r.end-r.pos {
		r.fail(r.pos, "it ends too early")
		return
	}
	r.pos += n
}

func (r *reader) u32() uint32 {
	if r.pos < r.end && r.buf[r.pos] < 0x80 {
		r.pos++
		return uint32(r.buf[r.pos-1])
	}
	return r.longU32()
}

func (r *reader) longU32() uint32 {
	at := r.pos
	var v uint32
	for shift := 0; shift <= 28; shift += 7 {
		b := r.byte()
		v |= uint32(b&0x7f) << shift
		if b < 0x80 {
			if shift == 28 && b > 0x0f {
				break
			}
			return v
		}
	}
	r.fail(at, "a number does not fit into 32 bits")
	return 0
}

// signed skips a signed number of the given width.
func (r *reader) signed(bits int) {
	at := r.pos
	last := (bits - 1) / 7
	for i := 0; i <= last; i++ {
		b := r.byte()
		if b >= 0x80 {
			continue
		}
		if i == last {
			// The bits from the sign upwards must all be the same.
			high := byte(0x7f) &^ (1<<(bits-7*last-1) - 1)
			if b&high != 0 && b&high != high {
				break
			}
		}
		return
	}
	r.fail(at, "a number does not fit into %d bits", bits)
}

// i32 reads a signed number of 32 bits and gives those.
func (r *reader) i32() uint32 {
	at := r.pos
	v := uint32(0)
	for shift := 0; shift <= 28; shift += 7 {
		b := r.byte()
		v |= uint32(b&0x7f) << shift
		if b >= 0x80 {
			continue
		}
		if high := b & 0x78; shift == 28 && high != 0 && high != 0x78 {
			break
		}
		if b&0x40 != 0 {
			v |= ^uint32(0) << (shift + 7) // the sign; no bits after five bytes
		}
		return v
	}
	r.fail(at, "a number does not fit into 32 bits")
	return 0
}

// count reads the length of a vector whose elements take at least size bytes.
func (r *reader) count(size int) int {
	at := r.pos
	n := r.u32()
	if int64(n)*int64(size) > int64(r.end-r.pos) {
		r.fail(at, "a vector of %d elements does not fit into what is left", n)
		return 0
	}
	return int(n)
}

// countUpTo is count with a bound of ours.
func (r *reader) countUpTo(most, size int, of string) int {
	at := r.pos
	n := r.count(size)
	if n > most {
		r.fail(at, "it has %d %s; at most %d are allowed", n, of, most)
		return 0
	}
	return n
}

// index reads an index below n; after a failure, it gives 0.
func (r *reader) index(n int, of string) uint32 {
	at := r.pos
	i := r.u32()
	if int64(i) >= int64(n) {
		r.fail(at, "there is no %s %d", of, i)
		return 0
	}
	return i
}

func (r *reader) name() []byte {
	at := r.pos
	n := r.count(1)
	b := r.buf[r.pos : r.pos+n]
	r.pos += n
	if !utf8.Valid(b) {
		r.fail(at, "a name is not UTF-8")
	}
	return b
}

func (r *reader) valueType() ValueType {
	at := r.pos
	t := ValueType(r.byte())
	switch t {
	case I32, I64, F32, F64, V128, FuncRef, ExternRef:
	default:
		r.badType(at, byte(t), "value")
	}
	return t
}

func (r *reader) refType() ValueType {
	at := r.pos
	t := ValueType(r.byte())
	if t != FuncRef && t != ExternRef {
		r.badType(at, byte(t), "reference")
	}
	return t
}

func (r *reader) badType(at int, t byte, kind string) {
	switch t {
	case 0x63, 0x64:
		r.unsupported(at, "typed function references")
	case 0x69, 0x74:
		r.unsupported(at, "exception handling")
	case 0x65, 0x66, 0x67, 0x68, 0x6a, 0x6b, 0x6c, 0x6d, 0x6e, 0x71, 0x72, 0x73, 0x77, 0x78:
		r.unsupported(at, "garbage collection")
	default:
		r.fail(at, "%#x is no %s type", t, kind)
	}
}

// limits reads the limits of a table or memory.
func (r *reader) limits() (lowest, highest uint32, bounded bool) {
	at := r.pos
	switch flags := r.byte(); {
	case flags <= 1:
		lowest = r.u32()
		if flags == 1 {
			highest, bounded = r.u32(), true
			if highest < lowest {
				r.fail(at, "the most is less than the least")
			}
		}
	case flags <= 3:
		r.unsupported(at, "threads (shared memory)")
	case flags <= 7:
		r.unsupported(at, "memory64")
	default:
		r.fail(at, "%#x are no limits", flags)
	}
	return lowest, highest, bounded
}

func (r *reader) memoryType() (lowest, highest uint32, bounded bool) {
	at := r.pos
	lowest, highest, bounded = r.limits()
	if lowest > maxMemoryPages || highest > maxMemoryPages {
		r.fail(at, "a memory has at most %d pages", maxMemoryPages)
	}
	return lowest, highest, bounded
}

func appendU32(b []byte, v uint32) []byte {
	for v >= 0x80 {
		b = append(b, byte(v)|0x80)
		v >>= 7
	}
	return append(b, byte(v))
}

// putPadded writes v over the bytes of b, as a LEB128 number of just that length.
func putPadded(b []byte, v uint32) {
	for i := range b {
		b[i] = byte(v)&0x7f | 0x80
		v >>= 7
	}
	b[len(b)-1] &= 0x7f
}

package rewrite

// Vector instructions, behind the prefix 0xfd (core 2.0, section 5.4.8).
const (
	vecStore           = 0x0b
	vecConst           = 0x0c
	vecShuffle         = 0x0d
	vecExtractFirst    = 0x15
	vecReplaceLast     = 0x22
	vecLoadLaneFirst   = 0x54
	vecStoreLaneLast   = 0x5b
	vecLoad32Zero      = 0x5c
	vecLoad64Zero      = 0x5d
	vecBytes           = 16
	vecTwoByteSuffix   = 0x01
	vecOneByteSubCodes = 0x80
)

// vectorInstruction reads an instruction behind the prefix 0xfd. Its number must be
// in the shortest form: the engine takes the first byte alone for the number (and
// the second, 0x01, for a nop), so a longer form would be another instruction there.
func (w *rewriter) vectorInstruction(at int) {
	op := w.byte()
	if op >= vecOneByteSubCodes {
		switch high := w.byte(); {
		case w.err != nil:
			return
		case high == vecTwoByteSuffix:
		case high == 0x02:
			w.unsupported(at, "relaxed SIMD")
			return
		default:
			w.fail(at, "a vector instruction is not in its shortest form")
			return
		}
	}
	switch {
	case op <= vecStore, op == vecLoad32Zero, op == vecLoad64Zero:
		w.memoryArgument()
	case op == vecConst, op == vecShuffle:
		w.skip(vecBytes)
	case op >= vecExtractFirst && op <= vecReplaceLast:
		w.skip(1)
	case op >= vecLoadLaneFirst && op <= vecStoreLaneLast:
		w.memoryArgument()
		w.skip(1)
	default:
		switch op {
		case 0x9a, 0xa2, 0xa5, 0xa6, 0xaf, 0xb0, 0xb2, 0xb3, 0xb4, 0xbb,
			0xc2, 0xc5, 0xc6, 0xcf, 0xd0, 0xd2, 0xd3, 0xd4, 0xe2, 0xee:
			w.fail(at, "0xfd %#x is no instruction", op)
		}
	}
}

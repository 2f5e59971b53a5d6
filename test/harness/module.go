package harness

import "encoding/binary"

// Guest describes a tiny WASI command. It is assembled here so that tests need no
// compiler and can make as many different versions as they like.
type Guest struct {
	Status  int    // of the answer; 200 when zero
	Body    string // of the answer
	Log     string // written on standard error first, when not empty
	Millis  int    // slept before answering
	Spin    bool   // never answers: an endless loop
	Trap    bool   // executes unreachable
	Exit    int    // exits with this code instead of answering, when not zero
	Recurse bool   // calls itself without an end
	Flood   bool   // writes its answer for ever
	Grow    bool   // grows its memory until refused, then traps
}

// Code assembles the module (WebAssembly core 1.0, section 5).
func (g Guest) Code() []byte {
	status := g.Status
	if status == 0 {
		status = 200
	}
	answer := `{"status":` + itoa(status) + `,"headers":{"content-type":"text/plain"}}` + "\n" + g.Body

	// Memory: 0 and 16: iovecs of answer and log; 32: written; 64: subscription;
	// 128: event; 256: texts.
	const textAt = 256
	mem := make([]byte, textAt)
	le := binary.LittleEndian
	le.PutUint32(mem[0:], textAt)
	le.PutUint32(mem[4:], uint32(len(answer)))
	le.PutUint32(mem[16:], uint32(textAt+len(answer)))
	le.PutUint32(mem[20:], uint32(len(g.Log)))
	// subscription_t of WASI preview 1: userdata u64, tag u8 (0: clock), then the
	// clock: id u32 (1: monotonic), timeout u64 in ns, precision u64, flags u16.
	le.PutUint32(mem[64+16:], 1)
	le.PutUint64(mem[64+24:], uint64(g.Millis)*1_000_000)
	mem = append(append(mem, answer...), g.Log...)

	const (
		fdWrite, poll, procExit, start = 0, 1, 2, 3
	)
	i32 := func(v int64) []byte { return append([]byte{0x41}, sleb(v)...) }
	call := func(f byte) []byte { return []byte{0x10, f} }
	drop := []byte{0x1a}
	write := func(fd, iov int64) []byte {
		return cat(i32(fd), i32(iov), i32(1), i32(32), call(fdWrite), drop)
	}
	var body []byte
	if g.Log != "" {
		body = append(body, write(2, 16)...)
	}
	if g.Millis > 0 {
		body = cat(body, i32(64), i32(128), i32(1), i32(32), call(poll), drop)
	}
	loop := func(inner []byte) []byte { return cat([]byte{0x03, 0x40}, inner, []byte{0x0c, 0x00, 0x0b}) }
	switch {
	case g.Spin:
		body = append(body, loop(nil)...)
	case g.Trap:
		body = append(body, 0x00)
	case g.Exit != 0:
		body = cat(body, i32(int64(g.Exit)), call(procExit))
	case g.Recurse:
		body = append(body, call(start)...)
	case g.Flood:
		body = append(body, loop(write(1, 0))...)
	case g.Grow:
		// loop: if memory.grow(16) == -1 trap; continue
		body = append(body, loop(cat(i32(16), []byte{0x40, 0x00}, i32(-1), []byte{0x46, 0x04, 0x40, 0x00, 0x0b}))...)
	default:
		body = append(body, write(1, 0)...)
	}
	fn := cat([]byte{0x00}, body, []byte{0x0b})

	const (
		vi = 0x7f
	)
	types := vec(
		[]byte{0x60, 4, vi, vi, vi, vi, 1, vi}, // fd_write, poll_oneoff
		[]byte{0x60, 1, vi, 0},                 // proc_exit
		[]byte{0x60, 0, 0},                     // _start
	)
	wasi := func(name string, typ byte) []byte {
		return cat(str("wasi_snapshot_preview1"), str(name), []byte{0x00, typ})
	}
	pages := int64(len(mem)/65536 + 1)
	return cat(
		[]byte("\x00asm\x01\x00\x00\x00"),
		section(1, types),
		section(2, vec(wasi("fd_write", 0), wasi("poll_oneoff", 0), wasi("proc_exit", 1))),
		section(3, []byte{1, 2}),
		section(5, cat([]byte{1, 0}, uleb(uint64(pages)))),
		section(7, vec(cat(str("memory"), []byte{2, 0}), cat(str("_start"), []byte{0, start}))),
		section(10, vec(cat(uleb(uint64(len(fn))), fn))),
		section(11, vec(cat([]byte{0}, i32(0), []byte{0x0b}, uleb(uint64(len(mem))), mem))),
	)
}

func cat(parts ...[]byte) []byte {
	var out []byte
	for _, p := range parts {
		out = append(out, p...)
	}
	return out
}

func vec(items ...[]byte) []byte { return append(uleb(uint64(len(items))), cat(items...)...) }

func str(s string) []byte { return append(uleb(uint64(len(s))), s...) }

func section(id byte, content []byte) []byte {
	return cat([]byte{id}, uleb(uint64(len(content))), content)
}

func uleb(v uint64) []byte { return binary.AppendUvarint(nil, v) }

func sleb(v int64) []byte {
	var b []byte
	for {
		c := byte(v & 0x7f)
		v >>= 7
		if (v == 0 && c&0x40 == 0) || (v == -1 && c&0x40 != 0) {
			return append(b, c)
		}
		b = append(b, c|0x80)
	}
}

func itoa(n int) string {
	if n < 10 {
		return string(rune('0' + n))
	}
	return itoa(n/10) + string(rune('0'+n%10))
}

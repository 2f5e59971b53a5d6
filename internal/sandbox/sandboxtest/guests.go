package sandboxtest

import (
	"fmt"
	"slices"
)

// Types of WASI functions.
var (
	i32x1  = []byte{I32}
	i32x2  = []byte{I32, I32}
	i32x4  = []byte{I32, I32, I32, I32}
	errno  = []byte{I32}
	okHead = `{"status":200,"headers":{"content-type":"text/plain"}}` + "\n"
)

// Addresses that the guests use.
const (
	addrIovec = 0  // one iovec
	addrCount = 16 // where a call says how many bytes
	addrHead  = 64 // the head line of an answer
	addrBody  = 1024
)

// write gives code that writes memory to a descriptor with fd_write, function fn.
func write(fn int, fd, at, n int32) []byte {
	return Seq(Put32(addrIovec, Const(at)), Put32(addrIovec+4, Const(n)),
		Call(fn, Const(fd), Const(addrIovec), Const(1), Const(addrCount)), Drop)
}

var fdWrite = Func{Name: "fd_write", Params: i32x4, Results: errno}

// command is a module whose _start is body; function 0 is fd_write, then imports.
func command(body []byte, imports ...Func) Module {
	return Module{
		Imports: slices.Concat([]Func{fdWrite}, imports), Memory: 4,
		Funcs: []Func{{Name: "_start", Body: body, Locals: 4}},
		Data:  []Data{{At: addrHead, Bytes: []byte(okHead)}},
	}
}

// answer writes the head and n bytes of body at addrBody.
func answer(n int32) []byte {
	return Seq(write(0, 1, addrHead, int32(len(okHead))), write(0, 1, addrBody, n))
}

// Hello answers "hello".
func Hello() []byte {
	m := command(answer(5))
	m.Data = append(m.Data, Data{At: addrBody, Bytes: []byte("hello")})
	return m.Encode()
}

// HelloHandle is Hello through handle, which returns code.
func HelloHandle(code int32) []byte {
	m := command(nil)
	m.Funcs = []Func{{Name: "handle", Results: []byte{I32}, Body: Seq(answer(5), Const(code))}}
	m.Data = append(m.Data, Data{At: addrBody, Bytes: []byte("hello")})
	return m.Encode()
}

// Echo answers with its whole standard input.
func Echo() []byte {
	read := Func{Name: "fd_read", Params: i32x4, Results: errno}
	m := command(nil, read)
	m.Funcs[0].Body = Seq(
		write(0, 1, addrHead, int32(len(okHead))),
		[]byte{0x02, 0x40, 0x03, 0x40}, // block, loop
		Put32(addrIovec, Const(addrBody)), Put32(addrIovec+4, Const(64<<10)),
		Call(1, Const(0), Const(addrIovec), Const(1), Const(addrCount)), Drop,
		Load(addrCount), []byte{0x45, 0x0d, 1}, // leave at the end of the input
		Put32(addrIovec+4, Load(addrCount)),
		Call(0, Const(1), Const(addrIovec), Const(1), Const(addrCount)), Drop,
		[]byte{0x0c, 0, 0x0b, 0x0b},
	)
	return m.Encode()
}

// Spin never ends.
func Spin() []byte { return command(Loop()).Encode() }

// SpinAloud says so before it goes on for ever.
func SpinAloud() []byte {
	m := command(Seq(write(0, 2, addrBody, 6), Loop()))
	m.Data = append(m.Data, Data{At: addrBody, Bytes: []byte("begun\n")})
	return m.Encode()
}

// Sleep waits for an hour in one call.
func Sleep() []byte {
	poll := Func{Name: "poll_oneoff", Params: i32x4, Results: errno}
	m := command(Seq(
		// A subscription to the monotonic clock (type 0, id 1), relative.
		Put32(addrBody+16, Const(1)),
		Const(addrBody+24), Const64(3600e9), []byte{0x37, 3, 0},
		Call(1, Const(addrBody), Const(addrBody+128), Const(1), Const(addrCount)), Drop), poll)
	return m.Encode()
}

// Recurse calls itself without end.
func Recurse() []byte {
	m := command(Seq(Const(1), []byte{0x10, 2}, Drop))
	m.Funcs = append(m.Funcs, Func{
		Params: i32x1, Results: i32x1,
		Body: Seq([]byte{0x20, 0}, Const(1), []byte{0x6a, 0x10, 2}, Const(1), []byte{0x6a}),
	})
	return m.Encode()
}

// Hoard takes memory, and writes to it, until it gets none, then traps.
func Hoard() []byte {
	return command(Seq([]byte{0x02, 0x40, 0x03, 0x40},
		Const(1), MemoryGrow, []byte{0x22, 0}, Const(-1), []byte{0x46, 0x0d, 1},
		[]byte{0x20, 0}, Const(16), []byte{0x74}, Const(7), []byte{0x36, 2, 0},
		[]byte{0x0c, 0, 0x0b, 0x0b}, Unreachable)).Encode()
}

// HoardTable grows a table until it cannot, then answers with how far it came: an
// i32, little endian.
func HoardTable() []byte {
	m := command(Seq([]byte{0x02, 0x40, 0x03, 0x40},
		[]byte{0xd0, 0x70}, Const(1<<16), []byte{0xfc, 15, 0}, Const(-1), []byte{0x46, 0x0d, 1},
		[]byte{0x0c, 0, 0x0b, 0x0b},
		Put32(addrBody, []byte{0xfc, 16, 0}), answer(4)))
	m.Table = 1
	return m.Encode()
}

// FloodOutput writes a head and then body without end.
func FloodOutput() []byte {
	return command(Seq(write(0, 1, addrHead, int32(len(okHead))), Loop(write(0, 1, addrBody, 64<<10)))).Encode()
}

// FloodHead writes a head line without end.
func FloodHead() []byte {
	m := command(Loop(write(0, 1, addrBody, 1<<10)))
	m.Data = append(m.Data, Data{At: addrBody, Bytes: slices.Repeat([]byte("a"), 1<<10)})
	return m.Encode()
}

// FloodLog writes n lines of 1,024 bytes with their ends, then answers.
func FloodLog(n int32) []byte {
	m := command(Seq(Times(n, 0, write(0, 2, 8192, 1024)), answer(0)))
	m.Data = append(m.Data, Data{At: 8192, Bytes: append(slices.Repeat([]byte("x"), 1023), '\n')})
	return m.Encode()
}

// Log writes text to standard error in the given pieces, then answers.
func Log(pieces ...string) []byte {
	m := command(nil)
	at := int32(8192)
	var body []byte
	for _, p := range pieces {
		m.Data = append(m.Data, Data{At: at, Bytes: []byte(p)})
		body = append(body, write(0, 2, at, int32(len(p)))...)
		at += int32(len(p))
	}
	m.Funcs[0].Body = Seq(body, answer(0))
	return m.Encode()
}

// Print writes text to standard output and ends.
func Print(text string) []byte {
	m := command(write(0, 1, addrBody, int32(len(text))))
	m.Data = append(m.Data, Data{At: addrBody, Bytes: []byte(text)})
	return m.Encode()
}

// Exit answers, then ends with a code.
func Exit(code int32) []byte {
	return command(Seq(answer(0), Call(1, Const(code))), Func{Name: "proc_exit", Params: i32x1}).Encode()
}

// Crash traps.
func Crash() []byte { return command(Unreachable).Encode() }

// Remember answers with a byte each of what it finds in its memory and in a global,
// as digits, and leaves a one in both.
func Remember() []byte {
	m := command(nil)
	m.Globals = 1
	const kept = 200_000
	zero := Const('0')
	m.Funcs[0].Body = Seq(
		Put8(addrBody, Seq(Load(kept), zero, []byte{0x6a})),
		Put8(addrBody+1, Seq([]byte{0x23, 0}, zero, []byte{0x6a})),
		// What lies above the first pages: grow, and look there too.
		Const(1), MemoryGrow, Drop,
		Put8(addrBody+2, Seq(Load(4<<16+8), zero, []byte{0x6a})),
		Put32(kept, Const(1)), Put32(4<<16+8, Const(1)), Const(1), []byte{0x24, 0},
		answer(3))
	return m.Encode()
}

// Entropy answers with 16 random bytes.
func Entropy() []byte {
	return command(Seq(Call(1, Const(addrBody), Const(16)), Drop, answer(16)),
		Func{Name: "random_get", Params: i32x2, Results: errno}).Encode()
}

// Clocks answers with the real-time and the monotonic clock, as two i64.
func Clocks() []byte {
	now := Func{Name: "clock_time_get", Params: []byte{I32, I64, I32}, Results: errno}
	return command(Seq(
		Call(1, Const(0), Const64(1), Const(addrBody)), Drop,
		Call(1, Const(1), Const64(1), Const(addrBody+8)), Drop, answer(16)), now).Encode()
}

// Environ answers with its environment and arguments, each ended by a zero byte.
func Environ() []byte {
	pair := func(name string) Func { return Func{Name: name, Params: i32x2, Results: errno} }
	m := command(nil, pair("environ_sizes_get"), pair("environ_get"), pair("args_sizes_get"), pair("args_get"))
	m.Funcs[0].Body = Seq(
		write(0, 1, addrHead, int32(len(okHead))),
		Call(1, Const(addrCount), Const(addrCount+4)), Drop,
		Call(2, Const(8192), Const(16384)), Drop,
		Put32(addrIovec, Const(16384)), Put32(addrIovec+4, Load(addrCount+4)),
		Call(0, Const(1), Const(addrIovec), Const(1), Const(addrCount)), Drop,
		Call(3, Const(addrCount), Const(addrCount+4)), Drop,
		Call(4, Const(8192), Const(16384)), Drop,
		Put32(addrIovec, Const(16384)), Put32(addrIovec+4, Load(addrCount+4)),
		Call(0, Const(1), Const(addrIovec), Const(1), Const(addrCount)), Drop)
	return m.Encode()
}

// probes are what Reach tries for each descriptor, and what it cannot be refused.
const probesEach = 5

// probedFDs is how many descriptors Reach tries, from zero.
const probedFDs = 16

// Reach tries to open files and to use descriptors and sockets, and answers with
// the error number of each try, one byte each, in order: for each descriptor
// opening "etc/passwd", opening "../../etc/passwd", asking for its directory,
// accepting a connection, and receiving.
func Reach() []byte {
	open := Func{Name: "path_open", Params: []byte{I32, I32, I32, I32, I32, I64, I64, I32, I32}, Results: errno}
	prestat := Func{Name: "fd_prestat_get", Params: i32x2, Results: errno}
	accept := Func{Name: "sock_accept", Params: []byte{I32, I32, I32}, Results: errno}
	receive := Func{Name: "sock_recv", Params: []byte{I32, I32, I32, I32, I32, I32}, Results: errno}
	paths := []string{"etc/passwd", "../../etc/passwd"}
	m := command(nil, open, prestat, accept, receive)
	var body []byte
	at := int32(addrBody)
	for fd := int32(0); fd < probedFDs; fd++ {
		for i, p := range paths {
			body = append(body, Put8(at, Call(1, Const(fd), Const(0), Const(int32(8192+i*64)), Const(int32(len(p))),
				Const(0), Const64(-1), Const64(-1), Const(0), Const(addrCount)))...)
			at++
		}
		body = append(body, Put8(at, Call(2, Const(fd), Const(9000)))...)
		body = append(body, Put8(at+1, Call(3, Const(fd), Const(0), Const(addrCount)))...)
		body = append(body, Put8(at+2, Call(4, Const(fd), Const(addrIovec), Const(1), Const(0), Const(addrCount), Const(addrCount+4)))...)
		at += 3
	}
	for i, p := range paths {
		m.Data = append(m.Data, Data{At: int32(8192 + i*64), Bytes: []byte(p)})
	}
	m.Funcs[0].Body = Seq(body, answer(probedFDs*probesEach))
	return m.Encode()
}

// Foreign imports a function that nobody provides.
func Foreign() []byte {
	return command(answer(0), Func{Name: "fetch", From: "browser"}).Encode()
}

// Greedy begins with the given memory.
func Greedy(pages uint32) []byte {
	m := command(answer(0))
	m.Memory = pages
	return m.Encode()
}

// describe names a probe of Reach.
func describe(i int) string {
	what := [probesEach]string{"path_open etc/passwd", "path_open ../../etc/passwd", "fd_prestat_get", "sock_accept", "sock_recv"}
	return fmt.Sprintf("%s on descriptor %d", what[i%probesEach], i/probesEach)
}

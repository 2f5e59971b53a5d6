package sandboxtest

import (
	"encoding/binary"
	"slices"
)

// Module is a WebAssembly module to be assembled: just what the guests here need.
type Module struct {
	Imports []Func // functions of WASI preview 1, unless From says otherwise
	Funcs   []Func
	Memory  uint32 // pages at the start
	Most    uint32 // pages at the most, 0 for no maximum
	Table   uint32 // elements at the start of a table without maximum; 0 means no table
	Globals int    // mutable i32 globals that begin at zero
	Data    []Data
}

// Func is a function: imported when it stands among the imports, where only its
// name and type count.
type Func struct {
	Name    string // exported or imported under this name
	From    string // module to import from, "" for WASI preview 1
	Params  []byte
	Results []byte
	Locals  uint32 // i32 locals besides the parameters
	Body    []byte // without the final end
}

// Data is placed in memory at the start.
type Data struct {
	At    int32
	Bytes []byte
}

// Value types.
const (
	I32 = 0x7f
	I64 = 0x7e
)

// Encode gives the module in the binary format.
func (m Module) Encode() []byte {
	var types, imports, funcs, exports, code []byte
	all := slices.Concat(m.Imports, m.Funcs)
	for i, f := range all {
		types = append(types, 0x60)
		types = append(leb(types, len(f.Params)), f.Params...)
		types = append(leb(types, len(f.Results)), f.Results...)
		if i < len(m.Imports) {
			from := f.From
			if from == "" {
				from = "wasi_snapshot_preview1"
			}
			imports = str(str(imports, from), f.Name)
			imports = leb(append(imports, 0), i)
			continue
		}
		funcs = leb(funcs, i)
		if f.Name != "" {
			exports = leb(append(str(exports, f.Name), 0), i)
		}
		body := []byte{0}
		if f.Locals > 0 {
			body = append(leb([]byte{1}, int(f.Locals)), I32)
		}
		body = append(append(body, f.Body...), 0x0b)
		code = append(leb(code, len(body)), body...)
	}
	exported := 0
	for _, f := range m.Funcs {
		if f.Name != "" {
			exported++
		}
	}
	exports = append(append(str(exports, "memory"), 2), 0)

	out := []byte("\x00asm\x01\x00\x00\x00")
	out = section(out, 1, len(all), types)
	out = section(out, 2, len(m.Imports), imports)
	out = section(out, 3, len(m.Funcs), funcs)
	if m.Table > 0 {
		out = section(out, 4, 1, leb([]byte{0x70, 0}, int(m.Table)))
	}
	memory := leb([]byte{0}, int(m.Memory))
	if m.Most > 0 {
		memory = leb(leb([]byte{1}, int(m.Memory)), int(m.Most))
	}
	out = section(out, 5, 1, memory)
	if m.Globals > 0 {
		var globals []byte
		for range m.Globals {
			globals = append(globals, I32, 1, 0x41, 0, 0x0b)
		}
		out = section(out, 6, m.Globals, globals)
	}
	out = section(out, 7, exported+1, exports)
	out = section(out, 10, len(m.Funcs), code)
	if len(m.Data) > 0 {
		var data []byte
		for _, d := range m.Data {
			data = append(append(data, 0), Const(d.At)...)
			data = append(data, 0x0b)
			data = append(leb(data, len(d.Bytes)), d.Bytes...)
		}
		out = section(out, 11, len(m.Data), data)
	}
	return out
}

func section(out []byte, id byte, count int, body []byte) []byte {
	n := leb(nil, count)
	out = leb(append(out, id), len(n)+len(body))
	return append(append(out, n...), body...)
}

func leb(b []byte, n int) []byte { return binary.AppendUvarint(b, uint64(n)) }

func str(b []byte, s string) []byte { return append(leb(b, len(s)), s...) }

// Const pushes an i32.
func Const(v int32) []byte { return sleb([]byte{0x41}, int64(v)) }

// Const64 pushes an i64.
func Const64(v int64) []byte { return sleb([]byte{0x42}, v) }

func sleb(b []byte, v int64) []byte {
	for {
		c := byte(v & 0x7f)
		v >>= 7
		if v == 0 && c&0x40 == 0 || v == -1 && c&0x40 != 0 {
			return append(b, c)
		}
		b = append(b, c|0x80)
	}
}

// Call calls function i, counting imports first, with arguments pushed before.
func Call(i int, args ...[]byte) []byte {
	return leb(append(slices.Concat(args...), 0x10), i)
}

// Seq puts pieces of code one after another.
func Seq(code ...[]byte) []byte { return slices.Concat(code...) }

// Loop runs body for ever.
func Loop(body ...[]byte) []byte {
	return Seq([]byte{0x03, 0x40}, Seq(body...), []byte{0x0c, 0, 0x0b})
}

// Times runs body n times; local counts.
func Times(n int32, local byte, body ...[]byte) []byte {
	return Seq([]byte{0x03, 0x40}, Seq(body...),
		[]byte{0x20, local}, Const(1), []byte{0x6a, 0x22, local}, Const(n), []byte{0x48, 0x0d, 0, 0x0b})
}

// Instructions without operands, or with small ones.
var (
	Drop        = []byte{0x1a}
	Unreachable = []byte{0x00}
	MemoryGrow  = []byte{0x40, 0}
)

// Put32 stores the i32 that value pushes at a fixed address.
func Put32(at int32, value []byte) []byte { return Seq(Const(at), value, []byte{0x36, 2, 0}) }

// Put8 stores the lowest byte of what value pushes.
func Put8(at int32, value []byte) []byte { return Seq(Const(at), value, []byte{0x3a, 0, 0}) }

// Load loads the i32 at a fixed address.
func Load(at int32) []byte { return Seq(Const(at), []byte{0x28, 2, 0}) }

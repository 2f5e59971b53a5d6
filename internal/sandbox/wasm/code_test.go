package wasm

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"testing"

	"github.com/casemate-dev/casemate/internal/function"
	"github.com/casemate-dev/casemate/internal/sandbox"
	st "github.com/casemate-dev/casemate/internal/sandbox/sandboxtest"
	"github.com/casemate-dev/casemate/internal/sandbox/wasm/rewrite"
	"github.com/casemate-dev/casemate/internal/sandbox/wire"
)

func compiled(tb testing.TB, code []byte) []byte {
	tb.Helper()
	b, f := compileOnce(code)
	if f != nil {
		tb.Fatal(f)
	}
	return b
}

func (e *engine) loadBytes(digest function.Digest, machine []byte, entry function.Entry) (*version, *failure) {
	return e.srv.load(wire.LoadSpec{
		Name: "guest", Digest: digest, Size: int64(len(machine)), Entry: entry, Limits: generous,
	}, machine)
}

// TestDamagedCode changes each part of the encoded form. What is noticed is stale, so
// that it is made anew; nothing panics.
func TestDamagedCode(t *testing.T) {
	t.Parallel()
	e := newEngine(t, "")
	source := st.Hello()
	good := compiled(t, source)
	c, err := decodeCode(bytes.Clone(good))
	if err != nil {
		t.Fatal(err)
	}
	head := len(codeMagic) + 8
	stub := head + int(binary.LittleEndian.Uint32(good[len(codeMagic):]))
	data := len(good) - c.Data
	native := data - c.Native
	flip := func(at int) []byte {
		b := bytes.Clone(good)
		b[at] ^= 0x20
		return b
	}
	for name, bad := range map[string][]byte{
		"nothing": {}, "the magic": flip(3), "the form": flip(len(codeMagic) - 2), "the head's length": flip(len(codeMagic)),
		"the length of the padding": flip(len(codeMagic) + 4),
		"a brace of the head":       flip(head), "the engine's release": flip(head + bytes.Index(good[head:], []byte("casemate"))),
		"the magic of the stub": flip(stub), "a section of the stub": flip(stub + 8),
		"the magic of the code": flip(native), "the release in the code": flip(native + 9), "the middle of the code": flip(native + c.Native*2/3),
		"an offset of the data": flip(data + 3), "a length of the data": flip(data + 7),
		"cut in the head": good[:head+10], "cut in the stub": good[:stub+9], "cut in the code": good[:native+100],
		"cut in the data": good[:len(good)-1], "a byte too many": append(bytes.Clone(good), 0),
		"no code": append(bytes.Clone(good[:native]), good[data:]...),
	} {
		v, f := e.loadBytes(function.DigestOf(source), bytes.Clone(bad), function.EntryCommand)
		if f == nil {
			v.unload()
			t.Errorf("%s: it is loaded", name)
			continue
		}
		if f.kind != sandbox.Stale && !(name == "an offset of the data" && f.kind == sandbox.Unavailable) && !(name == "a length of the data" && f.kind == sandbox.Unavailable) {
			t.Errorf("%s: got %v", name, f)
		}
	}
	// Code of another module, whole, under this one's digest.
	if _, f := e.loadBytes(function.DigestOf(source), compiled(t, st.Crash()), function.EntryCommand); f == nil || f.kind != sandbox.Tampered {
		t.Errorf("code of another module gave %v", f)
	}
	// After all that the right one runs.
	v, f := e.loadBytes(function.DigestOf(source), good, function.EntryCommand)
	if f != nil {
		t.Fatal(f)
	}
	defer v.unload()
	if out, f := e.call(v, ""); f != nil || !bytes.HasSuffix([]byte(out), []byte("hello")) {
		t.Errorf("got %q, %v", out, f)
	}
}

// TestCodeOfAnotherMachine is refused whatever else is right.
func TestCodeOfAnotherMachine(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*code){
		"another id":           func(c *code) { c.ID += " avx1024" },
		"no id":                func(c *code) { c.ID = "" },
		"globals below nought": func(c *code) { c.Globals = -1 },
		"more than all memory": func(c *code) { c.MemoryMin = 1<<16 + 1 },
	} {
		c, err := decodeCode(compiled(t, st.Hello()))
		if err != nil {
			t.Fatal(err)
		}
		change(c)
		b, err := c.encode()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := decodeCode(b); !errors.Is(err, errCode) {
			t.Errorf("%s: got %v", name, err)
		}
	}
	if id := CodeID(); id != CodeID() || len(id) < 30 {
		t.Errorf("the id is %q", id)
	}
}

// TestSizesThatCannotBe gives the parts sizes that are negative, or too large.
func TestSizesThatCannotBe(t *testing.T) {
	t.Parallel()
	for _, sizes := range []string{`"stub":-1`, `"native":-3,"data":3`, `"stub":9,"native":-9`, `"stub":5`, `"data":9223372036854775807`, `"stub":9223372036854775807,"native":1`} {
		head := fmt.Sprintf(`{"id":%q,%s}`, CodeID(), sizes)
		b := binary.LittleEndian.AppendUint32([]byte(codeMagic), uint32(len(head)))
		b = append(append(b, 0, 0, 0, 0), head...) // and no padding
		if _, err := decodeCode(append(b, "abc"...)); !errors.Is(err, errCode) {
			t.Errorf("%s gave %v", sizes, err)
		}
	}
}

func TestSegmentsOutside(t *testing.T) {
	t.Parallel()
	for _, s := range []rewrite.Segment{{Offset: 65_530, Data: make([]byte, 7)}, {Offset: math.MaxUint32, Data: []byte("ab")}, {Offset: 65_537}} {
		if checkSegments(&rewrite.Output{Facts: rewrite.Facts{MemoryMin: 1}, Segments: []rewrite.Segment{s}}) == nil {
			t.Errorf("%d bytes at %d are inside a page", len(s.Data), s.Offset)
		}
		c := &code{facts: facts{HasMemory: true, MemoryMin: 1}, data: packSegments([]rewrite.Segment{s})}
		if _, _, err := c.layOut(); !errors.Is(err, errCode) {
			t.Errorf("laying %d bytes out at %d gave %v", len(s.Data), s.Offset, err)
		}
	}
	for name, data := range map[string][]byte{
		"cut in its head": {0, 0, 0, 0, 1, 0, 0}, "cut in its bytes": {0, 0, 0, 0, 3, 0, 0, 0, 'a', 'b'}, "endless": {0, 0, 0, 0, 255, 255, 255, 255, 'a'},
	} {
		c := &code{facts: facts{HasMemory: true, MemoryMin: 1}, data: data}
		if _, _, err := c.layOut(); !errors.Is(err, errCode) {
			t.Errorf("a segment that is %s gave %v", name, err)
		}
	}
	c := &code{facts: facts{HasMemory: true, MemoryMin: 1}, data: packSegments([]rewrite.Segment{{Offset: 65_535, Data: []byte("x")}, {Offset: 3, Data: []byte("ab")}, {Offset: 4, Data: []byte("c")}})}
	size, pieces, err := c.layOut()
	mem := make([]byte, size)
	for _, p := range pieces {
		copy(mem[p.Offset:], p.Data)
	}
	if err != nil || size != 1<<16 || mem[65_535] != 'x' || string(mem[3:6]) != "ac\x00" {
		t.Errorf("got %q, %v", mem[3:6], err)
	}
}

func TestMadeByGo(t *testing.T) {
	t.Parallel()
	custom := func(name string) []byte {
		return append([]byte{0, byte(len(name) + 2), byte(len(name))}, name+"x"...)
	}
	const header = "\x00asm\x01\x00\x00\x00"
	for module, want := range map[string]bool{
		"": false, "\x00asm": false, header: false,
		header + string(custom("go:buildid")):                          true,
		header + string(custom("name")) + string(custom("go:buildid")): true,
		header + "\x01\x01\x00" + string(custom("go:buildid")):         false,
		header + "\x00\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01":        false,
		header + "\x00\x03\x7fab":                                      false,
		header + "\x00":                                                false,
		string(custom("go:buildid")) + header:                          false,
	} {
		if madeByGo([]byte(module)) != want {
			t.Errorf("%q: got %v", module, !want)
		}
	}
}

// FuzzDecodeCode: whatever it is, it is refused or consistent.
func FuzzDecodeCode(f *testing.F) {
	good := compiled(f, st.Hello())
	f.Add(good)
	f.Add(good[:200])
	f.Add([]byte(codeMagic + "\x02\x00\x00\x00\x00\x00\x00\x00{}"))
	f.Add(append([]byte(codeMagic+"\x10\x00\x00\x00\x01\x00\x00\x00"), `{"stub":-1,"nat`...))
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := decodeCode(b)
		if err != nil {
			if !errors.Is(err, errCode) || c != nil {
				t.Errorf("got %v, %v", c, err)
			}
			return
		}
		head, pad := binary.LittleEndian.Uint32(b[len(codeMagic):]), binary.LittleEndian.Uint32(b[len(codeMagic)+4:])
		if len(c.stub)+len(c.native)+len(c.data)+len(codeMagic)+8+int(head)+int(pad) != len(b) {
			t.Error("parts and whole differ in length")
		}
		c.MemoryMin = min(c.MemoryMin, 16) // room enough for this test
		size, pieces, err := c.layOut()
		for _, p := range pieces {
			if err == nil && p.Offset+uint64(len(p.Data)) > size {
				t.Errorf("%d bytes at %d of a memory of %d", len(p.Data), p.Offset, size)
			}
		}
	})
}

package wasm

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/casemate-dev/casemate/internal/function"
	"github.com/casemate-dev/casemate/internal/sandbox"
	st "github.com/casemate-dev/casemate/internal/sandbox/sandboxtest"
	"github.com/casemate-dev/casemate/internal/sandbox/wire"
)

// TestVersionsOfOneBase makes several versions of one program, each with a
// preparation of its own, of which no other sees anything.
func TestVersionsOfOneBase(t *testing.T) {
	t.Parallel()
	e := newEngine(t, "")
	m := keeper(nil)
	// What is initialised in the base, all versions find: a word, grown memory, a global.
	m.Funcs = append(m.Funcs, st.Func{Name: "_initialize", Body: st.Seq(
		st.Const(2), st.MemoryGrow, st.Drop, st.Put32(5<<16+64, st.Const('w')), st.Const('g'), []byte{0x24, 0})})
	m.Funcs[0].Body = st.Seq(
		st.Put8(atBody+16, st.Load(5<<16+64)), st.Put8(atBody+17, []byte{0x23, 0}),
		st.Put32(5<<16+64, st.Const('x')), st.Const('x'), []byte{0x24, 0}, reply(18))
	code := m.Encode()
	machine := compiled(t, code)
	spec := wire.LoadSpec{Name: "base", Digest: function.DigestOf(code), Size: int64(len(machine)), Entry: function.EntryHandle, Limits: generous, Base: true}
	base, f := e.srv.load(spec, machine)
	if f != nil {
		t.Fatal(f)
	}
	e.srv.versions[7] = base // unloaded with the engine
	spec.Base, spec.From, spec.Size = false, 7, 16
	spec.Prepare = 16
	var versions []*version
	for k := range 3 {
		v, f := e.srv.load(spec, fmt.Appendf(nil, "prepared for %03d", k))
		if f != nil {
			t.Fatal(f)
		}
		defer v.unload()
		if v.ready == nil {
			t.Fatal(v.why)
		}
		versions = append(versions, v)
	}
	if _, f := e.srv.load(spec, []byte("! it is not good")); f == nil || !strings.Contains(f.public, "! it is not good") {
		t.Errorf("a preparation that fails gave %v", f)
	}
	for range 3 {
		for k, v := range versions {
			e.want(v, "", fmt.Sprintf("prepared for %03dwg", k))
			wantReady(t, v)
		}
	}
	// A version has to name a base that is there, and the same program.
	for _, change := range []func(*wire.LoadSpec){
		func(s *wire.LoadSpec) { s.From = 8 },
		func(s *wire.LoadSpec) { s.Digest = function.DigestOf([]byte("another")) },
		func(s *wire.LoadSpec) { s.Prepare = 17 },
		func(s *wire.LoadSpec) { s.Prepare = -1 },
	} {
		wrong := spec
		change(&wrong)
		if _, f := e.srv.load(wrong, make([]byte, 16)); f == nil || f.kind != sandbox.Unavailable {
			t.Errorf("%+v gave %v", wrong, f)
		}
	}
	// What is no base cannot be one.
	versions[0].spec.Base = false
	e.srv.versions[9] = versions[0]
	wrong := spec
	wrong.From = 9
	if _, f := e.srv.load(wrong, make([]byte, 16)); f == nil || f.kind != sandbox.Unavailable {
		t.Errorf("a version that is no base gave %v", f)
	}
	delete(e.srv.versions, 9)
}

// TestSecondInstanceMustBeAlike has a further instance of a command come out unlike
// the first: it is not used.
func TestSecondInstanceMustBeAlike(t *testing.T) {
	t.Parallel()
	e := newEngine(t, "")
	code := command([]st.Func{fdRead}, count(512), move(0, 2, 512, 4), move(1, 0, atBody, 2), reply(2))
	for name, change := range map[string]func(v *version){
		"in nothing":     func(*version) {},
		"in a global":    func(v *version) { v.ready.globals[0]++ },
		"in its log":     func(v *version) { v.early = append(v.early, 'x') },
		"in its memory":  func(v *version) { v.ready.image = v.program.base },
		"in no less log": func(v *version) { v.early = nil },
	} {
		v := e.load(code, function.EntryCommand)
		if v.ready == nil {
			t.Fatal(v.why)
		}
		image := v.ready.image
		first := v.idle[0]
		v.idle = nil
		change(v)
		o := e.run(v, "in")
		// One that is unlike the first begins from nothing, for this invocation alone.
		if o.f != nil || o.body != "in" {
			t.Errorf("different %s, it gave %q, %v", name, o.body, o.f)
		}
		if kept := len(v.idle); (kept == 1) != (name == "in nothing") {
			t.Errorf("different %s, %d are kept", name, kept)
		}
		v.ready.image = image
		v.keep(first)
	}
}

// TestWhatIsKept looks at what waits for the next invocation: memories that hold
// nothing of the last one, and no more instances than are useful.
func TestWhatIsKept(t *testing.T) {
	t.Parallel()
	e := newEngine(t, "")
	for name, c := range byEntry([]st.Func{fdRead}, turns(1)) {
		v := e.load(c.code, c.entry)
		e.want(v, word(3), word(3))
		for _, mem := range v.spare {
			if !slices.Equal(mem.Bytes(), v.program.base.Bytes()) {
				t.Errorf("%s: a memory that waits is not as at the start", name)
			}
		}
		if v.ready == nil {
			if len(v.spare) != 1 {
				t.Errorf("%s: %d memories wait", name, len(v.spare))
			}
			continue
		}
		i := e.srv.takeInvocation(v)
		var all []*instance
		for range maxIdle + 3 {
			in, err := v.acquire(i)
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, in)
		}
		for _, in := range all {
			v.restored(in)
		}
		e.srv.giveInvocation(i)
		if len(v.idle) != maxIdle {
			t.Errorf("%s: %d instances wait", name, len(v.idle))
		}
		wantReady(t, v)
	}
}

// TestEntries refuses modules that cannot be entered as they are to be, and starts a
// command anew each time that has a start function of its own.
func TestEntries(t *testing.T) {
	t.Parallel()
	e := newEngine(t, "")
	for _, c := range []struct {
		code  []byte
		entry function.Entry
		says  string
	}{
		{st.Hello(), function.EntryHandle, "entry: command"},
		{st.HelloHandle(0), function.EntryCommand, "entry: handle"},
		{guest(nil, st.Func{Name: "other"}).Encode(), function.EntryCommand, "_start"},
		{guest(nil, st.Func{Name: "other"}).Encode(), function.EntryHandle, "handle"},
		{guest(nil, st.Func{Name: "_start", Params: one}).Encode(), function.EntryCommand, "nothing"},
		{guest(nil, st.Func{Name: "handle"}, st.Func{Name: "prepare", Params: one}).Encode(), function.EntryHandle, "prepare"},
		{st.Hello(), "both", "not known"},
	} {
		if _, f := e.tryLoad(c.code, c.entry, generous); f == nil || f.kind != sandbox.BadModule || !strings.Contains(f.public, c.says) {
			t.Errorf("%s: got %v, want it to say %q", c.entry, f, c.says)
		}
	}
	code := guest([]st.Func{fdRead}, st.Func{Name: "_start", Body: st.Seq(move(1, 0, atBody, 2), st.Put8(atBody+2, st.Load(512)), reply(3))},
		st.Func{Body: st.Put32(512, st.Const('s'))}).Encode()
	// The start section stands before that of the code, whose id is 10.
	at := 8
	for code[at] != 10 {
		size, n := binary.Uvarint(code[at+1:])
		at += 1 + n + int(size)
	}
	code = slices.Insert(code, at, 8, 1, 3)
	v := e.load(code, function.EntryCommand)
	if v.ready != nil {
		t.Error("a command with a start function is continued, where it cannot be")
	}
	for range 2 {
		e.want(v, "in", "ins")
	}
}

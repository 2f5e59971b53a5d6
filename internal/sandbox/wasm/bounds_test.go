package wasm

import (
	"strings"
	"testing"

	"github.com/casemate-dev/casemate/internal/function"
	"github.com/casemate-dev/casemate/internal/sandbox"
	st "github.com/casemate-dev/casemate/internal/sandbox/sandboxtest"
)

// TestTablesAreFresh has a guest grow its table, and tell how large it was: one element
// each time, however memory is restored.
func TestTablesAreFresh(t *testing.T) {
	t.Parallel()
	grow := st.Seq(st.Put8(atBody, st.Seq([]byte{0xfc, 16, 0}, st.Const('0'), []byte{0x6a})),
		[]byte{0xd0, 0x70}, st.Const(1), []byte{0xfc, 15, 0}, st.Drop, reply(1))
	for name, entry := range map[string]function.Entry{"_start": function.EntryCommand, "handle": function.EntryHandle} {
		m := guest(nil, st.Func{Name: name, Body: grow})
		m.Table = 1
		e := newEngine(t, "")
		v := e.load(m.Encode(), entry)
		for range 3 {
			e.want(v, "", "1")
		}
	}
}

// TestLogOfABootIsBounded has a command log more than its limit before it looks at its
// input: what is kept for each of its runs is bounded, and they say how much is lost.
func TestLogOfABootIsBounded(t *testing.T) {
	t.Parallel()
	e := newEngine(t, "")
	limits := generous
	limits.Log = 10 << 10
	m := guest([]st.Func{fdRead}, st.Func{
		Name: "_start", Locals: 1, Body: st.Seq(st.Times(100, 0, move(0, 2, 8192, 1024)), move(1, 0, 2048, 1), reply(1)),
	})
	m.Data = append(m.Data, st.Data{At: 8192, Bytes: []byte(strings.Repeat("x", 1023) + "\n")})
	v, f := e.tryLoad(m.Encode(), function.EntryCommand, limits)
	if f != nil {
		t.Fatal(f)
	}
	defer v.unload()
	if v.ready == nil {
		t.Fatal(v.why)
	}
	if len(v.early) != 10<<10 || v.excess != 90<<10 {
		t.Errorf("%d bytes are kept and %d counted as lost, of %d", len(v.early), v.excess, 100<<10)
	}
}

// TestLogIsBounded has a handler log more than its limit while it handles.
func TestLogIsBounded(t *testing.T) {
	t.Parallel()
	e := newEngine(t, "")
	limits := generous
	limits.Log = 10 << 10
	m := guest(nil, st.Func{Name: "handle", Locals: 1, Body: st.Seq(st.Times(100, 0, move(0, 2, 8192, 1024)), reply(1))})
	m.Data = append(m.Data, st.Data{At: 8192, Bytes: []byte(strings.Repeat("x", 1023) + "\n")})
	v, f := e.tryLoad(m.Encode(), function.EntryHandle, limits)
	if f != nil {
		t.Fatal(f)
	}
	defer v.unload()
	i := e.srv.takeInvocation(v)
	defer e.srv.giveInvocation(i)
	i.begin(hang, hang, noLimit)
	if f := i.explain(i.enter(), false); f != nil {
		t.Error(f)
	}
	if i.log.kept != 10<<10 || i.log.dropped != 90<<10 {
		t.Errorf("%d bytes are kept and %d counted as lost, of %d", i.log.kept, i.log.dropped, 100<<10)
	}
	i.leave()
}

// TestFuelEndsAGuest: the count of instructions ends a guest that has all the time there
// is, as it does to a command that never looks at anything while it is booted.
func TestFuelEndsAGuest(t *testing.T) {
	t.Parallel()
	e := newEngine(t, "")
	for name, c := range byEntry([]st.Func{fdRead}, turns(1)) {
		v := e.load(c.code, c.entry)
		i := e.srv.takeInvocation(v)
		i.input = append(i.input[:0], word(-1)...)
		i.begin(hang, hang, 1_000_000)
		f, spent := i.explain(i.enter(), false), i.fuelSpent
		i.leave()
		e.srv.giveInvocation(i)
		if f == nil || f.kind != sandbox.CPU {
			t.Errorf("%s: a guest without end gave %v", name, f)
		}
		if spent <= 1_000_000 || spent > 1_000_000+allowance {
			t.Errorf("%s: it spent %d", name, spent)
		}
	}
}

package rewrite_test

import (
	"bytes"
	"errors"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/casemate-dev/casemate/internal/sandbox/wasm/rewrite"
)

// refused fails the test unless the module is refused for the reason.
func refused(t *testing.T, m []byte, why string) {
	t.Helper()
	out, err := rewrite.Module(m)
	var bad *rewrite.ModuleError
	switch {
	case err == nil:
		t.Errorf("the module was let through")
	case !errors.As(err, &bad) || !strings.Contains(bad.Reason, why):
		t.Errorf("the reason is %q, want %q", err, why)
	case bad.Offset < 0 || bad.Offset > len(m) || out != nil:
		t.Errorf("offset %d of %d, output %v", bad.Offset, len(m), out)
	}
}

// with puts code into a module which has one of everything.
func with(c ...byte) []byte {
	return module(types(sig(nil, nil)), functions(0),
		section(4, vec([]byte{fun, 0, 1})), section(5, vec([]byte{0, 1})),
		section(6, vec([]byte{i32, 1, 0x41, 0, 0x0b})),
		code(body(0, 0, c...)))
}

func TestProposalsAreRefusedByName(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		m   []byte
		why string
	}{
		"return_call":          {with(0x12, 0), "tail calls"},
		"return_call_indirect": {with(0x13, 0, 0), "tail calls"},
		"try":                  {with(0x06, 0x40, 0x0b), "exception handling"},
		"try_table":            {with(0x1f, 0x40, 0, 0x0b), "exception handling"},
		"throw":                {with(0x08, 0), "exception handling"},
		"tag section":          {module(section(13, vec([]byte{0, 0}))), "exception handling"},
		"tag import":           {module(section(2, vec(cat(str("a"), str("b"), []byte{4, 0, 0})))), "exception handling"},
		"tag export":           {module(section(7, vec(export("a", 4, 0)))), "exception handling"},
		"exnref":               {module(types(sig(vals(0x69), nil))), "exception handling"},
		"atomic":               {with(0xfe, 0x10, 2, 0), "threads"},
		"shared memory":        {module(section(5, vec([]byte{3, 1, 1}))), "threads"},
		"memory64":             {module(section(5, vec([]byte{4, 1}))), "memory64"},
		"two memories":         {module(section(5, vec([]byte{0, 1}, []byte{0, 1}))), "multi-memory"},
		"import and memory": {module(section(2, vec(cat(str("a"), str("b"), []byte{2, 0, 1}))),
			section(5, vec([]byte{0, 1}))), "multi-memory"},
		"memory in load":    {with(0x41, 0, 0x28, 0x42, 1, 0, 0x1a), "multi-memory"},
		"memory in grow":    {with(0x41, 0, 0x40, 1, 0x1a), "multi-memory"},
		"call_ref":          {with(0x14, 0), "typed function references"},
		"typed reference":   {module(types(sig(vals(0x64, 0), nil))), "typed function references"},
		"table with start":  {module(section(4, vec([]byte{0x40, 0, fun, 0, 1, 0xd0, fun, 0x0b}))), "typed function references"},
		"recursive types":   {module(types([]byte{0x4e, 1, 0x60, 0, 0})), "garbage collection"},
		"struct.new":        {with(0xfb, 0, 0), "garbage collection"},
		"relaxed SIMD":      {with(0xfd, 0x80, 0x02), "relaxed SIMD"},
		"extended constant": {module(section(6, vec([]byte{i32, 0, 0x41, 1, 0x41, 2, 0x6a, 0x0b}))), "extended constant"},
		"component":         {[]byte("\x00asm\x0d\x00\x01\x00"), "component"},
	} {
		t.Run(name, func(t *testing.T) { refused(t, c.m, c.why) })
	}
}

// A module whose own indices end just before the fuel's must not get one further.
func TestModuleCannotReachItsFuel(t *testing.T) {
	t.Parallel()
	global := section(6, vec([]byte{i64, 1, 0x42, 0, 0x0b}))
	fn := func(c ...byte) []byte { // type 0, function 0, global 0: the fuel is global 1
		return module(types(sig(nil, nil)), functions(0), global, code(body(0, 0, c...)))
	}
	for name, c := range map[string]struct {
		m   []byte
		why string
	}{
		"global.set":        {fn(0x42, 0, 0x24, 1), "no global 1"},
		"global.get":        {fn(0x23, 1, 0x1a), "no global 1"},
		"without globals":   {module(types(sig(nil, nil)), functions(0), code(body(0, 0, 0x42, 0, 0x24, 0))), "no global 0"},
		"export":            {module(global, section(7, vec(export("mine", 3, 1)))), "no global 1"},
		"initial value":     {module(section(6, vec([]byte{i64, 1, 0x23, 1, 0x0b}))), "no global 1"},
		"element offset":    {module(section(4, vec([]byte{fun, 0, 1})), global, section(9, vec([]byte{0, 0x23, 1, 0x0b, 0}))), "no global 1"},
		"element":           {module(global, section(9, vec([]byte{5, fun, 1, 0x23, 1, 0x0b}))), "no global 1"},
		"data offset":       {module(section(5, vec([]byte{0, 1})), global, section(11, vec([]byte{0, 0x23, 1, 0x0b, 0}))), "no global 1"},
		"call":              {fn(0x10, 1), "no function 1"},
		"ref.func":          {fn(0xd2, 1, 0x1a), "no function 1"},
		"export of tick":    {module(section(7, vec(export("mine", 0, 0)))), "no function 0"},
		"start with tick":   {module(section(8, u(0))), "no function 0"},
		"element with tick": {module(section(4, vec([]byte{fun, 0, 1})), section(9, vec([]byte{0, 0x41, 0, 0x0b, 1, 0}))), "no function 0"},
		"type":              {fn(0x02, 1, 0x0b), "no type 1"},
		"function's type":   {module(functions(0)), "no type 0"},
		"import of tick":    {module(types(sig(nil, nil)), section(2, vec(importFunc(rewrite.ImportModule, rewrite.ImportName, 0)))), "platform's own"},
		"import alike":      {module(types(sig(nil, nil)), section(2, vec(importFunc(rewrite.ImportModule, "x", 0)))), "platform's own"},
		"same export":       {module(global, section(7, vec(export(rewrite.GlobalExport, 3, 0)))), "platform's own"},
	} {
		t.Run(name, func(t *testing.T) { refused(t, c.m, c.why) })
	}
	out := rewritten(t, fn())
	refused(t, out.Module, "platform's own")
	refused(t, out.Stub, "platform's own")
}

// The engine takes one byte for a vector instruction's number. What is one
// instruction here must not be another there.
func TestInstructionCannotHideBehindLongEncoding(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		code []byte
		why  string
	}{
		// v128.const in two bytes: the engine would see i16x8.shr_s and then a loop.
		"long vector number":  {[]byte{0xfd, 0x8c, 0x00, 0x03, 0x40, 0x0c, 0, 0x0b}, "shortest form"},
		"three bytes":         {[]byte{0xfd, 0x80, 0x81, 0x00}, "shortest form"},
		"vector number alone": {[]byte{0xfd, 0x80, 0x03, 0x40, 0x0c, 0, 0x0b}, "shortest form"},
		"vector hole":         {[]byte{0xfd, 0x9a, 0x01}, "no instruction"},
		"misc hole":           {[]byte{0xfc, 18}, "no instruction"},
		"hole":                {[]byte{0x27}, "no instruction"},
		"long block type":     {[]byte{0x02, 0xc0, 0x7f, 0x0b}, "no such type"},
		"number too long":     {[]byte{0x20, 0x80, 0x80, 0x80, 0x80, 0x80, 0x00}, "32 bits"},
		"number too large":    {[]byte{0x20, 0xff, 0xff, 0xff, 0xff, 0x1f}, "32 bits"},
		"constant too large":  {[]byte{0x41, 0xff, 0xff, 0xff, 0xff, 0x0f, 0x1a}, "32 bits"},
		"code behind the end": {[]byte{0x0b, 0x03, 0x40, 0x0c, 0, 0x0b}, "bytes too many"},
		"no end":              {[]byte{0x02, 0x40}, "does not end"},
		"several selects":     {[]byte{0x1c, 2, i32, i32}, "select"},
	} {
		t.Run(name, func(t *testing.T) { refused(t, with(c.code...), c.why) })
	}
	// The first body claims to hold the second as well.
	refused(t, module(types(sig(nil, nil)), functions(0, 0), code(cat(u(5), []byte{0, 0x0b}), body(0, 0))), "bytes too many")
}

func TestBombsAreRefused(t *testing.T) {
	t.Parallel()
	huge := []byte{0xff, 0xff, 0xff, 0xff, 0x0f}
	fn := types(sig(nil, nil))
	for name, c := range map[string]struct {
		m   []byte
		why string
	}{
		"locals":            {module(fn, functions(0), code(cat(u(8), []byte{1}, huge, []byte{i64, 0x0b}))), "locals"},
		"locals in groups":  {module(fn, functions(0), code(cat(u(16), []byte{2}, u(30_000), []byte{i64}, u(30_000), []byte{i64, 0x0b, 0, 0, 0, 0, 0, 0}))), "locals"},
		"parameters":        {module(types(sig(bytes.Repeat([]byte{i32}, 1001), nil))), "parameters"},
		"table":             {module(section(4, vec(cat([]byte{fun, 0}, u(rewrite.MaxTableElements+1))))), "tables have"},
		"several tables":    {module(section(4, vec(cat([]byte{fun, 0}, u(600_000)), cat([]byte{fun, 0}, u(600_000))))), "tables have"},
		"memory":            {module(section(5, vec(cat([]byte{0}, u(65537))))), "pages"},
		"many loops":        {module(fn, functions(0), code(body(0, 0, bytes.Repeat([]byte{0x03, 0x40, 0x0b}, 50_000)...))), "grow beyond"},
		"many grows":        {module(fn, functions(0), section(5, vec([]byte{0, 1})), code(body(0, 0, bytes.Repeat([]byte{0x40, 0x00}, 50_000)...))), "grow beyond"},
		"many globals":      {module(globals(slices.Repeat([][]byte{mutI32}, rewrite.MaxVariables+1)...)), "mutable globals"},
		"backwards limits":  {module(section(5, vec([]byte{1, 2, 1}))), "less than"},
		"repeated section":  {module(fn, fn), "repeated"},
		"section order":     {module(functions(), fn), "out of order"},
		"unknown section":   {module(section(14)), "no section id"},
		"function, no body": {module(fn, functions(0)), "have a body"},
		"body, no function": {module(fn, code(body(0, 0))), "have a body"},
		"name not UTF-8":    {module(section(7, vec(export("\xff", 0, 0)))), "UTF-8"},
		"section too long":  {module([]byte{1, 100, 0}), "does not fit"},
	} {
		t.Run(name, func(t *testing.T) { refused(t, c.m, c.why) })
	}
	most := rewritten(t, module(globals(slices.Repeat([][]byte{mutI32}, rewrite.MaxVariables)...)))
	if most.Globals != rewrite.MaxVariables {
		t.Errorf("%d globals", most.Globals)
	}
	// A count of four thousand millions, in each place that has one.
	for id := byte(1); id <= 11; id++ {
		if id == 8 {
			continue
		}
		refused(t, module(section(id, huge)), "does not fit")
	}
	refused(t, module(fn, functions(0), code(body(0, 0, cat([]byte{0x41, 0, 0x0e}, huge)...))), "does not fit")
	refused(t, module(fn, functions(0), code(cat(u(7), huge, []byte{0, 0x0b}))), "does not fit")
}

// No part of a module may make the rewriter allocate much more than it is long.
func TestMemoryIsInProportion(t *testing.T) {
	const size = 4 << 20
	fill := func(head []byte, elem ...byte) []byte {
		n := size / len(elem)
		return cat(head, u(n), bytes.Repeat(elem, n))
	}
	for name, m := range map[string][]byte{
		"types":     module(section(1, fill(nil, 0x60, 0, 0))),
		"functions": module(types(sig(nil, nil)), section(3, fill(nil, 0))),
		"imports":   module(types(sig(nil, nil)), section(2, fill(nil, 0, 0, 0, 0))),
		"exports":   module(types(sig(nil, nil)), section(7, fill(nil, 0, 3, 0))),
		"globals":   module(section(6, fill(nil, i32, 0, 0x41, 0, 0x0b))),
		"elements":  module(section(9, fill(nil, 1, 0, 0))),
		"data":      module(section(11, fill(nil, 1, 0))),
		"active":    module(memory(0, 1), section(11, fill(nil, 0, 0x41, 0, 0x0b, 0))),
		"variables": module(section(6, fill(nil, i32, 1, 0x41, 0, 0x0b))),
		"tables":    module(section(4, fill(nil, fun, 0, 0))),
		"loops":     module(types(sig(nil, nil)), functions(0), code(body(0, 0, bytes.Repeat([]byte{0x03, 0x40}, size/2)...))),
		"customs":   module(bytes.Repeat(section(0, str("x")), size/4)),
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, err := rewrite.Module(m)
		runtime.ReadMemStats(&after)
		if got := after.TotalAlloc - before.TotalAlloc; got > 16*uint64(len(m)) {
			t.Errorf("%s: %d bytes allocated for %d (%v)", name, got, len(m), err)
		}
	}
}

// Cut short at any byte, or with any byte changed, a module must not bring us down.
func TestDamagedModules(t *testing.T) {
	t.Parallel()
	for _, m := range samples() {
		for i := range m.bytes {
			_, _ = rewrite.Module(m.bytes[:i])
			for _, b := range []byte{0x00, 0x01, 0x0b, 0x7f, 0x80, 0xff, m.bytes[i] + 1} {
				damaged := bytes.Clone(m.bytes)
				damaged[i] = b
				_, _ = rewrite.Module(damaged)
			}
		}
	}
}

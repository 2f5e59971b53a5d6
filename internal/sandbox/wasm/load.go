package wasm

import (
	"errors"
	"fmt"

	"github.com/casemate-dev/casemate/internal/function"
	"github.com/casemate-dev/casemate/internal/sandbox"
	"github.com/casemate-dev/casemate/internal/sandbox/wasm/rewrite"
	"github.com/casemate-dev/casemate/internal/sandbox/wasm/wasi"
	"github.com/casemate-dev/casemate/internal/sandbox/wire"
)

// failure is an error with what the caller may know.
type failure struct {
	kind   sandbox.Kind
	public string
	cause  string
}

// Error is for tests.
func (f *failure) Error() string { return fmt.Sprintf("%s: %s: %s", f.kind, f.public, f.cause) }

func badModule(format string, args ...any) *failure {
	return &failure{kind: sandbox.BadModule, public: fmt.Sprintf(format, args...)}
}

// load makes a version ready. payload is the compiled code, unless that is in the file
// or the version is made from one that is loaded already, and then the preparation.
func (s *server) load(spec wire.LoadSpec, payload []byte) (*version, *failure) {
	if spec.Prepare < 0 || spec.Prepare > int64(len(payload)) {
		return nil, unavailable(fmt.Errorf("a preparation of %d bytes in %d", spec.Prepare, len(payload)))
	}
	split := len(payload) - int(spec.Prepare)
	prepare := payload[split:]
	code := placed{bytes: payload[:split]}
	if spec.Placed > 0 {
		var err error
		if code, err = mapPlaced(s.placedCode, spec.At, spec.Placed); err != nil {
			return nil, unavailable(err)
		}
		defer code.unmap()
	}
	p, f := s.programFor(spec, code)
	if f != nil {
		return nil, f
	}
	v := s.newVersion(spec, p, append([]byte(nil), prepare...))
	if f := v.check(); f != nil {
		v.unload()
		return nil, f
	}
	if f := v.settleOn(v.makeReady()); f != nil {
		v.unload()
		return nil, f
	}
	if spec.Base && v.ready == nil {
		v.unload()
		return nil, unavailable(errors.New("the engine cannot be shared: " + v.why))
	}
	v.prepare = nil
	if v.ready == nil {
		v.prepare = append([]byte(nil), prepare...)
	}
	return v, nil
}

// programFor gives the program that a version is made from.
func (s *server) programFor(spec wire.LoadSpec, code placed) (*program, *failure) {
	if spec.From == 0 {
		return s.newProgram(code, spec.Digest, spec.Limits.Memory)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	base := s.versions[spec.From]
	if base == nil || !base.spec.Base || base.spec.Digest != spec.Digest {
		return nil, unavailable(fmt.Errorf("stream %d holds no such base", spec.From))
	}
	base.program.retain()
	return base.program, nil
}

// check refuses what cannot run under the version's entry and limits.
func (v *version) check() *failure {
	c := v.program.code
	if f := checkEntry(c.Exports, v.spec.Entry); f != nil {
		return f
	}
	return checkStart(int64(v.start), v.spec.Limits.Memory)
}

// checkStart refuses a module that begins with more memory than its limit.
func checkStart(start, limit int64) *failure {
	if start <= limit {
		return nil
	}
	return &failure{kind: sandbox.Memory, public: fmt.Sprintf(
		"the function needs %s of memory to start and its limit is %s; raise memory in the manifest", size(start), size(limit))}
}

// makeReady boots the version, if its module's instances can be restored.
func (v *version) makeReady() error {
	if why := v.program.code.Restorable; why != "" {
		return fmt.Errorf("%w: %s", errUnready, why)
	}
	if v.program.code.HasStart && v.spec.Entry == function.EntryCommand {
		// A checkpoint can only be continued through the function it was taken in.
		return fmt.Errorf("%w: the command has a start function of its own", errUnready)
	}
	return v.bootFirst()
}

// Exports that the engine calls.
const (
	exportStart      = "_start"
	exportInitialize = "_initialize"
	exportPrepare    = "prepare"
	exportHandle     = "handle"
)

// importModule is the name under which a guest imports what is not WASI.
const importModule = "casemate"

// checkImports allows WASI preview 1, our own functions, and nothing else. Deny by
// default: what is not known here is named, with what to do.
func checkImports(imports []rewrite.Import) *failure {
	for _, i := range imports {
		if i.Kind != rewrite.KindFunc {
			return badModule("the module imports the %v %q from %q, and only functions can be provided; "+
				"link statically, without shared memory or tables", i.Kind, i.Name, i.Module)
		}
		switch i.Module {
		case wasi.ModuleName:
			if !wasi.Has(i.Name) {
				return badModule("the module imports %q, which WASI preview 1 does not have; "+
					"build for wasm32-wasip1", i.Name)
			}
		case importModule:
			if _, ok := hostFunctions()[i.Name]; !ok {
				return badModule("the module imports %q from %q, which this platform does not have; "+
					"use what its documentation lists", i.Name, i.Module)
			}
		default:
			return badModule("the module imports %q from %q, which nobody provides; "+
				"build for wasm32-wasip1 (WASI preview 1), without bindings to a browser or another host", i.Name, i.Module)
		}
	}
	return nil
}

func checkEntry(exports []rewrite.Export, entry function.Entry) *failure {
	start, hasStart := exported(exports, exportStart)
	handle, hasHandle := exported(exports, exportHandle)
	nothing := rewrite.Signature{}
	code := rewrite.Signature{Results: []rewrite.ValueType{rewrite.I32}}
	switch entry {
	case function.EntryCommand:
		if !hasStart && hasHandle {
			return badModule("the module exports handle and not _start; set entry: handle in the manifest")
		}
		if !hasStart {
			return badModule("the module does not export _start; build a program with a main function for wasm32-wasip1")
		}
		if !start.Equal(nothing) {
			return badModule("_start must take and return nothing")
		}
	case function.EntryHandle:
		if !hasHandle && hasStart {
			return badModule("the module exports _start and not handle; set entry: command in the manifest, or export handle")
		}
		if !hasHandle {
			return badModule("the module does not export a function named handle; export one that takes nothing")
		}
		if !handle.Equal(nothing) && !handle.Equal(code) {
			return badModule("handle must take nothing and return nothing or an i32")
		}
		if init, ok := exported(exports, exportInitialize); ok && !init.Equal(nothing) {
			return badModule("_initialize must take and return nothing")
		}
		if prepare, ok := exported(exports, exportPrepare); ok && !prepare.Equal(nothing) && !prepare.Equal(code) {
			return badModule("prepare must take nothing and return nothing or an i32")
		}
	default:
		return badModule("entry %q is not known; use command or handle", entry)
	}
	return nil
}

func exported(exports []rewrite.Export, name string) (rewrite.Signature, bool) {
	for _, e := range exports {
		if e.Name == name && e.Kind == rewrite.KindFunc {
			return e.Signature, true
		}
	}
	return rewrite.Signature{}, false
}

// size writes n bytes for people.
func size(n int64) string {
	switch {
	case n >= 1<<20 && n%(1<<20) == 0:
		return fmt.Sprintf("%d MiB", n>>20)
	case n >= 1<<20:
		return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20))
	case n >= 1<<10:
		return fmt.Sprintf("%d KiB", n>>10)
	}
	return fmt.Sprintf("%d bytes", n)
}

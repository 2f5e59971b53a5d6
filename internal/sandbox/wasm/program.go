package wasm

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/tetratelabs/wazero"

	"github.com/casemate-dev/casemate/internal/function"
	"github.com/casemate-dev/casemate/internal/sandbox"
	"github.com/casemate-dev/casemate/internal/sandbox/wasm/memory"
	"github.com/casemate-dev/casemate/internal/sandbox/wasm/native"
	"github.com/casemate-dev/casemate/internal/sandbox/wire"
)

// program is a module whose code the process has: what several versions may be
// made from, as all JavaScript functions are from one engine.
type program struct {
	srv    *server
	code   *code // without its bytes
	size   int64 // of the encoded form
	module wazero.CompiledModule
	base   *memory.Image // what memory begins with
	booted *state        // after _initialize, for a program that is a base; else nil

	mu   sync.Mutex
	refs int
}

// state is everything mutable in an instance, at one moment.
type state struct {
	image   *memory.Image // nil without a memory
	globals []uint64
}

func (s *state) close() {
	if s != nil && s.image != nil {
		s.image.Close()
	}
}

// newProgram attaches code whose memory begins within the limit. The caller holds one
// reference, and may unmap the code afterwards.
func (s *server) newProgram(from placed, digest function.Digest, limit int64) (*program, *failure) {
	b := from.bytes
	c, err := decodeCode(b)
	if err != nil {
		return nil, stale(err)
	}
	if c.Artifact != digest {
		return nil, tampered(digest, c.Artifact)
	}
	if f := checkImports(c.Imports); f != nil {
		return nil, f
	}
	// Before the memory is laid out, which may be gigabytes.
	if f := checkStart(int64(c.MemoryMin)*pageSize, limit); f != nil {
		return nil, f
	}
	p := &program{srv: s, code: c, size: int64(len(b)), refs: 1}
	// The engine keeps views of the stub; the rest it copies, unless it can be mapped.
	p.module, err = s.cache.Attach(context.Background(), s.runtime, bytes.Clone(c.stub), c.native, from.placer(c.native))
	if errors.Is(err, native.ErrMismatch) {
		return nil, stale(err)
	}
	if err != nil {
		return nil, unavailable(err)
	}
	start, pieces, err := c.layOut()
	if err == nil {
		p.base, err = s.memory.NewImage(start, pieces...)
	}
	c.stub, c.native, c.data = nil, nil, nil
	if err != nil {
		p.release()
		return nil, unavailable(err)
	}
	return p, nil
}

func (p *program) retain() {
	p.mu.Lock()
	p.refs++
	p.mu.Unlock()
}

func (p *program) release() {
	p.mu.Lock()
	p.refs--
	last := p.refs == 0
	p.mu.Unlock()
	if !last {
		return
	}
	_ = p.module.Close(context.Background())
	if p.base != nil {
		p.base.Close()
	}
	p.booted.close()
}

// cost estimates what the program keeps in memory, in bytes: its machine code, its
// data, and what the engine knows of its functions.
func (p *program) cost() int64 {
	return p.size + p.size/2 + int64(p.base.Size())/2 + 256<<10
}

// The failures of loading that are nobody's fault who deployed the function.

// stale means that compiled code is of no use here and must be made anew.
func stale(err error) *failure {
	return &failure{kind: sandbox.Stale, public: "the function's compiled code has to be made anew; try again", cause: err.Error()}
}

func unavailable(err error) *failure {
	return &failure{kind: sandbox.Unavailable, public: "the sandbox cannot take the function now; try again", cause: wire.Cut(err.Error(), 2<<10)}
}

func tampered(want, got function.Digest) *failure {
	return &failure{
		kind: sandbox.Tampered, public: "the stored code does not match its digest; deploy it again",
		cause: fmt.Sprintf("want %s, got %s", want, got),
	}
}

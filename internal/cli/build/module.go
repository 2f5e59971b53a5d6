package build

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
)

var errTruncated = errors.New("the module ends in the middle")

// readWasm takes a module as it is.
func readWasm(_ context.Context, j *job) ([]byte, error) { return j.output(j.source) }

// checkModule finds out what a node would refuse the module for, while the
// developer is still at it: not a core module, or not the entry that was asked for.
func checkModule(j *job, module []byte) error {
	preamble := []byte("\x00asm\x01\x00\x00\x00")
	switch {
	case !bytes.HasPrefix(module, preamble[:4]):
		return j.input("source", "the file is not WebAssembly", "name a .wasm module")
	case len(module) >= 8 && bytes.HasPrefix(module[4:], []byte("\x0d\x00\x01\x00")):
		return j.input("source", "the file is a WebAssembly component", "build a core module for WASI preview 1 (wasm32-wasip1)")
	case !bytes.HasPrefix(module, preamble):
		return j.input("source", "the file is not a version 1 WebAssembly module", "build a core module for WASI preview 1 (wasm32-wasip1)")
	}
	exports, err := exportedFunctions(module)
	if err != nil {
		return j.input("source", fmt.Sprintf("the module is malformed (%v)", err), "build it again")
	}
	if j.Entry == EntryHandle {
		switch {
		case !exports["handle"]:
			return j.input("entry", "the module exports no function handle", "export one, or use entry: command")
		case exports["_start"]:
			return j.input("entry", "the module is a command: it exports _start", "build it as a reactor, or use entry: command")
		}
		return nil
	}
	if !exports["_start"] {
		return j.input("entry", "the module exports no function _start", "give it a main, or use entry: handle for a reactor")
	}
	return nil
}

// exportedFunctions reads the names of the functions that a core module exports
// (WebAssembly core specification, sections 5.5.2 and 5.5.10).
func exportedFunctions(module []byte) (map[string]bool, error) {
	const exportSection, functionKind = 7, 0
	names := map[string]bool{}
	rest := module[8:]
	for len(rest) > 0 {
		id := rest[0]
		size, after, err := varU32(rest[1:])
		if err != nil {
			return nil, err
		}
		if uint64(size) > uint64(len(after)) {
			return nil, errTruncated
		}
		section := after[:size]
		rest = after[size:]
		if id != exportSection {
			continue
		}
		count, section, err := varU32(section)
		if err != nil {
			return nil, err
		}
		for range count {
			var length uint32
			if length, section, err = varU32(section); err != nil {
				return nil, err
			}
			if uint64(length)+1 > uint64(len(section)) {
				return nil, errTruncated
			}
			name, kind := string(section[:length]), section[length]
			if _, section, err = varU32(section[length+1:]); err != nil {
				return nil, err
			}
			if kind == functionKind {
				names[name] = true
			}
		}
	}
	return names, nil
}

// varU32 reads an unsigned LEB128 number of at most 32 bits.
func varU32(b []byte) (n uint32, rest []byte, err error) {
	var v uint64
	for i, shift := 0, 0; shift < 35; i, shift = i+1, shift+7 {
		if i >= len(b) {
			return 0, nil, errTruncated
		}
		v |= uint64(b[i]&0x7f) << shift
		if b[i]&0x80 == 0 {
			if v > math.MaxUint32 {
				return 0, nil, errors.New("a number is out of range")
			}
			return uint32(v), b[i+1:], nil
		}
	}
	return 0, nil, errors.New("a number is too long")
}

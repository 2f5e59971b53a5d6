//go:build !linux

package wasm

import "github.com/tetratelabs/wazero/experimental"

// linearMemory is one guest's memory at a time, on Go's heap: elsewhere than on
// Linux pages given back are not promised to come back zeroed.
type linearMemory struct {
	budget *budget
	limit  uint64
	mem    []byte
	peak   uint64
	held   uint64
	denied bool
}

func newLinearMemory(b *budget, limit uint64) (*linearMemory, error) {
	return &linearMemory{budget: b, limit: limit}, nil
}

func (m *linearMemory) reserve(start uint64) bool {
	m.peak, m.denied = 0, false
	if !m.budget.take(start) {
		return false
	}
	m.held = start
	return true
}

// Allocate implements experimental.MemoryAllocator.
func (m *linearMemory) Allocate(_, _ uint64) experimental.LinearMemory { return m }

// Reallocate implements experimental.LinearMemory.
func (m *linearMemory) Reallocate(size uint64) []byte {
	if size > m.limit {
		m.denied = true
		return nil
	}
	if size > m.held {
		if !m.budget.take(size - m.held) {
			m.denied = true
			return nil
		}
		m.held = size
	}
	m.peak = max(m.peak, size)
	grown := make([]byte, size)
	copy(grown, m.mem)
	m.mem = grown
	return grown
}

// Free implements experimental.LinearMemory.
func (m *linearMemory) Free() {
	m.mem = nil
	m.release()
}

func (m *linearMemory) release() {
	m.budget.give(m.held)
	m.held = 0
}

func (m *linearMemory) close() { m.mem = nil }

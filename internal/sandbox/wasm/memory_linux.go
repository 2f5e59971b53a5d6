package wasm

import (
	"fmt"

	"github.com/tetratelabs/wazero/experimental"
	"golang.org/x/sys/unix"
)

// linearMemory is one guest's memory at a time. The range is reserved once and
// stays where it is; after each guest its pages go back to the kernel, which gives
// zeroed ones to the next.
type linearMemory struct {
	budget *budget
	limit  uint64
	mem    []byte // the whole reservation
	size   uint64 // in use by the guest
	peak   uint64 // largest size since reserve
	held   uint64 // taken from the budget
	denied bool   // the guest asked for more than the limit
}

func newLinearMemory(b *budget, limit uint64) (*linearMemory, error) {
	mem, err := unix.Mmap(-1, 0, int(limit), unix.PROT_READ|unix.PROT_WRITE,
		unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_NORESERVE)
	if err != nil {
		return nil, fmt.Errorf("reserving %d bytes of address space: %v", limit, err)
	}
	// Huge pages would make a guest that touches one byte cost two megabytes.
	if err := unix.Madvise(mem, unix.MADV_NOHUGEPAGE); err != nil {
		_ = unix.Munmap(mem)
		return nil, fmt.Errorf("asking for small pages: %v", err)
	}
	return &linearMemory{budget: b, limit: limit, mem: mem}, nil
}

// reserve takes what the guest starts with from the budget. It must succeed before
// the module is instantiated, where a refusal could not be handled.
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
	m.size = size
	m.peak = max(m.peak, size)
	return m.mem[:size:size]
}

// Free implements experimental.LinearMemory.
func (m *linearMemory) Free() {
	if m.size > 0 {
		if err := unix.Madvise(m.mem[:m.size], unix.MADV_DONTNEED); err != nil {
			// The next guest would see what this one left.
			panic(fmt.Sprintf("wasm: cannot clear a guest's memory: %v", err))
		}
		m.size = 0
	}
	m.release()
}

// release gives back the budget of a guest that never came to be.
func (m *linearMemory) release() {
	m.budget.give(m.held)
	m.held = 0
}

func (m *linearMemory) close() { _ = unix.Munmap(m.mem) }

package wasi

import (
	"github.com/tetratelabs/wazero/api"
)

// maxVectors bounds the pieces of one read or write, as IOV_MAX does on Linux.
const maxVectors = 1024

// vectors calls each with every piece of memory that a list of iovec names, until
// one returns false. It gives what is wrong with the list.
func vectors(mem api.Memory, at, n uint32, each func(p []byte) bool) Errno {
	if n > maxVectors {
		return Inval
	}
	list, ok := mem.Read(at, n*8)
	if !ok {
		return Fault
	}
	for ; len(list) > 0; list = list[8:] {
		p, ok := mem.Read(le32(list), le32(list[4:]))
		if !ok {
			return Fault
		}
		if !each(p) {
			return Success
		}
	}
	return Success
}

func readSight(params []uint64) (Sight, bool) { return Input, uint32(params[0]) == 0 }

func fdRead(g Guest, mem api.Memory, params []uint64) Errno {
	fd := uint32(params[0])
	if fd != 0 || !g.Files().open(fd) {
		return Badf
	}
	var total uint32
	errno := vectors(mem, uint32(params[1]), uint32(params[2]), func(p []byte) bool {
		n := g.Read(p)
		total += uint32(n)
		return n == len(p)
	})
	if errno != Success {
		return errno
	}
	return put32(mem, uint32(params[3]), total)
}

func writeSight(params []uint64) (Sight, bool) {
	return Output, uint32(params[0]) == 1
}

func fdWrite(g Guest, mem api.Memory, params []uint64) Errno {
	fd := uint32(params[0])
	if fd == 0 || !g.Files().open(fd) {
		return Badf
	}
	var total uint32
	errno := vectors(mem, uint32(params[1]), uint32(params[2]), func(p []byte) bool {
		if fd == 1 {
			g.Write(p)
		} else {
			g.Log(p)
		}
		total += uint32(len(p))
		return true
	})
	if errno != Success {
		return errno
	}
	return put32(mem, uint32(params[3]), total)
}

func fdClose(g Guest, _ api.Memory, params []uint64) Errno {
	fd := uint32(params[0])
	if !g.Files().open(fd) {
		return Badf
	}
	g.Files().closed[fd] = true
	return Success
}

// Rights of a descriptor, of witx type rights.
const (
	rightRead  = 1 << 1
	rightWrite = 1 << 6
	rightPoll  = 1 << 27
)

// fdStatGet describes a standard descriptor: of unknown type, so that no library
// takes it for a terminal or a file.
func fdStatGet(g Guest, mem api.Memory, params []uint64) Errno {
	fd := uint32(params[0])
	if !g.Files().open(fd) {
		return Badf
	}
	var stat [24]byte
	stat[8] = rightWrite
	if fd == 0 {
		stat[8] = rightRead
	}
	stat[11] = rightPoll >> 24
	return put(mem, uint32(params[1]), stat[:])
}

// fdStatSetFlags accepts what it is given: nothing here ever blocks or appends.
func fdStatSetFlags(g Guest, _ api.Memory, params []uint64) Errno {
	if !g.Files().open(uint32(params[0])) {
		return Badf
	}
	return Success
}

func fdFilestatGet(g Guest, mem api.Memory, params []uint64) Errno {
	if !g.Files().open(uint32(params[0])) {
		return Badf
	}
	var stat [64]byte
	return put(mem, uint32(params[1]), stat[:])
}

func notSeekable(g Guest, _ api.Memory, params []uint64) Errno {
	if !g.Files().open(uint32(params[0])) {
		return Badf
	}
	return Spipe
}

func badFile(Guest, api.Memory, []uint64) Errno      { return Badf }
func notSupported(Guest, api.Memory, []uint64) Errno { return Notsup }
func schedYield(Guest, api.Memory, []uint64) Errno   { return Success }

func le32(b []byte) uint32 {
	return uint32(b[0]) | uint32(b[1])<<8 | uint32(b[2])<<16 | uint32(b[3])<<24
}

func put(mem api.Memory, at uint32, b []byte) Errno {
	if !mem.Write(at, b) {
		return Fault
	}
	return Success
}

func put32(mem api.Memory, at, v uint32) Errno {
	if !mem.WriteUint32Le(at, v) {
		return Fault
	}
	return Success
}

func put64(mem api.Memory, at uint32, v uint64) Errno {
	if !mem.WriteUint64Le(at, v) {
		return Fault
	}
	return Success
}

package wasm

import (
	"errors"
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/casemate-dev/casemate/internal/sandbox/wasm/native"
)

// mapPlaced maps code that the node placed, to be read.
func mapPlaced(file *os.File, at, size int64) (placed, error) {
	if file == nil {
		return placed{}, errors.New("code was placed, and there is no file for it")
	}
	// Reading beyond the file's end would end the process; the node says where it wrote.
	b, err := unix.Mmap(int(file.Fd()), at, int(size), unix.PROT_READ, unix.MAP_PRIVATE)
	if err != nil {
		return placed{}, fmt.Errorf("mapping code: %v", err)
	}
	return placed{bytes: b, file: file, at: at}, nil
}

func (p placed) unmap() {
	if p.file != nil {
		_ = unix.Munmap(p.bytes)
	}
}

// placer gives what maps the machine code from the file to where the engine wants it,
// nil when that cannot be. part is what the engine is given, a part of the bytes.
func (p placed) placer(part []byte) native.Place {
	if p.file == nil || len(part) == 0 {
		return nil
	}
	from := p.at + int64(uintptr(unsafe.Pointer(&part[0]))-uintptr(unsafe.Pointer(&p.bytes[0])))
	return func(into []byte, at int) bool {
		offset := from + int64(at)
		if offset%int64(os.Getpagesize()) != 0 {
			return false
		}
		// Never writable: the engine makes it executable next.
		_, err := unix.MmapPtr(int(p.file.Fd()), offset, unsafe.Pointer(&into[0]), uintptr(len(into)),
			unix.PROT_READ, unix.MAP_PRIVATE|unix.MAP_FIXED)
		return err == nil
	}
}

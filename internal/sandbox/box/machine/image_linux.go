package machine

import (
	"bytes"
	"encoding/binary"
	"errors"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// address gives the address of the machine's code in this program.
func address() *byte

// Bounds of the code, and what stands behind it.
const (
	mostCode = 1 << 10
	endMark  = "cd-machine-end.."
)

// Layout of the image: ELF with one part for headers and code, and one for the rest.
const (
	textAt     = 0x400000
	headerSize = 64
	partSize   = 56
	parts      = 3
	codeOffset = headerSize + parts*partSize
	page       = 64 << 10 // the largest there is, so that the image fits any kernel
)

// Of linux/elf.h.
const (
	elfExecutable = 2
	elfAMD64      = 62
	elfARM64      = 183
	partLoad      = 1
	partStack     = 0x6474e551
	mayExecute    = 1
	mayWrite      = 2
	mayRead       = 4
)

// Image gives the machine as an executable for the processor that this runs on.
func Image() ([]byte, error) {
	code, err := machineCode()
	if err != nil {
		return nil, err
	}
	boot := boot()
	kind := uint16(elfAMD64)
	if runtime.GOARCH == "arm64" {
		kind = elfARM64
	}
	le := binary.LittleEndian
	out := append(make([]byte, 0, page+len(boot)), "\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00"...)
	out = le.AppendUint16(le.AppendUint16(out, elfExecutable), kind)
	out = le.AppendUint32(out, 1)
	out = le.AppendUint64(out, textAt+codeOffset) // where it begins
	out = le.AppendUint64(le.AppendUint64(out, headerSize), 0)
	out = le.AppendUint32(out, 0)
	for _, n := range []uint16{headerSize, partSize, parts, 0, 0, 0} {
		out = le.AppendUint16(out, n)
	}
	part := func(kind, flags uint32, offset, at, inFile, inMemory, align uint64) {
		out = le.AppendUint32(le.AppendUint32(out, kind), flags)
		for _, n := range []uint64{offset, at, at, inFile, inMemory, align} {
			out = le.AppendUint64(out, n)
		}
	}
	part(partLoad, mayRead|mayExecute, 0, textAt, uint64(codeOffset+len(code)), uint64(codeOffset+len(code)), page)
	part(partLoad, mayRead|mayWrite, page, bootAt, uint64(len(boot)), dataAt+dataLen-bootAt, page)
	part(partStack, mayRead|mayWrite, 0, 0, 0, 0, 16)
	out = append(out, code...)
	return append(out[:page], boot...), nil // between them there are zeros
}

// Open puts the image into memory, where nobody can change it, and gives its descriptor.
func Open() (int, error) {
	image, err := Image()
	if err != nil {
		return -1, err
	}
	fd, err := unix.MemfdCreate("casemate-init", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING|unix.MFD_EXEC)
	if err == unix.EINVAL { //nolint:errorlint // a plain number; before Linux 6.3, where every one can be executed
		fd, err = unix.MemfdCreate("casemate-init", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	}
	if err != nil {
		return -1, err
	}
	n, err := unix.Write(fd, image)
	if err == nil && n < len(image) {
		err = unix.ENOSPC
	}
	if err == nil {
		_, err = unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, unix.F_SEAL_SEAL|unix.F_SEAL_SHRINK|unix.F_SEAL_GROW|unix.F_SEAL_WRITE)
	}
	if err != nil {
		_ = unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// machineCode gives a copy of the machine's code.
func machineCode() ([]byte, error) {
	all := unsafe.Slice(address(), mostCode)
	n := bytes.Index(all, []byte(endMark))
	if n < 0 {
		return nil, errors.New("the machine's code has no end")
	}
	return bytes.Clone(all[:n]), nil
}

// maxFDs is how many descriptors the kernel takes at once, and more.
const maxFDs = 256

// boot gives what the machine's memory begins with: a list that reads the real one. Its
// first eight bytes say how long its calls are, since they go elsewhere than the rest.
func boot() []byte {
	var (
		list    [5]Call
		calls   = uintptr(bootAt + bootCalls)
		at      = func(n int) uint64 { return uint64(calls + uintptr(n)*callSize) }
		vectors = at(len(list))
		control = vectors + 2*16
		header  = control + uint64(unix.CmsgSpace(4*maxFDs))
		quit    = len(list) - 1
	)
	list[0] = Call{number: unix.SYS_RECVFROM, args: [6]uintptr{Connection, callsAt, lenSize, unix.MSG_PEEK}, want: lenSize}
	list[1] = Call{number: load, args: [6]uintptr{callsAt}, rule: whatever, out: uintptr(vectors + 8)}
	list[2] = Call{number: unix.SYS_RECVMSG, args: [6]uintptr{Connection, uintptr(header), unix.MSG_CMSG_CLOEXEC}, rule: anything}
	list[3] = Call{number: load, args: [6]uintptr{bootAt}, rule: branch, other: Place(0).At()} // none has failed so far
	list[quit] = Call{number: unix.SYS_EXIT_GROUP, args: [6]uintptr{1}}

	ne := binary.NativeEndian
	out := make([]byte, bootHandler, bootLen)
	out = append(ne.AppendUint64(out, at(quit)), bytesOf(list[:])...)
	for _, n := range []uint64{callsAt, 0, dataAt, dataLen} { // struct iovec
		out = ne.AppendUint64(out, n)
	}
	out = append(out, make([]byte, header-control)...)
	// struct msghdr
	for _, n := range []uint64{0, 0, vectors, 2, control, header - control, 0} {
		out = ne.AppendUint64(out, n)
	}
	return out
}

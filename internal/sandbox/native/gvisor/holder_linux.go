package gvisor

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"runtime"
)

// sleeper makes the program that a box is held with: an ELF file of one segment that
// waits for a signal for ever. Nothing that could be in its place is on every machine.
func sleeper() ([]byte, error) {
	var machine elf.Machine
	var code []byte
	switch runtime.GOARCH {
	case "amd64":
		machine = elf.EM_X86_64
		code = []byte{
			0xb8, 34, 0, 0, 0, // mov eax, pause
			0x0f, 0x05, // syscall
			0xeb, 0xf7, // jmp to the first
		}
	case "arm64":
		machine = elf.EM_AARCH64
		for _, word := range []uint32{
			0xd2800000, 0xd2800001, 0xd2800002, 0xd2800003, 0xd2800004, // mov x0 … x4, 0
			0xd2800928, // mov x8, ppoll
			0xd4000001, // svc 0
			0x17fffff9, // b to the first
		} {
			code = binary.LittleEndian.AppendUint32(code, word)
		}
	default:
		return nil, errors.New("gVisor is for amd64 and arm64")
	}
	const headers, base = 64 + 56, 0x400000
	size := uint64(headers + len(code))
	var b bytes.Buffer
	for _, part := range []any{
		elf.Header64{
			Ident: [elf.EI_NIDENT]byte{0x7f, 'E', 'L', 'F', byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB), byte(elf.EV_CURRENT)},
			Type:  uint16(elf.ET_EXEC), Machine: uint16(machine), Version: uint32(elf.EV_CURRENT), Entry: base + headers,
			Phoff: 64, Ehsize: 64, Phentsize: 56, Phnum: 1,
		},
		elf.Prog64{Type: uint32(elf.PT_LOAD), Flags: uint32(elf.PF_R | elf.PF_X), Vaddr: base, Paddr: base, Filesz: size, Memsz: size, Align: 4096},
		code,
	} {
		if err := binary.Write(&b, binary.LittleEndian, part); err != nil {
			return nil, err
		}
	}
	return b.Bytes(), nil
}

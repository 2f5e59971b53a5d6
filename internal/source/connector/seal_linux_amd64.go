package connector

import (
	"encoding/binary"
	"fmt"

	"golang.org/x/sys/unix"
)

// seal puts a filter of system calls upon a program that was executed under ptrace by the
// calling thread and stands before its first instruction, and lets it go. A filter of
// ours cannot be upon it before: that would have to allow the execve that it is to refuse.
// So the program makes the one call itself, in front of everything else.
func seal(pid int, program []byte) error {
	if err := stopped(pid); err != nil {
		return fmt.Errorf("waiting for it: %v", err)
	}
	var was unix.PtraceRegs
	if err := unix.PtraceGetRegs(pid, &was); err != nil {
		return fmt.Errorf("reading its registers: %v", err)
	}
	at := uintptr(was.Rip)
	call := []byte{0x0f, 0x05, 0xcc} // syscall; int3
	text := make([]byte, len(call))
	if _, err := unix.PtracePeekText(pid, at, text); err != nil {
		return fmt.Errorf("reading its first instruction: %v", err)
	}
	// Below the stack's end, and its red zone, nothing is: struct sock_fprog and the program.
	stack := (uintptr(was.Rsp) - 256 - 16 - uintptr(len(program))) &^ 15
	arguments := make([]byte, 16, 16+len(program))
	binary.LittleEndian.PutUint16(arguments, uint16(len(program)/8))
	binary.LittleEndian.PutUint64(arguments[8:], uint64(stack+16))
	if _, err := unix.PtracePokeData(pid, stack, append(arguments, program...)); err != nil {
		return fmt.Errorf("writing the filter: %v", err)
	}
	if _, err := unix.PtracePokeText(pid, at, call); err != nil {
		return fmt.Errorf("writing the call: %v", err)
	}
	const setModeFilter = 1
	now := was
	now.Orig_rax = ^uint64(0) // no call is under way that could be made again
	now.Rax, now.Rdi, now.Rsi, now.Rdx = unix.SYS_SECCOMP, setModeFilter, 0, uint64(stack)
	if err := unix.PtraceSetRegs(pid, &now); err != nil {
		return fmt.Errorf("setting its registers: %v", err)
	}
	if err := unix.PtraceCont(pid, 0); err != nil {
		return fmt.Errorf("having it make the call: %v", err)
	}
	if err := stopped(pid); err != nil {
		return fmt.Errorf("waiting for the call: %v", err)
	}
	if err := unix.PtraceGetRegs(pid, &now); err != nil {
		return fmt.Errorf("reading the answer: %v", err)
	}
	if now.Rax != 0 || uintptr(now.Rip) != at+uintptr(len(call)) {
		return fmt.Errorf("adding the filter: %v", unix.Errno(-int64(now.Rax))) //nolint:gosec // how the kernel answers
	}
	if _, err := unix.PtracePokeText(pid, at, text); err != nil {
		return fmt.Errorf("restoring its first instruction: %v", err)
	}
	if err := unix.PtraceSetRegs(pid, &was); err != nil {
		return fmt.Errorf("restoring its registers: %v", err)
	}
	if err := unix.PtraceDetach(pid); err != nil {
		return fmt.Errorf("letting it go: %v", err)
	}
	return nil
}

// stopped waits until the process has stopped as one that is traced does.
func stopped(pid int) error {
	for {
		var s unix.WaitStatus
		_, err := unix.Wait4(pid, &s, unix.WALL, nil)
		switch {
		case err == unix.EINTR:
		case err != nil:
			return err
		case s.Stopped() && s.StopSignal() == unix.SIGTRAP:
			return nil
		case s.Stopped(): // by a signal from elsewhere, which it gets when it is let go
			if err := unix.PtraceCont(pid, int(s.StopSignal())); err != nil {
				return err
			}
		default:
			return fmt.Errorf("it has ended")
		}
	}
}

// canSeal says whether seal can work here.
const canSeal = true

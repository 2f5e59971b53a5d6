//go:build !linux

package process

import (
	"fmt"
	"os"
	"os/exec"
	"syscall"
)

// profile is one way to start a process: here there is one.
type profile struct{}

func profiles() []profile { return []profile{{}} }

func (profile) lacks(error) map[string]string { return nil }

func (profile) command(binary *os.File, _ uint64, memory int64) *exec.Cmd {
	return &exec.Cmd{Path: binary.Name(), Args: plan{memory: memory}.args(), Env: []string{}, Dir: "/"}
}

func startEnforces() []string { return nil }

func socketPair() (node, sandbox *os.File, err error) {
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("making a socket pair: %v", err)
	}
	for _, fd := range fds {
		syscall.CloseOnExec(fd)
		if err := syscall.SetNonblock(fd, true); err != nil {
			return nil, nil, fmt.Errorf("making a socket pair: %v", err)
		}
	}
	return os.NewFile(uintptr(fds[0]), "sandbox"), os.NewFile(uintptr(fds[1]), "node"), nil
}

// resident is not known here.
func resident(int) int64 { return 0 }

//go:build unix

package build

import (
	"os/exec"
	"syscall"
)

// ownGroup puts the tool in a process group of its own, killed as a whole, since
// compilers start compilers.
func ownGroup(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
}

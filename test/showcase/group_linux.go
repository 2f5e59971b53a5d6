package main

import (
	"os/exec"
	"syscall"
)

// ownGroup keeps Ctrl-C in the terminal from the node, which is told to stop in its
// turn, and ends the node should the showcase be killed.
func ownGroup(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
}

package unsandboxed

import "syscall"

// endWith has a process end when the thread that starts it does, which is how the kernel
// sees a node that was killed: see Launcher.starts.
func endWith(a *syscall.SysProcAttr) *syscall.SysProcAttr {
	a.Pdeathsig = syscall.SIGKILL
	return a
}

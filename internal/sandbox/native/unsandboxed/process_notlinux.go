//go:build unix && !linux

package unsandboxed

import "syscall"

func endWith(a *syscall.SysProcAttr) *syscall.SysProcAttr { return a }

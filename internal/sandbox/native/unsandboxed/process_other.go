//go:build !unix

package unsandboxed

import (
	"errors"
	"os"
	"syscall"
	"time"
)

// textBusy does not happen here.
const textBusy = syscall.Errno(0)

func ownGroup() *syscall.SysProcAttr { return nil }

func own(string) (*os.File, error) { return nil, errors.ErrUnsupported }

func killGroup(p *os.Process) { _ = p.Kill() }

func terminate(*os.Process) {}

func signalName(*os.ProcessState) string { return "" }

func processUsage(int) (time.Duration, int64, error) { return 0, 0, errors.ErrUnsupported }

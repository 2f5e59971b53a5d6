package inner

import (
	"golang.org/x/sys/unix"

	"github.com/casemate-dev/casemate/internal/sandbox/box/landlock"
	"github.com/casemate-dev/casemate/internal/sandbox/box/message"
)

// landlock sets rules for the main thread and what it forks. A kernel without Landlock
// is no failure: the node is told.
func (i *initial) landlock() error {
	abi, err := landlock.ABI()
	if err != nil {
		i.missing[message.MeasureLandlock] = "the kernel has none: " + err.Error()
		return nil
	}
	if i.exe >= 0 {
		// Rules are about paths below the root. A file from elsewhere could not be executed,
		// but one in memory, which has no path, can.
		if _, err := unix.FcntlInt(uintptr(i.exe), unix.F_GET_SEALS, 0); err != nil {
			i.missing[message.MeasureLandlock] = "the executable is neither in the root nor in memory"
			return nil
		}
	}
	if text := landlock.Missing(abi); text != "" {
		i.missing[message.MeasureLandlock] = text
	}
	rules, err := landlock.Native()
	if err == nil {
		err = landlock.Restrict(rules)
	}
	if e, ok := err.(*landlock.Error); ok { //nolint:errorlint // it is given bare
		return e.Errno
	}
	return err
}

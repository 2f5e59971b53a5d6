package inner

import (
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
	if text := landlock.Missing(abi); text != "" {
		i.missing[message.MeasureLandlock] = text
	}
	rules, err := landlock.Native()
	if i.exe >= 0 {
		// It is not below the root. The kernel reads what it executes.
		rules.Paths = append(rules.Paths, landlock.Rule{File: i.exe, Access: landlock.Read | landlock.Execute})
	}
	if err == nil {
		err = landlock.Restrict(rules)
	}
	if e, ok := err.(*landlock.Error); ok { //nolint:errorlint // it is given bare
		return e.Errno
	}
	return err
}

package contexts

import (
	"os"

	"golang.org/x/sys/windows"
)

// lock waits for the exclusive lock on path and returns what releases it. The
// system releases it too when the process ends, however it ends.
func lock(path string) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, fileMode)
	if err != nil {
		return nil, err
	}
	err = windows.LockFileEx(windows.Handle(f.Fd()), windows.LOCKFILE_EXCLUSIVE_LOCK, 0, 1, 0, new(windows.Overlapped))
	if err != nil {
		_ = f.Close() // the lock's error is the one to report
		return nil, err
	}
	return func() { _ = f.Close() }, nil // closing releases it; nothing was written
}

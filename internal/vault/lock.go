package vault

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// LockFile is held by the process that uses a data directory.
const LockFile = "lock"

// ErrInUse is matched by the error of Lock when another process holds the
// directory.
var ErrInUse = errors.New("the data directory is in use")

// InUseError names the process that holds a data directory.
type InUseError struct {
	Dir string
	PID int // 0 when it could not be read
}

// Error says who holds the directory and what to do.
func (e *InUseError) Error() string {
	who := "another process"
	if e.PID > 0 {
		who = "process " + strconv.Itoa(e.PID)
	}
	return fmt.Sprintf("locking %s: %v by %s: stop that one first, or choose another data directory", e.Dir, ErrInUse, who)
}

// Is lets errors.Is match ErrInUse.
func (e *InUseError) Is(target error) bool { return target == ErrInUse }

// Lock takes the directory for this process. The kernel gives it back when the
// process ends in whatever way, so a lock file left behind holds nobody up. The
// file itself stays: removing it would let two processes lock two files of one
// name.
func Lock(dir string) (release func() error, err error) {
	if err := privateDir(dir); err != nil {
		return nil, err
	}
	file := filepath.Join(dir, LockFile)
	f, err := os.OpenFile(file, os.O_RDWR|os.O_CREATE|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, fmt.Errorf("locking %s: %v", dir, err)
	}
	for {
		err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if !errors.Is(err, syscall.EINTR) {
			break
		}
	}
	if err != nil {
		defer f.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, &InUseError{Dir: dir, PID: readPID(f)}
		}
		return nil, fmt.Errorf("locking %s: %v", dir, err)
	}
	err = f.Truncate(0)
	if err == nil {
		_, err = f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("locking %s: %v", dir, err)
	}
	return f.Close, nil
}

func readPID(f *os.File) int {
	buf := make([]byte, 32)
	n, _ := f.ReadAt(buf, 0) // a short read is the normal end of a short file
	pid, err := strconv.Atoi(strings.TrimSpace(string(buf[:n])))
	if err != nil {
		return 0
	}
	return pid
}

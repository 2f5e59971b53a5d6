package process

import (
	"fmt"
	"io"
	"os"
	"strconv"
	"sync"

	"golang.org/x/sys/unix"
)

// codeFile is a file without a name for the compiled code of one process, which maps it
// and executes it from there: so it need not be sent, and what a guest never calls is
// never looked at. The process has it from its start, to read only, since a sealed one
// takes no descriptors; another process has another one. Room is used once, so what a
// process still has mapped never becomes something else.
type codeFile struct {
	file   *os.File
	theirs *os.File // until the process has it

	mu   sync.Mutex
	used int64
}

// newCodeFile makes one.
func newCodeFile() (*codeFile, error) {
	fd, err := unix.MemfdCreate("code", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("making a file for compiled code: %v", err)
	}
	c := &codeFile{file: os.NewFile(uintptr(fd), "code")}
	c.theirs, err = os.Open("/proc/self/fd/" + strconv.Itoa(fd))
	if err != nil {
		_ = c.file.Close()
		return nil, fmt.Errorf("making a file for compiled code: %v", err)
	}
	return c, nil
}

// room gives so many bytes, and where they are. They are given once.
func (c *codeFile) room(size int64) (io.WriterAt, int64) {
	page := int64(os.Getpagesize())
	c.mu.Lock()
	defer c.mu.Unlock()
	at := c.used
	c.used += (size + page - 1) / page * page
	return io.NewOffsetWriter(c.file, at), at
}

// drop gives the memory of some bytes back. Nobody may execute them any more.
func (c *codeFile) drop(at, size int64) {
	if c == nil || size == 0 {
		return
	}
	// When it does not work the memory comes back with the process's end.
	rc, err := c.file.SyscallConn()
	if err != nil {
		return
	}
	_ = rc.Control(func(fd uintptr) {
		_ = unix.Fallocate(int(fd), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, at, size)
	})
}

// handed closes what the process has now.
func (c *codeFile) handed() {
	if c != nil && c.theirs != nil {
		_ = c.theirs.Close()
		c.theirs = nil
	}
}

// close lets go of the file. What the process has mapped lives as long as it does.
func (c *codeFile) close() {
	if c != nil {
		c.handed()
		_ = c.file.Close()
	}
}

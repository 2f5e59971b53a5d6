//go:build unix

package connection

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// readSecret reads a file that nobody but its owner can, and that is no link: a link
// could be pointed elsewhere by somebody who may not read what it points at. Its errors
// say why, and no content.
func readSecret(file string) ([]byte, error) {
	fd, err := unix.Open(file, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("opening it: %v", err)
	}
	f := os.NewFile(uintptr(fd), file)
	defer func() { _ = f.Close() }()
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, fmt.Errorf("looking at it: %v", err)
	}
	switch {
	case st.Mode&unix.S_IFMT != unix.S_IFREG:
		return nil, errors.New("it is not an ordinary file")
	case st.Mode&0o077 != 0:
		return nil, fmt.Errorf("others can read it (mode %04o): run chmod 600 on it", st.Mode&0o777)
	case int(st.Uid) != os.Geteuid() && os.Geteuid() != 0:
		return nil, errors.New("it belongs to another user")
	}
	b, err := io.ReadAll(io.LimitReader(f, MaxSecret+1))
	switch {
	case err != nil:
		return nil, errors.New("reading it failed")
	case len(b) > MaxSecret:
		return nil, fmt.Errorf("it has more than %d bytes", MaxSecret)
	}
	if b = bytes.TrimRight(b, "\r\n"); len(b) == 0 {
		return nil, errors.New("it is empty")
	}
	return b, nil
}

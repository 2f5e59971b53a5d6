package cgroup

import (
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Error is a step that did not succeed.
type Error struct {
	Step  string
	Errno syscall.Errno
}

func (e *Error) Error() string { return e.Step + ": " + e.Errno.Error() }

// Unwrap gives the kernel's error.
func (e *Error) Unwrap() error { return e.Errno }

func failed(step string, err error) error {
	if err == nil {
		return nil
	}
	return &Error{step, number(err)}
}

// number gives the kernel's error, which is all that this package ever has.
func number(err error) syscall.Errno {
	switch e := err.(type) { //nolint:errorlint // nothing is wrapped here but by Error
	case syscall.Errno:
		return e
	case *Error:
		return e.Errno
	}
	return unix.EINVAL
}

func exists(path string) bool { return unix.Access(path, unix.F_OK) == nil }

// maxFile is more than any file of a control group holds but the lists of processes of
// large ones, which are read in parts anyway.
const maxFile = 1 << 16

// firstRead is more than most of them hold.
const firstRead = 1 << 10

func read(path string) (string, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", failed("opening "+path, err)
	}
	defer unix.Close(fd)
	buf := make([]byte, firstRead)
	n := 0
	for n < maxFile {
		if n == len(buf) {
			buf = append(buf, make([]byte, maxFile-n)...)
		}
		m, err := unix.Read(fd, buf[n:])
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return "", failed("reading "+path, err)
		}
		if m == 0 {
			break
		}
		n += m
	}
	return strings.TrimSpace(string(buf[:n])), nil
}

// write hands a value over in one call, as these files require.
func write(path, value string) error {
	fd, err := unix.Open(path, unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return failed("opening "+path, err)
	}
	defer unix.Close(fd)
	for {
		_, err = unix.Write(fd, []byte(value))
		if err != unix.EINTR {
			return failed("writing "+value+" to "+path, err)
		}
	}
}

func writeNumber(path string, v int64) error { return write(path, strconv.FormatInt(v, 10)) }

func readNumber(path string) (int64, error) {
	s, err := read(path)
	if err != nil {
		return 0, err
	}
	return parse(path, s)
}

func parse(path, s string) (int64, error) {
	v, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		return 0, &Error{"reading " + path, unix.EINVAL}
	}
	return int64(min(v, 1<<63-1)), nil
}

// field gives the value of one line of a file of lines "key value".
func field(path, key string) (int64, error) {
	s, err := read(path)
	if err != nil {
		return 0, err
	}
	return fieldOf(s, path, key)
}

func fieldOf(text, path, key string) (int64, error) {
	for line := range strings.Lines(text) {
		k, v, _ := strings.Cut(strings.TrimSpace(line), " ")
		if k == key {
			return parse(path, v)
		}
	}
	return 0, &Error{"looking for " + key + " in " + path, unix.ENODATA}
}

// processes lists who is in a group, as this program's process namespace numbers them.
func processes(dir string) ([]int, error) {
	s, err := read(dir + "/cgroup.procs")
	if err != nil {
		return nil, err
	}
	var pids []int
	for f := range strings.FieldsSeq(s) {
		if pid, err := strconv.Atoi(f); err == nil && pid > 0 {
			pids = append(pids, pid)
		}
	}
	return pids, nil
}

// children lists the groups below one.
func children(dir string) ([]string, error) {
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, failed("opening "+dir, err)
	}
	defer unix.Close(fd)
	var names, dirs []string
	buf := make([]byte, 8192)
	for {
		n, err := unix.ReadDirent(fd, buf)
		if err != nil {
			return nil, failed("listing "+dir, err)
		}
		if n == 0 {
			break
		}
		_, _, names = unix.ParseDirent(buf[:n], -1, names)
	}
	for _, name := range names {
		var st unix.Stat_t
		if unix.Lstat(dir+"/"+name, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFDIR {
			dirs = append(dirs, name)
		}
	}
	return dirs, nil
}

// tree makes and removes directories. Under the kernel's control groups that makes and
// removes all the files in them too, which a test has to do itself.
type tree struct {
	mkdir, rmdir func(path string) error
}

func kernelTree() tree {
	return tree{func(path string) error { return unix.Mkdir(path, 0o755) }, unix.Rmdir}
}

func (t tree) make(path string) error {
	err := t.mkdir(path)
	if err == unix.EEXIST { //nolint:errorlint // a plain number
		return nil
	}
	return failed("making "+path, err)
}

// patience is how often, a millisecond apart, something is tried again that the kernel
// finishes by itself.
const patience = 2000

// pause waits for a millisecond: for what the kernel tells nobody about.
func pause() { _, _ = unix.Poll(nil, 1) }

// remove removes a group. Its last process leaves it only when it has been
// waited for, or a moment later, and until then the kernel says EBUSY.
func (t tree) remove(path string) error {
	var err error
	for range patience {
		err = t.rmdir(path)
		if err == nil || err == unix.ENOENT { //nolint:errorlint // a plain number
			return nil
		}
		if err != unix.EBUSY { //nolint:errorlint // a plain number
			break
		}
		pause()
	}
	return failed("removing "+path, err)
}

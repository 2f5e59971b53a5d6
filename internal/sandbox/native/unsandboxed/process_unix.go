//go:build unix

package unsandboxed

import (
	"errors"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// ownGroup makes a process the first of a group, so that all of it can be ended.
func ownGroup() *syscall.SysProcAttr { return endWith(&syscall.SysProcAttr{Setpgid: true}) }

// own locks a folder of this user's until the file is closed, which the end of the process
// does too. It fails when another process has locked it. What somebody else put in a
// place that all may write to is not touched.
func own(dir string) (*os.File, error) {
	f, err := os.OpenFile(dir, os.O_RDONLY|syscall.O_DIRECTORY|syscall.O_NOFOLLOW, 0)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil {
		if s, ok := info.Sys().(*syscall.Stat_t); !ok || int(s.Uid) != os.Geteuid() {
			err = syscall.EPERM
		}
	}
	if err == nil {
		err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

func killGroup(p *os.Process) { _ = syscall.Kill(-p.Pid, syscall.SIGKILL) }

func terminate(p *os.Process) { _ = p.Signal(syscall.SIGTERM) }

func signalName(s *os.ProcessState) string {
	if w, ok := s.Sys().(syscall.WaitStatus); ok && w.Signaled() {
		return w.Signal().String()
	}
	return ""
}

// textBusy is how the system refuses to execute what somebody may write to.
const textBusy = syscall.ETXTBSY

// tick is the unit of times in /proc/PID/stat: 100 a second wherever Go runs.
const tick = 10 * time.Millisecond

// processUsage reads what a process and the children it waited for have used, where
// the system has /proc.
func processUsage(pid int) (time.Duration, int64, error) {
	dir := "/proc/" + strconv.Itoa(pid)
	stat, err := os.ReadFile(dir + "/stat")
	if err != nil {
		return 0, 0, err
	}
	_, rest, _ := strings.Cut(string(stat[max(0, strings.LastIndexByte(string(stat), ')')):]), " ")
	fields := strings.Fields(rest)
	if len(fields) < 15 {
		return 0, 0, errors.New("reading the process's times: their form is unknown")
	}
	var ticks int64
	for _, f := range fields[11:15] { // utime, stime, cutime, cstime: proc(5)
		n, err := strconv.ParseInt(f, 10, 64)
		if err != nil {
			return 0, 0, err
		}
		ticks += n
	}
	var peak int64
	if status, err := os.ReadFile(dir + "/status"); err == nil {
		for line := range strings.Lines(string(status)) {
			if rest, ok := strings.CutPrefix(line, "VmHWM:"); ok {
				kib, _ := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 10, 64)
				peak = kib << 10
			}
		}
	}
	return time.Duration(ticks) * tick, peak, nil
}

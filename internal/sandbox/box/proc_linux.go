package box

import (
	"os"
	"strconv"
	"strings"
	"time"
)

// tick is the unit of times in /proc/PID/stat: the kernel's USER_HZ, 100 everywhere that
// Go runs.
const tick = 10 * time.Millisecond

// resident gives the memory that a process holds, in bytes, or 0 when it has ended.
func resident(dir string) int64 {
	text, err := os.ReadFile(dir + "/statm")
	if err != nil {
		return 0
	}
	f := strings.Fields(string(text))
	if len(f) < 2 {
		return 0
	}
	pages, err := strconv.ParseInt(f[1], 10, 64)
	if err != nil {
		return 0
	}
	return pages * int64(os.Getpagesize())
}

// cpuTime gives the time that a process and those it has waited for have run.
func cpuTime(dir string) time.Duration {
	text, err := os.ReadFile(dir + "/stat")
	if err != nil {
		return 0
	}
	// The name, in parentheses, may hold anything; the fields after it are numbers.
	_, rest, ok := strings.Cut(string(text[max(0, strings.LastIndexByte(string(text), ')')):]), " ")
	f := strings.Fields(rest)
	if !ok || len(f) < 15 {
		return 0
	}
	var ticks int64
	for _, n := range f[11:15] { // utime, stime, cutime, cstime
		v, err := strconv.ParseInt(n, 10, 64)
		if err != nil {
			return 0
		}
		ticks += v
	}
	return time.Duration(ticks) * tick
}

// pidOf gives the process id behind a pidfd, in the pid namespace that /proc shows.
func pidOf(f *os.File) int {
	text, err := os.ReadFile("/proc/self/fdinfo/" + strconv.Itoa(int(f.Fd())))
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, "Pid:"); ok {
			pid, err := strconv.Atoi(strings.TrimSpace(rest))
			if err != nil || pid < 0 {
				return 0
			}
			return pid
		}
	}
	return 0
}

// processes adds up what the processes of a box use, from /proc.
func processes(pid int, u *Usage) {
	if pid == 0 {
		return
	}
	dir := "/proc/" + strconv.Itoa(pid)
	u.Memory += resident(dir)
	u.CPU += cpuTime(dir)
	text, err := os.ReadFile(dir + "/task/" + strconv.Itoa(pid) + "/children")
	if err != nil {
		return
	}
	for child := range strings.FieldsSeq(string(text)) {
		if n, err := strconv.Atoi(child); err == nil {
			processes(n, u)
		}
	}
	u.MemoryPeak = max(u.MemoryPeak, u.Memory)
}

package look

import (
	"encoding/json"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/casemate-dev/casemate/internal/sandbox/box/message"
)

// maxLinks is how many network interfaces the probe looks for.
const maxLinks = 64

// Main looks around inside a box and prints what it sees. It gives the exit code.
func Main() int {
	s := message.Sight{
		PID: os.Getpid(), UID: os.Getuid(), GID: os.Getgid(), Environment: len(os.Environ()),
		Status: map[string]string{}, Namespaces: map[string]string{}, Links: links(), Root: names("/"),
	}
	if g, err := os.Getgroups(); err == nil {
		s.Groups = len(g)
	}
	for line := range strings.Lines(text("/proc/self/status")) {
		if k, v, ok := strings.Cut(line, ":"); ok {
			switch k {
			case "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp":
				s.Status[k] = strings.TrimSpace(v)
			}
		}
	}
	for _, n := range names("/proc/self/ns") {
		s.Namespaces[n], _ = os.Readlink("/proc/self/ns/" + n)
	}
	s.Map, s.OOM = strings.TrimSpace(text("/proc/self/uid_map")), strings.TrimSpace(text("/proc/self/oom_score_adj"))
	s.Host, _ = os.Hostname()
	s.Writable = unix.Mkdir("/written", 0o700) == nil
	for fd := 3; fd < 1024; fd++ {
		if to, err := os.Readlink("/proc/self/fd/" + strconv.Itoa(fd)); err == nil && !strings.HasPrefix(to, "anon_inode:[event") {
			s.Descriptors = append(s.Descriptors, fd)
		}
	}
	for _, n := range names("/proc") {
		if pid, err := strconv.Atoi(n); err == nil && pid != s.PID {
			s.Others++
		}
	}
	var l unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_CORE, &l) == nil {
		s.Core = l.Max
	}
	if json.NewEncoder(os.Stdout).Encode(&s) != nil {
		return 1
	}
	return 0
}

func text(path string) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	return string(b)
}

func names(dir string) []string {
	f, err := os.Open(dir)
	if err != nil {
		return nil
	}
	defer func() { _ = f.Close() }()
	all, err := f.Readdirnames(-1)
	if err != nil {
		return nil
	}
	return all
}

// links names the network interfaces.
func links() []string {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return []string{err.Error()}
	}
	defer func() { _ = unix.Close(fd) }()
	var all []string
	for n := uint32(1); n <= maxLinks; n++ {
		if name := linkName(fd, n); name != "" {
			all = append(all, name)
		}
	}
	return all
}

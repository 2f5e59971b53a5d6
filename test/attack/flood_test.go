//go:build linux

package attack

import (
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/casemate-dev/casemate/internal/sandbox/box"
)

// Each flood ends at its bound and leaves nothing.
func TestFloodsAreBounded(t *testing.T) {
	m := fortress(t, box.Config{})
	places := m.places(t)
	before := inventory(t, places)
	t.Run("fork bomb", func(t *testing.T) {
		v := m.attack(t, nil, "forks")
		if v.Errno != "EAGAIN" || v.Count >= processes || v.Count < processes/2 {
			t.Errorf("%d processes, then %q", v.Count, v.Errno)
		}
		same(t, places, before)
	})
	t.Run("zombie flood", func(t *testing.T) {
		v := m.attack(t, nil, "zombies")
		if v.Errno != "EAGAIN" || v.Count >= processes {
			t.Errorf("%d processes, then %q", v.Count, v.Errno)
		}
		same(t, places, before)
	})
	t.Run("orphan flood", func(t *testing.T) {
		// The init takes note of every one, or there would be no room after the first few.
		if v := m.attack(t, nil, "orphans"); v.Errno != "" || v.Count < 2*processes {
			t.Errorf("%d orphans, then %q", v.Count, v.Errno)
		}
		same(t, places, before)
	})
	t.Run("memory bomb", func(t *testing.T) {
		m.lacks(t, box.MeasureMemory)
		x := m.start(t, m.spec(t, "probe", "memory"))
		out, _ := io.ReadAll(x.out)
		e := x.Exit()
		if !e.OOM || e.Signal != syscall.SIGKILL {
			t.Errorf("it ended with %+v: %s", e, out)
		}
		if e.MemoryPeak > memory || e.MemoryPeak < memory/2 {
			t.Errorf("it had %d bytes at most", e.MemoryPeak)
		}
		same(t, places, before)
	})
	t.Run("disk fill", func(t *testing.T) {
		v := m.attack(t, nil, "disk_fill")
		if v.Errno != "ENOSPC" && v.Errno != "" || v.Count > scratch>>10 || v.Count < scratch>>11 {
			t.Errorf("%d KiB, then %q", v.Count, v.Errno)
		}
		same(t, places, before)
	})
	t.Run("inode fill", func(t *testing.T) {
		v := m.attack(t, nil, "inode_fill")
		if v.Errno != "ENOSPC" || v.Count >= inodes {
			t.Errorf("%d files, then %q", v.Count, v.Errno)
		}
		same(t, places, before)
	})
	t.Run("file descriptors", func(t *testing.T) {
		v := m.attack(t, nil, "files")
		if v.Errno != "EMFILE" || v.Count > openFiles-3 {
			t.Errorf("%d files, then %q", v.Count, v.Errno)
		}
		same(t, places, before)
	})
	t.Run("log flood", func(t *testing.T) {
		// Who reads decides how fast it comes: the guest waits in its write.
		x := m.start(t, m.spec(t, "probe", "log"))
		if _, err := io.CopyN(io.Discard, x.out, 8<<20); err != nil {
			t.Fatal(err)
		}
		x.Kill()
		<-x.Done()
		rest, err := io.Copy(io.Discard, x.out)
		if err != nil || rest > 1<<20 {
			t.Errorf("%d bytes were still on their way, %v", rest, err)
		}
		same(t, places, before)
	})
	t.Run("computing", func(t *testing.T) {
		m.lacks(t, box.MeasureCPU)
		// For a second by the clock. A busy machine only gives it less.
		v := m.attack(t, func(s *box.Spec) { s.CPUPercent = 20 }, "spin")
		if v.Count > 400 {
			t.Errorf("it had %d thousandths of a processor, of 200", v.Count)
		}
		same(t, places, before)
	})
	t.Run("ignoring signals", func(t *testing.T) {
		x := m.start(t, m.spec(t, "probe", "forever"))
		if err := x.Signal(t.Context(), syscall.SIGTERM); err != nil {
			t.Error(err)
		}
		x.Kill()
		if e := x.Exit(); e.Signal != syscall.SIGKILL && e.Code != -1 {
			t.Errorf("it ended with %+v", e)
		}
		same(t, places, before)
	})
}

// Without its limit a flood goes further: the numbers above are the limits' doing.
func TestFloodsGoOnWithoutTheirLimit(t *testing.T) {
	m := fortress(t, box.Config{})
	t.Run("fork bomb", func(t *testing.T) {
		v := m.attack(t, func(s *box.Spec) { s.Processes = 4 * processes }, "forks")
		if v.Count < 2*processes {
			t.Errorf("%d processes, then %q", v.Count, v.Errno)
		}
	})
	t.Run("memory bomb", func(t *testing.T) {
		if v := m.attack(t, func(s *box.Spec) { s.Memory = 0 }, "memory"); v.Count != 1024 {
			t.Errorf("%d MiB, then %q", v.Count, v.Errno)
		}
	})
	t.Run("disk fill", func(t *testing.T) {
		if v := m.attack(t, func(s *box.Spec) { s.Tmp = 4 * scratch }, "disk_fill"); v.Count < 2*scratch>>10 {
			t.Errorf("%d KiB, then %q", v.Count, v.Errno)
		}
	})
	t.Run("inode fill", func(t *testing.T) {
		if v := m.attack(t, func(s *box.Spec) { s.TmpInodes = 4 * inodes }, "inode_fill"); v.Count < 2*inodes {
			t.Errorf("%d files, then %q", v.Count, v.Errno)
		}
	})
	t.Run("file descriptors", func(t *testing.T) {
		if v := m.attack(t, func(s *box.Spec) { s.OpenFiles = 4 * openFiles }, "files"); v.Count < 2*openFiles {
			t.Errorf("%d files, then %q", v.Count, v.Errno)
		}
	})
	t.Run("computing", func(t *testing.T) {
		// On one processor to itself it would have all of them; a busy machine gives it
		// less, so this asks for little more than the limit.
		if v := m.attack(t, nil, "spin"); v.Count <= 400 {
			t.Skipf("%d thousandths of a processor: the machine is busy", v.Count)
		}
	})
}

// stock is what the broker has of what a box could leave behind.
type stock struct{ groups, processes, mounts, descriptors int }

func inventory(t testing.TB, places []string) stock {
	t.Helper()
	var s stock
	pid := brokerOf(t)
	for _, dir := range places {
		s.groups += directories(t, dir)
	}
	for _, parent := range parents(t) {
		if parent == pid {
			s.processes++
		}
	}
	mounts, err := os.ReadFile("/proc/" + pid + "/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	s.mounts = strings.Count(string(mounts), "\n")
	fds, err := os.ReadDir("/proc/" + pid + "/fd")
	if err != nil {
		t.Fatal(err)
	}
	s.descriptors = len(fds)
	return s
}

// brokerOf finds the one broker that this process has started and not closed.
func brokerOf(t testing.TB) string {
	t.Helper()
	found := ""
	for pid, parent := range parents(t) {
		name, err := os.ReadFile("/proc/" + pid + "/cmdline")
		if err != nil || parent != strconv.Itoa(os.Getpid()) || !strings.HasPrefix(string(name), "casemate-box-broker") {
			continue
		}
		if found != "" {
			t.Fatal("there are two brokers")
		}
		found = pid
	}
	if found == "" {
		t.Fatal("there is no broker")
	}
	return found
}

// parents gives the parent of each process.
func parents(t testing.TB) map[string]string {
	t.Helper()
	entries, err := os.ReadDir("/proc")
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]string{}
	for _, e := range entries {
		text, err := os.ReadFile("/proc/" + e.Name() + "/stat")
		if err != nil {
			continue // not a process, or it has ended
		}
		// pid (name) state parent …, and the name may have anything in it.
		if _, rest, ok := strings.Cut(string(text[strings.LastIndexByte(string(text), ')'):]), " "); ok {
			if f := strings.Fields(rest); len(f) > 1 {
				all[e.Name()] = f[1]
			}
		}
	}
	return all
}

// places learns from a box where the broker makes groups.
func (m *machine) places(t testing.TB) []string {
	t.Helper()
	x := m.start(t, m.spec(t, "probe", "forever"))
	text, err := os.ReadFile("/proc/" + strconv.Itoa(x.PID) + "/cgroup")
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for line := range strings.Lines(string(text)) {
		f := strings.SplitN(strings.TrimSpace(line), ":", 3)
		at, _, found := strings.Cut(f[2], "/casemate/")
		if !found {
			continue
		}
		own, _, _ := strings.Cut(f[2][len(at)+len("/casemate/"):], "/")
		for _, mount := range []string{f[1], "unified", ""} {
			dir := filepath.Join("/sys/fs/cgroup", mount, at, "casemate", own)
			if _, err := os.Stat(dir); err == nil {
				all = append(all, dir)
				break
			}
		}
	}
	x.Kill()
	<-x.Done()
	return all
}

func directories(t testing.TB, dir string) int {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, e := range entries {
		if e.IsDir() {
			n++
		}
	}
	return n
}

// same checks that the broker has what it had before.
func same(t testing.TB, places []string, before stock) {
	t.Helper()
	if now := inventory(t, places); now != before {
		t.Errorf("the broker has %+v, and had %+v", now, before)
	}
}

// The inventory counts a box that runs, or it would prove nothing.
func TestInventoryCounts(t *testing.T) {
	m := fortress(t, box.Config{})
	places := m.places(t)
	before := inventory(t, places)
	x := m.start(t, m.spec(t, "probe", "forever"))
	now := inventory(t, places)
	if now.processes != before.processes+1 || now.descriptors <= before.descriptors {
		t.Errorf("with a box: %+v, without: %+v", now, before)
	}
	if m.Posture().Has(box.MeasureMemory) && now.groups <= before.groups {
		t.Errorf("with a box: %+v, without: %+v", now, before)
	}
	x.Kill()
	<-x.Done()
	same(t, places, before)
}

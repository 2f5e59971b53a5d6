package cgroup

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// fake is a tree of version 2 as the kernel's documentation describes it, made of plain
// files. It was not compared with a kernel that has controllers in version 2.
type fake struct {
	root  string
	files map[string]string // what every new group has
}

func (f fake) tree() tree {
	return tree{
		mkdir: func(path string) error {
			if err := unix.Mkdir(path, 0o755); err != nil {
				return err
			}
			for name, text := range f.files {
				if err := os.WriteFile(filepath.Join(path, name), []byte(text), 0o600); err != nil {
					return err
				}
			}
			return nil
		},
		rmdir: func(path string) error {
			dirs, err := children(path)
			if err != nil {
				return number(err)
			}
			if len(dirs) > 0 {
				return unix.EBUSY
			}
			return os.RemoveAll(path)
		},
	}
}

func (f fake) put(t *testing.T, path, text string) {
	t.Helper()
	path = filepath.Join(f.root, path)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func (f fake) has(t *testing.T, path, want string) {
	t.Helper()
	got, err := os.ReadFile(path)
	if err != nil || string(got) != want {
		t.Errorf("%s: %q, %v; want %q", path, got, err, want)
	}
}

// newFake is a machine on which this program is in /app, with one process.
func newFake(t *testing.T) (fake, Options) {
	f := fake{t.TempDir(), map[string]string{
		"cgroup.procs": "", "cgroup.subtree_control": "", "cgroup.freeze": "", "cgroup.kill": "", "cgroup.type": "domain",
		"cgroup.events": "populated 1\nfrozen 1\n", "cpu.stat": "usage_usec 1500\nuser_usec 1000\n", "cpu.max": "",
		"memory.max": "", "memory.swap.max": "", "memory.oom.group": "", "memory.current": "4096\n",
		"memory.peak": "8192\n", "memory.events": "low 0\nhigh 0\nmax 3\noom 2\noom_kill 1\noom_group_kill 1\n", "pids.max": "",
	}}
	pid := strconv.Itoa(os.Getpid())
	f.put(t, "cgroup.controllers", "cpuset cpu io memory pids")
	f.put(t, "app/cgroup.controllers", "cpu memory pids\n")
	f.put(t, "app/cgroup.type", "domain")
	f.put(t, "app/cgroup.procs", pid+"\n")
	f.put(t, "app/cgroup.subtree_control", "")
	f.put(t, "self", "0::/app\n")
	return f, Options{Name: "casemate", Self: filepath.Join(f.root, "self"), tree: f.tree()}
}

func TestVersion2AsDocumented(t *testing.T) {
	f, o := newFake(t)
	h, err := Open(f.root, o)
	if err != nil {
		t.Fatal(err)
	}
	if h.Version() != 2 || len(h.Missing()) != 0 {
		t.Fatalf("version %d, missing %v", h.Version(), h.Missing())
	}
	// The program went aside, and controllers were handed down.
	f.has(t, filepath.Join(f.root, "app/casemate.self/cgroup.procs"), strconv.Itoa(os.Getpid()))
	for _, dir := range []string{"app", "app/casemate", h.dirs[unified]} {
		// Of +memory, +pids and +cpu, written one over the other: a plain file keeps the ends.
		f.has(t, filepath.Join(f.root, strings.TrimPrefix(dir, f.root), "cgroup.subtree_control"), "+cpusry")
	}
	g, err := h.New("box", Limits{Memory: 1 << 20, Processes: 9, CPUPercent: 50})
	if err != nil {
		t.Fatal(err)
	}
	dir := g.dirs[unified]
	f.has(t, dir+"/memory.max", "1048576")
	f.has(t, dir+"/memory.swap.max", "0")
	f.has(t, dir+"/memory.oom.group", "1")
	f.has(t, dir+"/pids.max", "9")
	f.has(t, dir+"/cpu.max", "50000 100000")
	if err := g.Add(77); err != nil {
		t.Error(err)
	}
	f.has(t, dir+"/cgroup.procs", "77")
	if d, err := g.CPU(); d != 1500*time.Microsecond || err != nil {
		t.Errorf("time: %v, %v", d, err)
	}
	if n, err := g.Memory(); n != 4096 || err != nil {
		t.Errorf("memory: %d, %v", n, err)
	}
	if n, err := g.Peak(); n != 8192 || err != nil {
		t.Errorf("peak: %d, %v", n, err)
	}
	if n, err := g.OOMKills(); n != 1 || err != nil {
		t.Errorf("kills: %d, %v", n, err)
	}
	if err := g.ResetPeak(); err != nil {
		t.Error(err)
	}
	f.has(t, dir+"/memory.peak", "reset")
	if err := g.Freeze(); err != nil {
		t.Error(err)
	}
	f.has(t, dir+"/cgroup.freeze", "1")
	if err := g.Thaw(); err != nil {
		t.Error(err)
	}
	f.has(t, dir+"/cgroup.freeze", "0")
	fd, err := g.FD()
	if err != nil {
		t.Error(err)
	}
	_ = unix.Close(fd)
	g.Kill()
	f.has(t, dir+"/cgroup.kill", "1")
	if err := errors.Join(g.Remove(), h.Close()); err != nil {
		t.Error(err)
	}
	if exists(parentOf(dir)) {
		t.Error("the program's place is still there")
	}
}

func TestVersion2ThatSharesItsGroupHasNoLimits(t *testing.T) {
	f, o := newFake(t)
	f.put(t, "app/cgroup.procs", strconv.Itoa(os.Getpid())+"\n1\n")
	h, err := Open(f.root, o)
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	for _, what := range []string{Memory, Processes, CPU} {
		if why := h.Missing()[what]; !strings.Contains(why, "give this one a group of its own") {
			t.Errorf("%s: %q", what, why)
		}
	}
	if exists(filepath.Join(f.root, "app/casemate.self")) {
		t.Error("somebody was moved")
	}
	g, err := h.New("box", Limits{Memory: 1 << 20, Processes: 9, CPUPercent: 50})
	if err != nil {
		t.Fatal(err)
	}
	f.has(t, g.dirs[unified]+"/memory.max", "")
	if _, err := g.Memory(); !errors.Is(err, ErrUnsupported) {
		t.Errorf("memory: %v", err)
	}
	if d, err := g.CPU(); d == 0 || err != nil {
		t.Errorf("time: %v, %v", d, err)
	}
	if err := g.Remove(); err != nil {
		t.Error(err)
	}
}

func TestVersion2WithoutAControllerSaysWhich(t *testing.T) {
	f, o := newFake(t)
	f.put(t, "app/cgroup.controllers", "memory")
	h, err := Open(f.root, o)
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	m := h.Missing()
	if m[Memory] != "" || !strings.Contains(m[CPU], "Delegate=yes") || !strings.Contains(m[Processes], "Delegate=yes") {
		t.Errorf("%v", m)
	}
}

func TestLimitThatIsRefusedLeavesNothing(t *testing.T) {
	f, o := newFake(t)
	delete(f.files, "pids.max")
	h, err := Open(f.root, o)
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	if _, err := h.New("box", Limits{Processes: 3}); !errors.Is(err, unix.ENOENT) {
		t.Errorf("%v", err)
	}
	if exists(h.dirs[unified] + "/box") {
		t.Error("the group is still there")
	}
}

func TestFreezingThatNeverEndsIsAnError(t *testing.T) {
	f, o := newFake(t)
	f.files["cgroup.events"] = "populated 1\nfrozen 0\n"
	h, err := Open(f.root, o)
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	g, err := h.New("box", Limits{})
	if err != nil {
		t.Fatal(err)
	}
	defer g.Remove()
	if err := g.Freeze(); !errors.Is(err, unix.ETIMEDOUT) {
		t.Errorf("%v", err)
	}
	f.has(t, g.dirs[unified]+"/cgroup.freeze", "0")
}

// A machine with version 1, two of whose controllers are mounted together, seen from a
// container: our own group is not below the mount.
func TestVersion1ThatIsMountedTogether(t *testing.T) {
	f := fake{t.TempDir(), map[string]string{"cgroup.procs": "", "cpu.cfs_quota_us": "", "cpu.cfs_period_us": "", "cpuacct.usage": "5\n"}}
	f.put(t, "cpu,cpuacct/cgroup.procs", "")
	f.put(t, "self", "3:cpu,cpuacct:/docker/abc\n4:memory:/docker/abc\n0::/docker/abc\n")
	h, err := Open(f.root, Options{Name: "casemate", Self: filepath.Join(f.root, "self"), tree: f.tree()})
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	if h.dirs[cpu] == "" || h.dirs[cpu] != h.dirs[cpuacct] || !strings.HasPrefix(h.dirs[cpu], f.root+"/cpu,cpuacct/casemate/") {
		t.Errorf("%q, %q", h.dirs[cpu], h.dirs[cpuacct])
	}
	m := h.Missing()
	if m[Memory] == "" || m[Processes] == "" || m[Freezing] == "" || m[CPU] != "" || m[Usage] != "" {
		t.Errorf("missing: %v", m)
	}
	g, err := h.New("box", Limits{CPUPercent: 20})
	if err != nil {
		t.Fatal(err)
	}
	f.has(t, g.dirs[cpu]+"/cpu.cfs_quota_us", "20000")
	if err := g.Remove(); err != nil {
		t.Error(err)
	}
}

func TestMachineWithoutControlGroups(t *testing.T) {
	dir := t.TempDir()
	self := filepath.Join(dir, "self")
	if err := os.WriteFile(self, []byte("4:memory:/\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(dir, Options{Name: "casemate", Self: self}); !errors.Is(err, unix.ENOENT) {
		t.Errorf("%v", err)
	}
}

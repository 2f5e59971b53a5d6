package process

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/casemate-dev/casemate/internal/sandbox/sandboxtest"
	"github.com/casemate-dev/casemate/internal/sandbox/wasm/memory"
)

// lockedUp starts a runner with the shipped sandbox and one namespace in it.
func lockedUp(t *testing.T, way func(*Config)) (*Runner, int) {
	t.Helper()
	s := &sandboxtest.Store{}
	r := newRunner(t, s, way)
	b := &sandboxtest.Bench{T: t, Runner: r, Store: s}
	b.Want(b.Version(sandboxtest.Hello()), "hello")
	pid, ok := r.Process("alpha")
	if !ok {
		t.Fatal("no process serves the namespace")
	}
	return r, pid
}

// needs skips when this machine cannot enforce a measure, and fails where it can:
// root on Linux.
func needs(t *testing.T, r *Runner, measure string) {
	t.Helper()
	if r.Posture().Has(measure) {
		return
	}
	if os.Geteuid() == 0 {
		t.Fatalf("%s is not enforced: %+v", measure, r.Posture())
	}
	t.Skipf("%s is not enforced on this machine: %s", measure, r.Posture().Missing[measure])
}

func proc(pid int, elem ...string) string {
	return filepath.Join(append([]string{"/proc", strconv.Itoa(pid)}, elem...)...)
}

func TestSandboxHasNoEnvironment(t *testing.T) {
	t.Setenv("CASEMATE_TEST_SECRET", "do-not-inherit")
	for name, way := range map[string]func(*Config){"boxed": inBoxes(t), "unboxed": unboxed(t)} {
		_, pid := lockedUp(t, way)
		b, err := os.ReadFile(proc(pid, "environ"))
		if err != nil || len(b) > 0 {
			t.Errorf("%s: the environment is %q, %v", name, b, err)
		}
	}
}

func TestSandboxHasNoDescriptors(t *testing.T) { eachWay(t, sandboxHasNoDescriptors) }

func sandboxHasNoDescriptors(t *testing.T, way func(*Config)) {
	// Something that a careless start would hand down.
	secret, err := os.Create(filepath.Join(t.TempDir(), "secret"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = secret.Close() }()
	if _, _, e := syscall.Syscall(syscall.SYS_FCNTL, secret.Fd(), syscall.F_SETFD, 0); e != 0 {
		t.Fatal(e)
	}
	_, pid := lockedUp(t, way)
	entries, err := os.ReadDir(proc(pid, "fd"))
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"2": "pipe:", "3": "socket:", "4": "/memfd:code (deleted)"}
	own := strings.Fields(fields(t, proc(pid, "status"))["NSpid"])
	// The map of its own pages, and for the one version that is loaded the module's data
	// and the state that guests begin with.
	allowed := map[string]int{"/" + own[len(own)-1] + "/pagemap": 1, fmt.Sprintf("/%d/pagemap", pid): 1, "/memfd:image (deleted)": 2}
	for _, e := range entries {
		to, err := os.Readlink(proc(pid, "fd", e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		if e.Name() == "0" || e.Name() == "1" {
			var s unix.Stat_t
			if err := unix.Stat(proc(pid, "fd", e.Name()), &s); err != nil || s.Rdev != unix.Mkdev(1, 3) {
				t.Errorf("descriptor %s is %s, %v, want the null device", e.Name(), to, err)
			}
			continue
		}
		expected, standard := want[e.Name()]
		if standard && strings.HasPrefix(to, expected) || strings.HasPrefix(to, "anon_inode:[event") {
			continue
		}
		// Without namespaces of its own it is named by the machine's root.
		to = strings.TrimPrefix(to, "/proc")
		if allowed[to]--; allowed[to] >= 0 {
			continue
		}
		t.Errorf("descriptor %s is %s", e.Name(), to)
	}
}

func TestSandboxSeesNoFiles(t *testing.T) { eachWay(t, sandboxSeesNoFiles) }

func sandboxSeesNoFiles(t *testing.T, way func(*Config)) {
	r, pid := lockedUp(t, way)
	needs(t, r, measureMounts)
	// The places of what a box may have mounted, and has not but for its own processes.
	boxed := r.Posture().Has(measureLandlock)
	for _, dir := range []string{"", "tmp", "dev", "var/task"} {
		entries, err := os.ReadDir(proc(pid, "root", dir))
		if boxed && dir == "" {
			entries = slices.DeleteFunc(entries, func(e os.DirEntry) bool {
				return slices.Contains([]string{"tmp", "proc", "dev", "var"}, e.Name())
			})
		}
		if err != nil && (boxed || dir == "") || len(entries) > 0 {
			t.Errorf("/%s holds %v, %v", dir, entries, err)
		}
	}
	if f, err := os.Create(proc(pid, "root", "x")); !errors.Is(err, syscall.EROFS) {
		t.Errorf("creating a file in its root: %v, want a read-only file system", err)
		_ = f.Close()
	}
	mounts, err := os.ReadFile(proc(pid, "mountinfo"))
	want := 1
	if boxed {
		want = 2 // /proc
	}
	if err != nil || strings.Count(string(mounts), "\n") != want {
		t.Errorf("its mounts are %q, %v", mounts, err)
	}
	if cwd, err := os.Readlink(proc(pid, "cwd")); err != nil || cwd != "/" {
		t.Errorf("its directory is %q, %v", cwd, err)
	}
}

func TestSandboxHasNamespacesOfItsOwn(t *testing.T) { eachWay(t, sandboxHasNamespacesOfItsOwn) }

func sandboxHasNamespacesOfItsOwn(t *testing.T, way func(*Config)) {
	r, pid := lockedUp(t, way)
	needs(t, r, measureUser)
	for _, ns := range []string{"user", "mnt", "pid", "net", "ipc", "uts", "cgroup"} {
		ours, err := os.Readlink("/proc/self/ns/" + ns)
		if err != nil {
			t.Fatal(err)
		}
		theirs, err := os.Readlink(proc(pid, "ns", ns))
		if err != nil || ours == theirs {
			t.Errorf("namespace %s is %s, as ours, %v", ns, theirs, err)
		}
	}
	devices, err := os.ReadFile(proc(pid, "net", "dev"))
	if err != nil || strings.Count(string(devices), ":") != 1 || !strings.Contains(string(devices), "lo:") {
		t.Errorf("its network devices are %q, %v", devices, err)
	}
}

func TestSandboxHasNoPrivileges(t *testing.T) { eachWay(t, sandboxHasNoPrivileges) }

func sandboxHasNoPrivileges(t *testing.T, way func(*Config)) {
	r, pid := lockedUp(t, way)
	needs(t, r, measureCapabilities)
	needs(t, r, measurePrivileges)
	threads, err := os.ReadDir(proc(pid, "task"))
	if err != nil {
		t.Fatal(err)
	}
	for _, thread := range threads {
		status := fields(t, proc(pid, "task", thread.Name(), "status"))
		for _, set := range []string{"CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"} {
			if strings.Trim(status[set], "0") != "" && (set != "CapBnd" || os.Geteuid() == 0) {
				t.Errorf("thread %s has %s %s", thread.Name(), set, status[set])
			}
		}
		filters := "1" // the seal
		if r.Posture().Has(measureLandlock) {
			filters = "2" // and that of the box
		}
		if status["Seccomp"] != "2" || status["Seccomp_filters"] != filters {
			t.Errorf("thread %s has %s filters of kind %s, want %s", thread.Name(), status["Seccomp_filters"], status["Seccomp"], filters)
		}
		if status["NoNewPrivs"] != "1" {
			t.Errorf("thread %s may gain privileges", thread.Name())
		}
		if uid := strings.Fields(status["Uid"]); os.Geteuid() == 0 && (len(uid) != 4 || uid[0] < "16" || len(uid[0]) != 10) {
			t.Errorf("thread %s runs as user %v of the host", thread.Name(), uid)
		}
	}
}

func TestSandboxHasLimits(t *testing.T) { eachWay(t, sandboxHasLimits) }

func sandboxHasLimits(t *testing.T, way func(*Config)) {
	_, pid := lockedUp(t, way)
	b, err := os.ReadFile(proc(pid, "limits"))
	if err != nil {
		t.Fatal(err)
	}
	for name, most := range map[string]string{
		"Max core file size": "1", "Max locked memory": "0", "Max msgqueue size": "0",
		"Max file size": strconv.Itoa(maxFileSize), "Max open files": strconv.Itoa(maxFiles),
	} {
		_, after, _ := strings.Cut(string(b), name)
		if f := strings.Fields(after); len(f) < 2 || f[0] != most || f[1] != most {
			t.Errorf("%s is %.40q, want %s", name, after, most)
		}
	}
	if adj, err := os.ReadFile(proc(pid, "oom_score_adj")); err != nil || strings.TrimSpace(string(adj)) != "1000" {
		t.Errorf("oom_score_adj is %q, %v", adj, err)
	}
}

// TestLockedSandboxRestoresMemoryInTheBestWay: what restoring memory needs must survive
// the lockdown.
func TestLockedSandboxRestoresMemoryInTheBestWay(t *testing.T) {
	eachWay(t, lockedSandboxRestoresMemoryInTheBestWay)
}

func lockedSandboxRestoresMemoryInTheBestWay(t *testing.T, way func(*Config)) {
	pagemap, err := memory.OpenPagemap()
	if err != nil {
		t.Skipf("nobody can here: %v", err)
	}
	defer func() { _ = pagemap.Close() }()
	best, err := memory.Open(memory.NewBudget(1<<30), pagemap, "")
	if err != nil {
		t.Fatal(err)
	}
	r, _ := lockedUp(t, way)
	if got := r.Posture().Restore; got != string(best.Strategy()) {
		t.Errorf("a sandbox restores by %q, and without its walls it would by %q", got, best.Strategy())
	}
}

// TestSandboxDiesWithNode ends a node the hard way, while a guest spins, and sees
// its sandboxes go, even one whose guest keeps it from reading its connection.
func TestSandboxDiesWithNode(t *testing.T) {
	if how := os.Getenv(diesWithNode); how != "" {
		s := &sandboxtest.Store{}
		way := unboxed(t)
		if how == "boxed" {
			way = inBoxes(t)
		}
		r := newRunner(t, s, way)
		b := &sandboxtest.Bench{T: t, Runner: r, Store: s}
		v := b.Version(sandboxtest.Spin())
		if err := r.Prepare(context.Background(), v); err != nil {
			t.Fatal(err)
		}
		pid, _ := r.Process("alpha")
		if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil { // so that it cannot end by itself
			t.Fatal(err)
		}
		if _, err := fmt.Fprintf(os.Stderr, "\nsandbox %d\n", pid); err != nil {
			t.Fatal(err)
		}
		select {}
	}
	t.Parallel()
	for _, how := range []string{"boxed", "unboxed"} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			diesWith(t, how)
		})
	}
}

func diesWith(t *testing.T, how string) {
	cmd := exec.Command(os.Args[0], "-test.run=^TestSandboxDiesWithNode$")
	cmd.Env = append(os.Environ(), diesWithNode+"="+how)
	out, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	pid := 0
	for lines := bufio.NewScanner(out); lines.Scan(); {
		if n, err := fmt.Sscanf(lines.Text(), "sandbox %d", &pid); n == 1 && err == nil {
			break
		}
	}
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	if pid == 0 {
		t.Fatal("the node started no sandbox")
	}
	eventually(t, "the sandbox ends with its node", func() bool {
		b, err := os.ReadFile(proc(pid, "stat"))
		return err != nil || strings.Contains(string(b), ") Z ")
	})
}

const diesWithNode = "CASEMATE_TEST_NODE"

func fields(t *testing.T, path string) map[string]string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	m := map[string]string{}
	for line := range strings.Lines(string(b)) {
		if k, v, ok := strings.Cut(line, ":"); ok {
			m[k] = strings.TrimSpace(v)
		}
	}
	return m
}

// A program that was built with cgo cannot be started in a box, and whoever built it so is
// told what to do.
func TestDynamicProgramsAreToldApart(t *testing.T) {
	t.Parallel()
	static, err := staticBox()
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]bool{static: false, "/bin/sh": true} {
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if needsFiles(f) != want {
			t.Errorf("%s needs files: %v, want %v", path, !want, want)
		}
	}
}

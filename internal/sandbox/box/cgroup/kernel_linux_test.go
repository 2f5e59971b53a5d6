package cgroup

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// These tests are made on the machine's own control groups, as root. On the machine that
// they were written on those are version 1 with version 2 beside it, so version 2 is
// exercised in what it has without controllers: killing, freezing, counting time.

// role makes this test's program a member of a group.
const role = "CASEMATE_CGROUP_ROLE"

func TestMain(m *testing.M) {
	var err error
	switch os.Getenv(role) {
	case "":
		os.Exit(m.Run())
	case "wait": // until it is killed, or its input ends
		fmt.Fprintln(os.Stdout, "ready")
		_, err = io.Copy(io.Discard, os.Stdin)
	case "spin":
		fmt.Fprintln(os.Stdout, "ready")
		for { //nolint:staticcheck // that is what it is for
		}
	case "eat":
		err = eat()
	case "breed":
		err = breed()
	case "leave":
		err = leaveBehind()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// eat takes memory by the megabyte, once its input says so.
func eat() error {
	fmt.Fprintln(os.Stdout, "ready")
	if _, err := bufio.NewReader(os.Stdin).ReadString('\n'); err != nil {
		return err
	}
	for range 256 {
		m, err := unix.Mmap(-1, 0, 1<<20, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
		if err != nil {
			return err
		}
		for i := 0; i < len(m); i += 4096 {
			m[i] = 1
		}
	}
	fmt.Fprintln(os.Stdout, "full")
	return nil
}

// breed makes processes until it may not, and tells how many.
func breed() error {
	fmt.Fprintln(os.Stdout, "ready")
	if _, err := bufio.NewReader(os.Stdin).ReadString('\n'); err != nil {
		return err
	}
	for n := range 500 {
		cmd := exec.Command("/bin/cat")
		if _, err := cmd.StdinPipe(); err != nil {
			return err
		}
		if err := cmd.Start(); err != nil {
			fmt.Fprintln(os.Stdout, n, errors.Is(err, syscall.EAGAIN))
			return nil
		}
	}
	fmt.Fprintln(os.Stdout, "no limit")
	return nil
}

// leaveBehind is a program that dies with a group in place and a process in it.
func leaveBehind() error {
	h, err := Open(DefaultRoot, Options{Name: os.Args[1]})
	if err != nil {
		return err
	}
	g, err := h.New("left", Limits{})
	if err != nil {
		return err
	}
	cmd := exec.Command("/bin/sleep", "1000")
	cmd.Stdout = os.Stdout // ends when that process ends
	if err := cmd.Start(); err != nil {
		return err
	}
	if err := g.Add(cmd.Process.Pid); err != nil {
		return err
	}
	for _, dir := range g.dirs {
		fmt.Fprintln(os.Stdout, dir)
	}
	fmt.Fprintln(os.Stdout, "left")
	return nil
}

// member is a process for a group.
type member struct {
	*exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
}

func start(t *testing.T, as string, args ...string) *member {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	m := &member{Cmd: exec.Command(self, args...)}
	m.Env = []string{role + "=" + as, "GOGC=off"}
	m.Stderr = os.Stderr
	if m.in, err = m.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := m.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	m.out = bufio.NewReader(out)
	if err := m.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = m.Process.Kill()
		_ = m.Wait()
	})
	return m
}

func (m *member) line(t *testing.T) string {
	t.Helper()
	s, err := m.out.ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(s)
}

// open gives the machine's control groups under a name of this test's own.
func open(t *testing.T) (*Hierarchy, string) {
	t.Helper()
	return openWith(t, Options{})
}

func openWith(t *testing.T, o Options) (*Hierarchy, string) {
	t.Helper()
	name := "casemate-test-" + strconv.Itoa(os.Getpid())
	o.Name = name
	h, err := Open(DefaultRoot, o)
	if err != nil {
		t.Skipf("this machine gives no control groups: %v", err)
	}
	if h.Version() != 1 {
		_ = h.Close()
		t.Skip("this machine has version 2 alone; these tests were written on version 1")
	}
	parents := map[string]bool{}
	for _, dir := range h.dirs {
		if dir != "" {
			parents[parentOf(dir)] = true
		}
	}
	t.Cleanup(func() {
		if err := h.Close(); err != nil {
			t.Errorf("closing: %v", err)
		}
		for dir := range parents {
			if err := unix.Rmdir(dir); err != nil && !errors.Is(err, unix.ENOENT) {
				t.Errorf("something is left in %s: %v", dir, err)
			}
		}
	})
	return h, name
}

func group(t *testing.T, h *Hierarchy, name string, l Limits) *Group {
	t.Helper()
	g, err := h.New(name, l)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		g.Kill()
		if err := g.Remove(); err != nil {
			t.Errorf("removing: %v", err)
		}
		_ = g.each(func(dir string) error {
			if exists(dir) {
				t.Errorf("%s is still there", dir)
			}
			return nil
		})
	})
	return g
}

func TestMemoryIsLimitedCountedAndItsEndTold(t *testing.T) {
	h, _ := open(t)
	if why := h.Missing()[Memory]; why != "" {
		t.Skip(why)
	}
	const limit = 64 << 20
	m := start(t, "eat")
	g := group(t, h, "memory", Limits{Memory: limit})
	m.line(t)
	if err := g.Add(m.Process.Pid); err != nil {
		t.Fatal(err)
	}
	if n, err := g.OOMKills(); n != 0 || err != nil {
		t.Fatalf("before: %d, %v", n, err)
	}
	if _, err := m.in.Write([]byte("\n")); err != nil {
		t.Fatal(err)
	}
	if rest, _ := io.ReadAll(m.out); len(rest) > 0 {
		t.Errorf("256 MiB fitted into 64: %s", rest)
	}
	err := m.Wait()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
		t.Fatalf("it ended with %v", err)
	}
	if n, err := g.OOMKills(); n < 1 || err != nil {
		t.Errorf("kills: %d, %v", n, err)
	}
	peak, err := g.Peak()
	// A process that was killed for want of memory is given what it needs to end, above
	// the limit (mm/memcontrol.c, try_charge).
	const toEnd = 1 << 20
	if err != nil || peak > limit+toEnd || peak < limit/2 {
		t.Errorf("peak: %d, %v", peak, err)
	}
	if err := g.ResetPeak(); err != nil {
		t.Fatal(err)
	}
	now, err := g.Memory()
	if err != nil || now >= peak {
		t.Errorf("memory after its end: %d, %v", now, err)
	}
	if after, err := g.Peak(); after >= peak || err != nil {
		t.Errorf("peak after it was reset: %d, %v", after, err)
	}
}

func TestProcessesAreLimited(t *testing.T) {
	h, _ := open(t)
	if why := h.Missing()[Processes]; why != "" {
		t.Skip(why)
	}
	m := start(t, "breed")
	g := group(t, h, "processes", Limits{Processes: 40})
	m.line(t)
	if err := g.Add(m.Process.Pid); err != nil {
		t.Fatal(err)
	}
	if _, err := m.in.Write([]byte("\n")); err != nil {
		t.Fatal(err)
	}
	var n int
	var again bool
	if _, err := fmt.Sscan(m.line(t), &n, &again); err != nil {
		t.Fatal(err)
	}
	if n < 10 || n > 40 || !again {
		t.Errorf("%d processes beside it, and EAGAIN %t", n, again)
	}
}

func TestLimitsReachTheKernel(t *testing.T) {
	h, _ := open(t)
	g := group(t, h, "limits", Limits{Memory: 32 << 20, Processes: 7, CPUPercent: 15}) // less than a shared machine leaves to its tests
	for c, want := range map[controller]map[string]string{
		memory: {"memory.limit_in_bytes": "33554432", "memory.memsw.limit_in_bytes": "33554432", "memory.swappiness": "0"},
		pids:   {"pids.max": "7"},
		cpu:    {"cpu.cfs_quota_us": "15000", "cpu.cfs_period_us": "100000"},
	} {
		if g.dirs[c] == "" {
			continue
		}
		for file, v := range want {
			if got, err := read(g.dirs[c] + "/" + file); got != v && number(err) != unix.ENOENT {
				t.Errorf("%s: %q, %v; want %s", file, got, err, v)
			}
		}
	}
}

// A node that may use a tenth of a processor has boxes all the same.
func TestGroupsWithLessThanTheirLimitToShare(t *testing.T) {
	h, _ := open(t)
	if h.Version() != 1 || h.dirs[cpu] == "" {
		t.Skip("there is no such controller of version 1")
	}
	quota := h.dirs[cpu] + "/cpu.cfs_quota_us"
	if err := write(quota, "10000"); err != nil {
		t.Fatal(err)
	}
	for percent, want := range map[int]string{100: "-1", 10: "10000", 5: "5000"} {
		g := group(t, h, "share-"+strconv.Itoa(percent), Limits{CPUPercent: percent})
		if got, err := read(g.dirs[cpu] + "/cpu.cfs_quota_us"); got != want || err != nil {
			t.Errorf("%d %%: %q, %v; want %s", percent, got, err, want)
		}
	}
}

// All boxes together get as much of a busy machine as a process for each processor.
func TestGroupsWeighAsMuchAsTheMachineHasProcessors(t *testing.T) {
	h, _ := open(t)
	if h.Version() != 1 || h.dirs[cpu] == "" {
		t.Skip("there is no such controller of version 1")
	}
	want := strconv.Itoa(1024 * runtime.NumCPU())
	for _, dir := range []string{h.dirs[cpu], parentOf(h.dirs[cpu])} {
		if got, err := read(dir + "/cpu.shares"); got != want || err != nil {
			t.Errorf("%s: %q, %v; want %s", dir, got, err, want)
		}
	}
}

func TestGroupsMakeWay(t *testing.T) {
	h, _ := open(t)
	g := group(t, h, "polite", Limits{CPUPercent: 50})
	if err := g.Yield(true); errors.Is(err, ErrUnsupported) {
		t.Skip("this kernel has no cpu.idle, or there is no such controller")
	}
	for _, on := range []bool{true, false, true} {
		want := "0"
		if on {
			want = "1"
		}
		if err := g.Yield(on); err != nil {
			t.Fatal(err)
		}
		if got, err := read(g.dirs[cpu] + "/cpu.idle"); got != want || err != nil {
			t.Errorf("%q, %v; want %s", got, err, want)
		}
	}
	free := group(t, h, "unlimited", Limits{Memory: 32 << 20})
	if err := free.Yield(true); h.Version() == 1 && h.dirs[cpu] != h.dirs[cpuacct] && !errors.Is(err, ErrUnsupported) {
		t.Errorf("a group without that controller gave %v", err)
	}
}

// TestNoLimitNoCompetitionAsOne: a group of the cpu controller competes as one with
// everything beside it, so what has no limit of processors has none.
func TestNoLimitNoCompetitionAsOne(t *testing.T) {
	h, _ := open(t)
	if h.Version() != 1 || h.dirs[cpu] == "" || h.dirs[cpu] == h.dirs[cpuacct] {
		t.Skip("here a group has that controller whether it is limited or not")
	}
	g := group(t, h, "free", Limits{Memory: 32 << 20})
	if g.dirs[cpu] != "" || exists(h.dirs[cpu]+"/free") || g.dirs[memory] == "" {
		t.Errorf("it has the groups %q", g.dirs)
	}
}

// TestWhatVersion2DoesBesideVersion1: what it does needs no directories elsewhere.
func TestWhatVersion2DoesBesideVersion1(t *testing.T) {
	h, _ := open(t)
	if h.Version() != 1 || h.dirs[unified] == "" {
		t.Skip("there are not both of them")
	}
	g := group(t, h, "spared", Limits{})
	if g.dirs[freezer] != "" || g.dirs[cpuacct] != "" || len(h.Missing()) > 0 {
		t.Errorf("it has the groups %q, and misses %v", g.dirs, h.Missing())
	}
	for _, fd := range g.Meters() {
		_ = unix.Close(fd)
	}
	if _, err := g.CPU(); err != nil {
		t.Error(err)
	}
}

// variants are the ways in which a machine may offer freezing and killing.
func variants(t *testing.T, f func(t *testing.T, h *Hierarchy)) {
	t.Run("version 1 and 2", func(t *testing.T) {
		h, _ := open(t)
		if h.dirs[unified] == "" {
			t.Skip("this machine has version 1 alone")
		}
		f(t, h)
	})
	t.Run("version 1", func(t *testing.T) {
		h, _ := openWith(t, Options{alone: true})
		if h.dirs[freezer] == "" {
			t.Skip("no freezer")
		}
		f(t, h)
	})
	t.Run("version 2", func(t *testing.T) {
		root := DefaultRoot + "/unified"
		name := "casemate-test-" + strconv.Itoa(os.Getpid())
		h, err := Open(root, Options{Name: name})
		if err != nil {
			t.Skipf("no version 2 on this machine: %v", err)
		}
		t.Cleanup(func() {
			if err := errors.Join(h.Close(), unix.Rmdir(parentOf(h.dirs[unified]))); err != nil {
				t.Error(err)
			}
		})
		if h.Version() != 2 {
			t.Errorf("version %d", h.Version())
		}
		f(t, h)
	})
}

func TestFrozenProcessesStandStillAndCanBeKilled(t *testing.T) {
	variants(t, func(t *testing.T, h *Hierarchy) {
		g := group(t, h, "frozen", Limits{})
		m := start(t, "spin")
		m.line(t)
		if err := g.Add(m.Process.Pid); err != nil {
			t.Fatal(err)
		}
		if err := g.Freeze(); err != nil {
			t.Fatal(err)
		}
		// It is said to be frozen, so from now on its time does not pass.
		before, err := g.CPU()
		if err != nil {
			t.Fatal(err)
		}
		work(20 * time.Millisecond)
		if after, err := g.CPU(); after != before || err != nil {
			t.Errorf("frozen, it computed for %v, %v", after-before, err)
		}
		if err := g.Thaw(); err != nil {
			t.Fatal(err)
		}
		for { // until it has gone on, or the test's own time is over
			now, err := g.CPU()
			if err != nil {
				t.Fatal(err)
			}
			if now > before+time.Millisecond {
				break
			}
		}
		if err := g.Freeze(); err != nil {
			t.Fatal(err)
		}
		g.Kill()
		if err := m.Wait(); err == nil || err.Error() != "signal: killed" {
			t.Errorf("it ended with %v", err)
		}
	})
}

// work computes until this process has done so for a while.
func work(d time.Duration) {
	used := func() time.Duration {
		var ts unix.Timespec
		_ = unix.ClockGettime(unix.CLOCK_PROCESS_CPUTIME_ID, &ts)
		return time.Duration(ts.Nano())
	}
	for end := used() + d; used() < end; {
	}
}

func TestGroupWithProcessesIsNotRemoved(t *testing.T) {
	h, _ := open(t)
	g := group(t, h, "full", Limits{})
	m := start(t, "wait")
	m.line(t)
	if err := g.Add(m.Process.Pid); err != nil {
		t.Fatal(err)
	}
	// One try: the full wait would be long.
	dir := g.dirs[memory]
	if dir == "" {
		t.Skip("no memory controller")
	}
	if err := h.tree.rmdir(dir); !errors.Is(err, unix.EBUSY) {
		t.Errorf("%v", err)
	}
	g.Kill()
	// Nobody has waited for it yet: Remove tries until the kernel is done with it.
	if err := g.Remove(); err != nil {
		t.Error(err)
	}
}

func TestLeftoversOfTheDeadAreRemovedAndTheLivingAreLeftAlone(t *testing.T) {
	h, name := open(t)
	mine := group(t, h, "mine", Limits{})
	dead := start(t, "leave", name)
	var dirs []string
	for {
		line := dead.line(t)
		if line == "left" {
			break
		}
		if line != "" {
			dirs = append(dirs, line)
		}
	}
	if len(dirs) == 0 {
		t.Fatal("it left nothing")
	}
	if state, err := dead.Process.Wait(); err != nil || !state.Success() {
		t.Fatal(state, err)
	}
	for _, dir := range dirs {
		if !exists(dir) {
			t.Fatalf("%s went with its program", dir)
		}
	}
	next, err := Open(DefaultRoot, Options{Name: name})
	if err != nil {
		t.Fatal(err)
	}
	// The process in it held the pipe.
	if _, err := io.Copy(io.Discard, dead.out); err != nil {
		t.Error(err)
	}
	for _, dir := range dirs {
		if exists(parentOf(dir)) {
			t.Errorf("%s is still there", parentOf(dir))
		}
	}
	if err := next.Close(); err != nil {
		t.Error(err)
	}
	_ = mine.each(func(dir string) error {
		if !exists(dir) {
			t.Errorf("%s of a living program was removed", dir)
		}
		return nil
	})
}

func TestNamesStayBelow(t *testing.T) {
	h, _ := open(t)
	for _, name := range []string{"", ".", "..", "a/b", "../x"} {
		if g, err := h.New(name, Limits{}); err == nil {
			_ = g.Remove()
			t.Errorf("%q was taken", name)
		}
	}
}

package box

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// helper is the variable that makes the test binary play a node that is going to die.
const helper = "CASEMATE_BOX_TEST_NODE"

// playNode opens a broker, starts boxes, prints their process ids and waits.
func playNode(program string) error {
	b, err := Open(context.Background(), Config{Program: program})
	if err != nil {
		return err
	}
	code, err := os.ReadFile(filepath.Join(filepath.Dir(program), "guest"))
	if err != nil {
		return err
	}
	exe, err := Executable(code)
	if err != nil {
		return err
	}
	fmt.Fprintln(os.Stdout, b.cmd.Process.Pid)
	for range 3 {
		x, err := b.Start(context.Background(), Spec{Executable: exe, Args: []string{"guest", "block"}, Memory: 32 << 20})
		if err != nil {
			return err
		}
		fmt.Fprintln(os.Stdout, x.PID)
	}
	<-b.Done()
	return errors.New("the broker ended")
}

// watch gives a descriptor that tells when a process has ended.
func watch(t *testing.T, pid int) int {
	t.Helper()
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		t.Fatalf("watching process %d: %v", pid, err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	return fd
}

func awaitEnd(t *testing.T, pidfd int) {
	t.Helper()
	for {
		_, err := unix.Poll([]unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}, -1)
		if err == nil {
			return
		}
		if !errors.Is(err, unix.EINTR) {
			t.Fatal(err)
		}
	}
}

// groupsOf gives the directories of a process's control groups that are of this kind.
func groupsOf(t *testing.T, pid int) []string {
	t.Helper()
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cgroup")
	if err != nil {
		t.Fatal(err)
	}
	var dirs []string
	for l := range strings.Lines(string(text)) {
		f := strings.SplitN(strings.TrimSpace(l), ":", 3)
		name := strings.TrimPrefix(f[1], "name=")
		if name == "" {
			name = "unified"
		}
		for _, root := range []string{"/sys/fs/cgroup/" + name, "/sys/fs/cgroup"} {
			if _, err := os.Stat(root + f[2] + "/cgroup.procs"); err == nil && strings.Contains(f[2], "/casemate/") {
				dirs = append(dirs, root+f[2])
				break
			}
		}
	}
	return dirs
}

func TestNodeIsKilled(t *testing.T) {
	needRoot(t)
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	c := exec.Command(exe)
	c.Env = append(os.Environ(), helper+"="+built.stub)
	c.Stderr = os.Stderr
	r, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	defer c.Wait()
	defer c.Process.Kill()
	in := bufio.NewReader(r)
	var watched []int
	var groups []string
	for range 4 { // the broker, three boxes
		pid, err := strconv.Atoi(line(t, in))
		if err != nil {
			t.Fatal(err)
		}
		watched = append(watched, watch(t, pid))
		if len(watched) > 1 {
			groups = append(groups, groupsOf(t, pid)...)
		}
	}
	if err := c.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	for _, fd := range watched {
		awaitEnd(t, fd)
	}
	for _, g := range groups {
		if _, err := os.Stat(g); err == nil {
			t.Errorf("control group %s is left", g)
		}
	}
	if len(groups) == 0 {
		t.Log("there are no control groups on this machine")
	}
}

func TestBrokerIsKilled(t *testing.T) {
	needRoot(t)
	b := open(t, Config{})
	var boxes []*Box
	var ends []*bufio.Reader
	var watched []int
	for range 3 {
		x, out := start(t, b, Spec{Proc: true}, "tree", "2")
		line(t, out)
		boxes, ends, watched = append(boxes, x), append(ends, out), append(watched, watch(t, x.PID))
	}
	if err := b.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	<-b.Done()
	for i, x := range boxes {
		<-x.Done()
		awaitEnd(t, watched[i])
		if rest, err := io.ReadAll(ends[i]); err != nil || len(rest) > 0 {
			t.Errorf("%q, %v", rest, err)
		}
		if _, err := x.Usage(); !errors.Is(err, ErrEnded) {
			t.Errorf("usage of a box whose broker is gone: %v", err)
		}
	}
	if _, err := b.Start(context.Background(), Spec{Program: "/x", Args: []string{"x"}}); !errors.Is(err, ErrEnded) {
		t.Errorf("a start without a broker: %v", err)
	}
	if _, err := b.NewImage(context.Background(), ImageSpec{}); !errors.Is(err, ErrEnded) {
		t.Errorf("an image without a broker: %v", err)
	}
}

// holdings is what could leak.
type holdings struct{ fds, brokerFDs, brokerMounts, starterMounts, children, groups int }

func (b *Broker) holdings(t *testing.T, group string) holdings {
	t.Helper()
	entries := func(dir string) int {
		all, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		return len(all)
	}
	pid := "/proc/" + strconv.Itoa(b.cmd.Process.Pid)
	h := holdings{fds: entries("/proc/self/fd"), brokerFDs: entries(pid + "/fd")}
	threads, err := os.ReadDir(pid + "/task")
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, th := range threads {
		dir := pid + "/task/" + th.Name()
		ns, err := os.Readlink(dir + "/ns/mnt")
		if err != nil {
			continue // the thread is gone
		}
		children, err := os.ReadFile(dir + "/children")
		if err == nil {
			h.children += len(strings.Fields(string(children)))
		}
		if seen[ns] {
			continue
		}
		seen[ns] = true
		text, err := os.ReadFile(dir + "/mountinfo")
		if err != nil {
			t.Fatal(err)
		}
		if n := strings.Count(string(text), "\n"); strings.Contains(string(text), "/images/0") {
			h.brokerMounts = n
		} else {
			h.starterMounts = n
		}
	}
	if group != "" {
		all, err := os.ReadDir(group)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range all {
			if e.IsDir() {
				h.groups++
			}
		}
	}
	return h
}

// TestNothingLeaks counts before and after many boxes, some of which fail to start or
// are killed. CASEMATE_BOXES sets how many.
func TestNothingLeaks(t *testing.T) {
	needRoot(t)
	n := 300
	if testing.Short() {
		n = 40
	}
	if s := os.Getenv("CASEMATE_BOXES"); s != "" {
		var err error
		if n, err = strconv.Atoi(s); err != nil {
			t.Fatal(err)
		}
	}
	b := open(t, Config{})
	exe := guest(t)
	defer exe.Close()
	api := netip.MustParseAddrPort("127.0.0.1:9001")
	group := ""
	one := func(i int) {
		img, err := b.NewImage(context.Background(), ImageSpec{Files: []File{{Path: "/a", Mode: 0o644}}, Binds: []Bind{{From: built.guest, To: "/g"}}})
		if err != nil {
			t.Error(err)
			return
		}
		defer img.Release()
		if err := img.Seal(); err != nil {
			t.Error(err)
			return
		}
		s := Spec{
			Executable: exe, Code: img, Args: []string{"guest", "exit", "0"}, Proc: true, Tmp: 1 << 20,
			Listen: []netip.AddrPort{api}, Memory: 64 << 20, Processes: 32, CPUPercent: 100,
		}
		switch i % 3 {
		case 1:
			s.Args = []string{"guest", "block"}
		case 2:
			s.Dir = "/nowhere"
		}
		x, err := b.Start(context.Background(), s)
		if (err != nil) != (i%3 == 2) {
			t.Error(err)
		}
		if err != nil {
			return
		}
		if i%3 == 1 {
			if dirs := groupsOf(t, x.PID); i == 1 && len(dirs) > 0 {
				group = filepath.Dir(dirs[0])
			}
			if s, err := x.Socket(context.Background()); err != nil {
				t.Error(err)
			} else {
				s.Close()
			}
			x.Kill()
		}
		<-x.Done()
	}
	many := func(n int) {
		var all sync.WaitGroup
		for w := range 4 {
			all.Go(func() {
				for i := w; i < n; i += 4 {
					one(i)
				}
			})
		}
		all.Wait()
	}
	one(1)
	many(12) // Go's own descriptors and threads are there now
	before := b.holdings(t, group)
	many(n)
	if after := b.holdings(t, group); after != before {
		t.Errorf("after %d boxes there is %+v, before %+v", n, after, before)
	}
	// Every box begins with a copy of what the starting thread has: a root and /proc.
	if before.children != 0 || before.brokerMounts == 0 || before.starterMounts != 2 {
		t.Errorf("%+v", before)
	}
}

// TestUsersAreUnique starts boxes at the same time and looks at their users outside.
func TestUsersAreUnique(t *testing.T) {
	needRoot(t)
	b := open(t, Config{})
	exe := guest(t)
	defer exe.Close()
	var mu sync.Mutex
	users := map[uint32]bool{}
	ids := map[string]bool{}
	var all sync.WaitGroup
	for range 12 {
		all.Go(func() {
			x, err := b.Start(context.Background(), Spec{Executable: exe, Args: []string{"guest", "block"}})
			if err != nil {
				t.Error(err)
				return
			}
			t.Cleanup(x.Kill)
			var s syscall.Stat_t
			if err := syscall.Stat("/proc/"+strconv.Itoa(x.PID)+"/status", &s); err != nil {
				t.Error(err)
			}
			text, err := os.ReadFile("/proc/" + strconv.Itoa(x.PID) + "/uid_map")
			if err != nil {
				t.Error(err)
				return
			}
			f := strings.Fields(string(text))
			mu.Lock()
			defer mu.Unlock()
			for _, at := range []int{1, 4} {
				uid, err := strconv.ParseUint(f[at], 10, 32)
				if err != nil || uid < 1_600_000_000 || users[uint32(uid)] {
					t.Errorf("user %s of %q, %v", f[at], f, err)
				}
				users[uint32(uid)] = true
			}
			if ids[x.ID] {
				t.Errorf("%s twice", x.ID)
			}
			ids[x.ID] = true
		})
	}
	all.Wait()
}

// TestClose closes while boxes are started.
func TestClose(t *testing.T) {
	needRoot(t)
	b := open(t, Config{})
	exe := guest(t)
	defer exe.Close()
	var all sync.WaitGroup
	first := make(chan struct{}, 8)
	for range 8 {
		all.Go(func() {
			for {
				x, err := b.Start(context.Background(), Spec{Executable: exe, Args: []string{"guest", "block"}, Memory: 32 << 20})
				if err != nil {
					return
				}
				select {
				case first <- struct{}{}:
				default:
				}
				defer func() { <-x.Done() }()
			}
		})
	}
	<-first
	if err := b.Close(); err != nil {
		t.Error(err)
	}
	all.Wait()
	if err := b.Close(); err != nil {
		t.Error(err)
	}
}

// TestOneMappedUser has root do without its privileges: the guest is the host's root then,
// though without any right, and the posture must not hide it.
func TestOneMappedUser(t *testing.T) {
	needRoot(t)
	b := open(t, Config{Unprivileged: true})
	if p := b.Posture(); p.Has(MeasureUID) || p.Missing[MeasureUID] == "" || !p.Has(MeasureCapabilities) || !p.Has(MeasureNetwork) {
		t.Errorf("%+v", p)
	}
	x, out := start(t, b, Spec{}, "echo", "hello")
	if got := line(t, out); got != "hello" || x.Exit().Code != 0 {
		t.Error(got, x.Exit())
	}
}

// TestUnprivileged runs the whole of this test binary's TestAsNobody as another user.
func TestUnprivileged(t *testing.T) {
	needRoot(t)
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "box-nobody")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	_ = os.Chmod(dir, 0o755)
	code, err := os.ReadFile(exe)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(dir+"/test", code, 0o755); err != nil {
		t.Fatal(err)
	}
	c := exec.Command(dir+"/test", "-test.run", "^TestAsNobody$", "-test.v")
	c.Env = []string{nobody + "=" + filepath.Dir(built.stub), "TMPDIR=" + os.TempDir()}
	c.Dir = dir
	c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	text, err := c.CombinedOutput()
	if err != nil || !strings.Contains(string(text), "--- PASS: TestAsNobody") {
		t.Errorf("%v\n%s", err, text)
	}
}

// nobody is the variable that says where the programs are, for TestAsNobody.
const nobody = "CASEMATE_BOX_TEST_PROGRAMS"

func TestAsNobody(t *testing.T) {
	if os.Getenv(nobody) == "" {
		t.Skip("TestUnprivileged runs it")
	}
	checkUnprivileged(t, open(t, Config{}))
}

func checkUnprivileged(t *testing.T, b *Broker) {
	t.Helper()
	p := b.Posture()
	for _, m := range []string{
		MeasureUser, MeasureMounts, MeasurePID, MeasureNetwork, MeasureIPC, MeasureUTS, MeasureCgroupNS, MeasureCapabilities,
		MeasurePrivileges, MeasureSyscalls, MeasureLandlock, MeasureDescriptors, MeasureProc, MeasureOOM,
	} {
		if !p.Has(m) {
			t.Errorf("%s: %q", m, p.Missing[m])
		}
	}
	if p.Has(MeasureUID) || p.Missing[MeasureUID] == "" {
		t.Error("the user id is said to be unused")
	}
	root := image(t, b, ImageSpec{Root: true, Binds: []Bind{{From: built.guest, To: "/g"}}})
	api, port := netip.MustParseAddrPort("127.0.0.1:9001"), netip.MustParseAddrPort("127.0.0.1:8080")
	x, _ := start(t, b, Spec{Root: root, Listen: []netip.AddrPort{api}, Proc: true, Tmp: 1 << 20}, "net", api.String(), port.String())
	c, err := x.Listeners[0].Accept()
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	f := look(t, b, Spec{Proc: true, Tmp: 1 << 20})
	if f.UID != guestID || f.GID != guestID {
		t.Errorf("user %d, group %d", f.UID, f.GID)
	}
	for what, got := range f.Tried {
		// The init is the guest's own user here, but does not die of a signal from inside.
		if (got == "<nil>") != (what == "/tmp/x" || what == "kill 1") {
			t.Errorf("%s: %s", what, got)
		}
	}
}

package landlock

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// task makes this test's program a restricted one.
const task = "CASEMATE_LANDLOCK_TASK"

// order is what the restricted program is told.
type order struct {
	Rules   Rules
	ABI     int // 0: the kernel's
	Dir     string
	Port    int
	Foreign int // a process outside
}

func TestMain(m *testing.M) {
	o := os.Getenv(task)
	if o == "" {
		os.Exit(m.Run())
	}
	if err := beRestricted(o); err != nil {
		_, _ = fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// beRestricted prints which attempts succeed.
func beRestricted(told string) error {
	var o order
	if err := json.Unmarshal([]byte(told), &o); err != nil {
		return err
	}
	runtime.LockOSThread()
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	var err error
	if o.ABI == 0 {
		err = Restrict(o.Rules)
	} else {
		err = restrict(o.Rules, o.ABI)
	}
	if err != nil {
		return err
	}
	done := map[string]string{}
	for name, try := range attempts(o) {
		if err := try(); err != nil {
			done[name] = err.Error()
		} else {
			done[name] = "done"
		}
	}
	return json.NewEncoder(os.Stdout).Encode(done)
}

// attempts are made in this thread alone: no goroutine, no net.Dial, no os/exec.
func attempts(o order) map[string]func() error {
	open := func(name string, flags int) error {
		fd, err := unix.Open(filepath.Join(o.Dir, name), flags|unix.O_CLOEXEC, 0o600)
		if err == nil {
			_ = unix.Close(fd)
		}
		return err
	}
	tcp := func(try func(fd int) error) error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		return try(fd)
	}
	return map[string]func() error{
		"read":     func() error { return open("code/file", unix.O_RDONLY) },
		"list":     func() error { return open("code", unix.O_RDONLY|unix.O_DIRECTORY) },
		"list top": func() error { return open(".", unix.O_RDONLY|unix.O_DIRECTORY) },
		"other":    func() error { return open("other", unix.O_RDONLY) },
		"write":    func() error { return open("code/file", unix.O_WRONLY) },
		"make":     func() error { return open("tmp/new", unix.O_WRONLY|unix.O_CREAT) },
		"truncate": func() error { return unix.Truncate(filepath.Join(o.Dir, "code/file"), 0) },
		"fifo":     func() error { return unix.Mkfifo(filepath.Join(o.Dir, "tmp/fifo"), 0o600) },
		"device":   func() error { return unix.Mknod(filepath.Join(o.Dir, "tmp/null"), unix.S_IFCHR|0o600, 1<<8|3) },
		"null":     func() error { return open("../../../../../../../../dev/null", unix.O_WRONLY) },
		"execute":  func() error { return executes(filepath.Join(o.Dir, "code/true")) },
		"dropped":  func() error { return executes(filepath.Join(o.Dir, "tmp/true")) },
		"connect": func() error {
			return tcp(func(fd int) error {
				return unix.Connect(fd, &unix.SockaddrInet4{Port: o.Port, Addr: [4]byte{127, 0, 0, 1}})
			})
		},
		"bind": func() error {
			return tcp(func(fd int) error { return unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}) })
		},
		"signal": func() error { return unix.Kill(o.Foreign, 0) },
	}
}

// executes forks and executes from this thread.
func executes(path string) error {
	_, err := os.StartProcess(path, []string{path}, &os.ProcAttr{Env: []string{}})
	var e syscall.Errno
	if errors.As(err, &e) {
		return e
	}
	return err
}

// run has the restricted program try everything, in a directory with code/file,
// code/true, tmp/true and other, and gives what it saw.
func run(t *testing.T, abi int, rules func(dir string, port int) Rules) map[string]string {
	t.Helper()
	if _, err := ABI(); err != nil {
		t.Skipf("this kernel: %v", err)
	}
	dir := t.TempDir()
	program, err := os.ReadFile("/bin/true")
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range []string{"code", "tmp"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, d, "true"), program, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, f := range []string{"code/file", "other"} {
		if err := os.WriteFile(filepath.Join(dir, f), []byte("text"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	listener, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	port := listener.Addr().(*net.TCPAddr).Port
	o, err := json.Marshal(order{Rules: rules(dir, port), ABI: abi, Dir: dir, Port: port, Foreign: os.Getpid()})
	if err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), self)
	cmd.Env = []string{task + "=" + string(o)}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %s", err, stderr.String())
	}
	var got map[string]string
	if err := json.Unmarshal(out, &got); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return got
}

func compare(t *testing.T, got map[string]string, denied map[string]string) {
	t.Helper()
	for _, name := range slices.Sorted(maps.Keys(got)) {
		want, no := denied[name]
		if !no {
			want = "done"
		}
		if got[name] != want {
			t.Errorf("%s: %q, want %q", name, got[name], want)
		}
	}
}

const (
	eacces = "permission denied"
	eperm  = "operation not permitted"
)

func TestRulesAllowWhatTheyName(t *testing.T) {
	abi, _ := ABI()
	got := run(t, 0, func(dir string, port int) Rules {
		return Rules{
			Paths: []Rule{
				{Path: dir, Access: List},
				{Path: filepath.Join(dir, "code"), Access: Read | Execute},
				{Path: filepath.Join(dir, "tmp"), Access: Read | Write},
				{Path: "/dev/null", Access: Read | Write},
				{Path: "/usr", Access: Read | Execute, Optional: true}, // the loader and libc
				{Path: "/lib", Access: Read | Execute, Optional: true},
				{Path: "/lib64", Access: Read | Execute, Optional: true},
				{Path: "/does/not/exist", Access: Read, Optional: true},
			},
			Connect: []uint16{uint16(port)},
		}
	})
	denied := map[string]string{
		"other": eacces, "write": eacces, "truncate": eacces, "device": eacces, "dropped": eacces,
	}
	if abi >= abiTCP {
		denied["bind"] = eacces
	}
	if abi >= abiScopes {
		denied["signal"] = eperm
	}
	compare(t, got, denied)
}

func TestZeroRulesAllowNothing(t *testing.T) {
	abi, _ := ABI()
	got := run(t, 0, func(string, int) Rules { return Rules{} })
	denied := map[string]string{}
	for name := range got {
		denied[name] = eacces
	}
	denied["signal"] = eperm
	if abi < abiScopes {
		t.Skipf("this kernel has ABI %d", abi)
	}
	compare(t, got, denied)
}

// Older kernels are imitated by asking a newer one for less.
func TestOlderKernelsEnforceWhatTheyKnow(t *testing.T) {
	newest, _ := ABI()
	for abi := 1; abi <= newest; abi++ {
		t.Run(strconv.Itoa(abi), func(t *testing.T) {
			got := run(t, abi, func(string, int) Rules { return Rules{} })
			denied := map[string]string{}
			for name := range got {
				denied[name] = eacces
			}
			if abi < abiTruncate {
				delete(denied, "truncate")
			}
			if abi < abiTCP {
				delete(denied, "connect")
				delete(denied, "bind")
			}
			delete(denied, "signal")
			if abi >= abiScopes {
				denied["signal"] = eperm
			}
			compare(t, got, denied)
			if complete := Missing(abi) == ""; complete != (abi >= abiScopes) {
				t.Errorf("ABI %d is said to lack: %q", abi, Missing(abi))
			}
		})
	}
}

func TestMissingPathIsAnError(t *testing.T) {
	if _, err := ABI(); err != nil {
		t.Skip(err)
	}
	// The rule set is not enforced: the error comes first.
	err := Restrict(Rules{Paths: []Rule{{Path: "/does/not/exist", Access: Read}}})
	var e *Error
	if !errors.As(err, &e) || e.Errno != unix.ENOENT || e.Step != "opening /does/not/exist" {
		t.Fatalf("%v", err)
	}
}

func TestNativeRulesExecuteNothingBelowTmp(t *testing.T) {
	r := Native([]Entry{{"tmp", true}, {"usr", true}, {"proc", true}, {"dev", true}, {"init", false}}, []string{"null"}, 9001)
	seen := map[string]Access{}
	for _, p := range r.Paths {
		seen[p.Path] = p.Access
	}
	if seen["/"] != List || seen["/tmp"] != Read|Write || seen["/usr"] != Read|Execute || seen["/proc"] != Read || seen["/init"] != Read|Execute ||
		seen["/dev"] != List || seen["/dev/null"] != Read|Write {
		t.Errorf("rules: %v", seen)
	}
	for path, a := range seen {
		if a&Write != 0 && a&Execute != 0 {
			t.Errorf("%s can be written and executed", path)
		}
	}
	if r.AnyTCP || len(r.Connect) != 1 || len(r.Bind) != 1 {
		t.Errorf("TCP: %+v", r)
	}
}

// What Prepare gives is what Restrict tells the kernel.
func TestPreparedRulesAreTheSame(t *testing.T) {
	abi, err := ABI()
	if err != nil {
		t.Skip(err)
	}
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	all := Read | Write | Execute
	p, err := Rules{AnyTCP: true, Paths: []Rule{{Path: dir, Access: all}, {Path: file, Access: all, Plain: true}}}.Prepare(abi)
	if err != nil {
		t.Fatal(err)
	}
	set, _, e := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, uintptr(unsafe.Pointer(&p.Attributes[0])), uintptr(len(p.Attributes)), 0)
	if e != 0 {
		t.Fatal(e)
	}
	defer unix.Close(int(set))
	for _, r := range p.Paths {
		fd, err := unix.Open(r.Path, unix.O_PATH|unix.O_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		attr := unix.LandlockPathBeneathAttr{Allowed_access: r.Allowed, Parent_fd: int32(fd)}
		// Rights that only directories have are refused of a file.
		_, _, e := unix.Syscall6(unix.SYS_LANDLOCK_ADD_RULE, set, unix.LANDLOCK_RULE_PATH_BENEATH, uintptr(unsafe.Pointer(&attr)), 0, 0, 0)
		_ = unix.Close(fd)
		if e != 0 || r.Allowed == 0 {
			t.Errorf("%+v: %v", r, e)
		}
	}
	if _, err := (Rules{}).Prepare(abi); err == nil {
		t.Error("rules about ports were left out")
	}
}

package process

import (
	"errors"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/casemate-dev/casemate/internal/sandbox/sandboxtest"
	"github.com/casemate-dev/casemate/internal/sandbox/wire"
)

// role is set by the linker in builds of this package's tests that are sandboxes of
// another kind: "attacker" is one taken over, which locks itself in as any other and then
// tries to get out; "bare" serves, and locks nothing; "advise" and "copy" are bare ones
// that restore memory in that way.
var role string

var (
	attackerBox = sync.OnceValues(func() (string, error) { return buildRole("attacker") })
	bareBox     = sync.OnceValues(func() (string, error) { return buildRole("bare") })
)

// buildRole builds a sandbox of another kind, without cgo as what ships.
func buildRole(name string) (string, error) {
	path := filepath.Join(boxDir(), name)
	if err := os.MkdirAll(boxDir(), 0o755); err != nil {
		return "", err
	}
	cmd := exec.Command("go", "test", "-c", "-o", path, "-ldflags",
		"-X github.com/casemate-dev/casemate/internal/sandbox/process.role="+name, ".")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", errors.New("building the " + name + " sandbox: " + err.Error() + ": " + string(out))
	}
	return path, nil
}

// attacks are what code that has taken over a sandbox tries from within. Each gives the
// kernel's answer, nil when it got through.
func attacks() map[string]func() error {
	call := func(number uintptr, args ...uintptr) func() error {
		var a [6]uintptr
		copy(a[:], args)
		return func() error {
			if _, _, e := syscall.Syscall6(number, a[0], a[1], a[2], a[3], a[4], a[5]); e != 0 {
				return e
			}
			return nil
		}
	}
	path := func(p string) uintptr {
		b, err := unix.BytePtrFromString(p)
		if err != nil {
			panic(err)
		}
		kept = append(kept, b)
		return uintptr(unsafe.Pointer(b))
	}
	buffer := make([]byte, 4096)
	at := uintptr(unsafe.Pointer(&buffer[0]))
	kept = append(kept, buffer)
	fork := func(flags uintptr) func() error {
		return func() error {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			pid, _, e := syscall.RawSyscall6(unix.SYS_CLONE, flags, 0, 0, 0, 0, 0)
			if e != 0 {
				return e
			}
			for pid == 0 {
				_, _, _ = syscall.RawSyscall(unix.SYS_EXIT_GROUP, 0, 0, 0)
			}
			return nil
		}
	}
	const here = ^uintptr(99) // AT_FDCWD
	return map[string]func() error{
		"open the root":             call(unix.SYS_OPENAT, here, path("/"), unix.O_RDONLY|unix.O_DIRECTORY),
		"open /proc":                call(unix.SYS_OPENAT, here, path("/proc/self/status"), unix.O_RDONLY),
		"open with openat2":         call(unix.SYS_OPENAT2, here, path("/"), at, 24),
		"read the binary":           call(unix.SYS_OPENAT, here, path("/proc/self/exe"), unix.O_RDONLY),
		"write the binary":          call(unix.SYS_OPENAT, here, path("/proc/self/exe"), unix.O_WRONLY),
		"write its own memory":      call(unix.SYS_OPENAT, here, path("/proc/self/mem"), unix.O_RDWR),
		"read a link":               call(unix.SYS_READLINKAT, here, path("/proc/self/exe"), at, 4096),
		"make a file":               call(unix.SYS_OPENAT, here, path("/x"), unix.O_CREAT|unix.O_WRONLY, 0o600),
		"make a directory":          call(unix.SYS_MKDIRAT, here, path("/x"), 0o700),
		"change the directory":      call(unix.SYS_CHDIR, path("/proc")),
		"socket to this machine":    call(unix.SYS_SOCKET, unix.AF_UNIX, unix.SOCK_STREAM, 0),
		"socket to the network":     call(unix.SYS_SOCKET, unix.AF_INET, unix.SOCK_STREAM, 0),
		"socket to the kernel":      call(unix.SYS_SOCKET, unix.AF_NETLINK, unix.SOCK_RAW, 0),
		"pair of sockets":           call(unix.SYS_SOCKETPAIR, unix.AF_UNIX, unix.SOCK_STREAM, 0, at),
		"take a descriptor":         call(unix.SYS_RECVMSG, connection, at, unix.MSG_DONTWAIT),
		"hand a descriptor over":    call(unix.SYS_SENDMSG, connection, at, unix.MSG_DONTWAIT),
		"write its code":            call(unix.SYS_PWRITE64, placedCode, at, 1, 0),
		"map its code to write":     call(unix.SYS_MMAP, 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED, placedCode, 0),
		"cut its code":              call(unix.SYS_FTRUNCATE, placedCode, 0),
		"keep the node from it":     call(unix.SYS_FCNTL, placedCode, unix.F_ADD_SEALS, unix.F_SEAL_WRITE),
		"execute by path":           call(unix.SYS_EXECVE, path("/nothing"), 0, 0),
		"execute by descriptor":     call(unix.SYS_EXECVEAT, connection, path(""), 0, 0, unix.AT_EMPTY_PATH),
		"fork":                      fork(uintptr(unix.SIGCHLD)),
		"process in new namespaces": fork(uintptr(unix.SIGCHLD) | unix.CLONE_NEWUSER | unix.CLONE_NEWNS),
		"leave namespaces":          call(unix.SYS_UNSHARE, unix.CLONE_NEWUSER),
		"enter namespaces":          call(unix.SYS_SETNS, connection, 0),
		"mount":                     call(unix.SYS_MOUNT, path("none"), path("/"), path("tmpfs"), 0, 0),
		"mount, the new way":        call(unix.SYS_FSOPEN, path("tmpfs"), 0),
		"swap the root":             call(unix.SYS_PIVOT_ROOT, path("/"), path("/")),
		"trace":                     call(unix.SYS_PTRACE, unix.PTRACE_ATTACH, 1),
		"read another's memory":     call(unix.SYS_PROCESS_VM_READV, 1, at, 1, at, 1, 0),
		"kill another":              call(unix.SYS_KILL, 1, 0),
		"kill everybody":            call(unix.SYS_KILL, ^uintptr(0), 0),
		"hold another":              call(unix.SYS_PIDFD_OPEN, 1, 0),
		"become root":               call(unix.SYS_SETUID, 0),
		"take capabilities":         call(unix.SYS_CAPSET, at, at),
		"raise a limit":             call(unix.SYS_PRLIMIT64, 0, unix.RLIMIT_NOFILE, at, 0),
		"allow dumps":               call(unix.SYS_PRCTL, unix.PR_SET_DUMPABLE, 1),
		"another's turns":           call(unix.SYS_SCHED_SETATTR, 1, at, 0),
		"rank of real time":         call(unix.SYS_SCHED_SETSCHEDULER, 0, unix.SCHED_FIFO, at),
		"program for the kernel":    call(unix.SYS_BPF, 0, at, 48),
		"measure the kernel":        call(unix.SYS_PERF_EVENT_OPEN, at, 0, ^uintptr(0), ^uintptr(0), 0),
		"rings":                     call(unix.SYS_IO_URING_SETUP, 1, at),
		"faults of its own":         call(unix.SYS_USERFAULTFD, 0),
		"keys":                      call(unix.SYS_KEYCTL, 0, 0),
		"another filter":            call(unix.SYS_SECCOMP, 1, 0, at),
		"other landlock rules":      call(unix.SYS_LANDLOCK_CREATE_RULESET, at, 8, 0),
		"type into a terminal":      call(unix.SYS_IOCTL, 2, unix.TIOCSTI, at),
		"a lease":                   call(unix.SYS_FCNTL, connection, unix.F_SETLEASE, 0),
		"set the clock":             call(unix.SYS_CLOCK_SETTIME, 0, at),
		"reboot":                    call(unix.SYS_REBOOT, 0, 0, 0),
	}
}

// kept are things that system calls point to.
var kept []any

// through is what an attack says that was not refused.
const through = "it got through"

// attack is the attacker's main. It says in its greeting how each attack went.
func attack() int {
	plan, err := parsePlan(os.Args)
	if err != nil {
		return die(os.Stderr, exitUsage, err)
	}
	list := attacks() // before the seal, as it were: what comes in by a guest is there
	hello, _, err := lockDown(plan)
	if err != nil {
		return die(os.Stderr, exitLockdown, err)
	}
	hello.Protocol, hello.Missing = wire.Version, map[string]string{}
	for name, try := range list {
		hello.Missing[name] = through
		if err := try(); err != nil {
			hello.Missing[name] = err.Error()
		}
	}
	conn := os.NewFile(connection, "node")
	payload, err := wire.AppendJSON(nil, hello)
	if err == nil {
		err = wire.NewWriter(conn).Send(wire.Ready, 0, payload)
	}
	if err != nil {
		return die(os.Stderr, exitServe, err)
	}
	_, _ = conn.Read(make([]byte, 1)) // until the node has heard it
	return exitOK
}

// TestSealedSandboxCannot tries to get out of a sandbox that somebody has taken over,
// below the engine: each of these is refused by its own filter, whatever else would
// stand in its way.
func TestSealedSandboxCannot(t *testing.T) {
	path, err := attackerBox()
	if err != nil {
		t.Fatal(err)
	}
	eachWay(t, func(t *testing.T, way func(*Config)) {
		r := newRunner(t, &sandboxtest.Store{}, way, func(c *Config) { c.Executable, c.Warm = path, -1 })
		c, err := r.starter.start(r.mostCharged)
		if err != nil {
			t.Fatal(err)
		}
		defer c.end()
		if !c.posture.Has(measureSealed) {
			t.Fatalf("it is not sealed: %+v", c.posture)
		}
		// What is younger than the oldest kernel that one might meet is not known, rather than
		// forbidden; what is known but not for these arguments is not valid.
		other := map[string]syscall.Errno{
			"open with openat2": unix.ENOSYS, "hold another": unix.ENOSYS, "rings": unix.ENOSYS, "mount, the new way": unix.ENOSYS,
			// Its code's file it has to read only, which is the file's own refusal.
			"write its code": unix.EBADF, "map its code to write": unix.EACCES, "cut its code": unix.EINVAL,
			"other landlock rules": unix.ENOSYS, "allow dumps": unix.EINVAL, "a lease": unix.EINVAL, "type into a terminal": unix.ENOTTY,
		}
		for _, name := range slices.Sorted(maps.Keys(attacks())) {
			t.Run(strings.ReplaceAll(name, "/", ""), func(t *testing.T) {
				want, ok := other[name]
				if !ok {
					want = unix.EPERM
				}
				if got := c.posture.Missing[name]; got != want.Error() {
					t.Errorf("%s: %q, want %q", name, got, want.Error())
				}
			})
		}
	})
}

// TestControlGroupLimitsASandbox starts one with less memory than it takes to begin.
func TestControlGroupLimitsASandbox(t *testing.T) {
	t.Parallel()
	r := newRunner(t, &sandboxtest.Store{}, inBoxes(t), func(c *Config) { c.Warm = -1 })
	needs(t, r, measureCgroup)
	c, err := r.starter.start(2 << 20)
	if err == nil {
		c.end()
		t.Fatal("it runs")
	}
	if !strings.Contains(err.Error(), "memory") {
		t.Errorf("it ended for another reason: %v", err)
	}
	if c, err = r.starter.start(r.mostCharged); err != nil {
		t.Fatalf("with enough: %v", err)
	}
	c.end()
}

//go:build linux

package attack

import (
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/casemate-dev/casemate/internal/sandbox/box"
)

// Where an attack gets through, so that the one that is refused in a box means something.
const (
	nowhere    = 0         // nowhere on the machine that this was written on
	bare       = 1 << iota // in the same box without its filter of system calls
	privileged             // on the host, with all privileges
)

// row is an attack that needs no preparation.
type row struct {
	name string
	want string // how it is refused: one of these
	gets int    // where it gets through
	by   string // the layers in its way, the first one first
}

// rows are in the order: mounts, namespaces, other processes, interfaces of the
// kernel, administration, memory, foreign calls, sockets, users, files, programs.
func rows() []row {
	return []row{
		{"mount", "EPERM", privileged, "filter, no capabilities, landlock"},
		{"umount", "EPERM", privileged, "filter, no capabilities, landlock"},
		{"remount", "EPERM", privileged, "filter, no capabilities, landlock"},
		{"mount_cgroup", "EPERM", privileged, "filter, no capabilities, landlock, cgroup namespace"},
		{"fsopen", "EPERM", privileged, "filter, no capabilities"},
		{"open_tree", "EPERM", privileged, "filter, no capabilities"},
		{"pivot_root", "EPERM", nowhere, "filter, no capabilities, landlock"},
		{"chroot", "EPERM", privileged, "filter, no capabilities"},

		{"unshare_user", "EPERM", bare | privileged, "filter"},
		{"clone_user", "EPERM", bare | privileged, "filter"},
		{"clone3", "ENOSYS", bare | privileged, "filter"},
		{"setns", "EPERM", bare | privileged, "filter; then there is nothing to enter"},
		{"unshare_mount", "EPERM", privileged, "filter, no capabilities"},
		{"unshare_net", "EPERM", privileged, "filter, no capabilities"},
		{"unshare_cgroup", "EPERM", privileged, "filter, no capabilities"},

		{"ptrace", "EPERM", bare | privileged, "filter; then its own processes only"},
		{"ptrace_parent", "EPERM", nowhere, "filter, another user, landlock"},
		{"process_vm", "EPERM", bare | privileged, "filter; then its own processes only"},
		{"pidfd_getfd", "EPERM", bare | privileged, "filter; then its own processes only"},
		{"kcmp", "EPERM", bare | privileged, "filter"},
		{"signal_init", "EPERM", nowhere, "another user, landlock"},
		{"init_environ", "ENOENT", nowhere, "/proc hides it, another user"},
		{"init_mem", "ENOENT", nowhere, "/proc hides it, another user, not dumpable"},
		{"init_root", "ENOENT", nowhere, "/proc hides it, another user, not dumpable"},
		{"init_fd", "ENOENT", nowhere, "/proc hides it, another user, not dumpable"},
		{"parent_mem", "ENOENT", nowhere, "/proc hides it, another user, not dumpable"},
		{"see_others", "ESRCH", nowhere, "process namespace; /proc hides the init"},
		{"oom_adj", "EROFS", nowhere, "/proc is read-only, landlock, no capabilities"},

		{"keyctl", "EPERM", bare | privileged, "filter"},
		{"add_key", "EPERM", bare | privileged, "filter"},
		{"userfaultfd", "EPERM", bare | privileged, "filter"},
		{"io_uring", "ENOSYS", privileged, "filter, no locked memory"},
		{"aio", "ENOSYS", bare | privileged, "filter"},
		{"bpf", "EPERM", privileged, "filter, no capabilities"},
		{"perf", "EPERM", bare | privileged, "filter"},
		{"fanotify", "EPERM", privileged, "filter, no capabilities"},
		{"seccomp", "EPERM", bare | privileged, "filter"},
		{"landlock", "ENOSYS", bare | privileged, "filter"},
		{"personality", "EPERM", bare | privileged, "filter"},
		{"handle", "EPERM", bare | privileged, "filter; to open one takes a capability too"},
		{"splice", "EINVAL", bare | privileged, "filter"},
		{"vmsplice", "EINVAL", bare | privileged, "filter"},
		{"shm", "EPERM", bare | privileged, "filter; IPC namespace"},
		{"mq", "EPERM", privileged, "filter, no message queues by resource limit, IPC namespace"},
		{"terminal", "ENOTTY", nowhere, "filter, no terminal, landlock"},
		{"dumpable", "EINVAL", bare | privileged, "filter"},

		{"kexec", "EPERM", nowhere, "filter, no capabilities"},
		{"module", "EPERM", nowhere, "filter, no capabilities"},
		{"finit_module", "EPERM", nowhere, "filter, no capabilities"},
		{"reboot", "EPERM", privileged, "filter, no capabilities"},
		{"swapon", "EPERM", privileged, "filter, no capabilities"},
		{"quota", "EPERM", bare | privileged, "filter; to change one takes a capability too"},
		{"acct", "EPERM", privileged, "filter, no capabilities"},
		{"syslog", "EPERM", privileged, "filter, no capabilities"},
		{"vhangup", "EPERM", nowhere, "filter, no capabilities"},
		{"settime", "EPERM", privileged, "filter, no capabilities"},
		{"adjtime", "EPERM", nowhere, "filter, no capabilities"},

		{"memfd", "ENOSYS", bare | privileged, "filter"},
		{"merge", "EINVAL", bare | privileged, "filter"},
		{"mlockall", "EPERM", privileged, "filter, no locked memory"},
		{"big_pipe", "EPERM", nowhere, "no capabilities"},

		{"i386", "EACCES", bare | privileged, "filter, which ends the process"},
		{"x32", "ENOSYS", nowhere, "filter, most kernels"},

		{"raw", "EPERM", privileged, "filter, no capabilities, network namespace"},
		{"raw6", "EPERM", privileged, "filter, no capabilities, network namespace"},
		{"packet", "EAFNOSUPPORT", privileged, "filter, no capabilities, network namespace"},
		{"netlink", "EAFNOSUPPORT", bare | privileged, "filter"},
		{"vsock", "EAFNOSUPPORT", bare | privileged, "filter, which is all: network namespaces do not hold these"},
		{"alg", "EAFNOSUPPORT", nowhere, "filter"},
		{"bluetooth", "EAFNOSUPPORT", nowhere, "filter"},
		{"xdp", "EAFNOSUPPORT", privileged, "filter, no capabilities"},
		{"ping", "EPROTONOSUPPORT", nowhere, "filter, the system's settings"},
		{"sctp", "EPROTONOSUPPORT", nowhere, "filter"},
		{"attach", "EPERM", bare | privileged, "filter"},
		{"ktls", "ENOENT", nowhere, "filter"},
		{"metadata", "ENETUNREACH", privileged, "network namespace"},
		{"private", "ENETUNREACH", privileged, "network namespace"},
		{"low_port", "EACCES", privileged, "no capabilities"},

		{"setuid", "EPERM", privileged, "filter, no capabilities, user namespace"},
		{"setgid", "EPERM", privileged, "filter, no capabilities, user namespace"},
		{"setgroups", "EPERM", privileged, "filter, no capabilities, user namespace"},
		{"capset", "EPERM", privileged, "filter, empty bounding set"},

		{"mknod", "EPERM", privileged, "filter, no capabilities, landlock, nodev"},
		{"mknod_char", "EPERM", privileged, "filter, no capabilities, landlock, nodev"},
		{"xattr", "EOPNOTSUPP", bare, "filter"},
		{"core_pattern", "ENOENT", privileged, "/proc has processes only, is read-only, another user"},
		{"proc_sys", "ENOENT", privileged, "/proc has processes only"},
		{"sysrq", "ENOENT", nowhere, "/proc has processes only, is read-only"},
		{"kcore", "ENOENT", nowhere, "/proc has processes only, no capabilities"},
		{"kallsyms", "ENOENT", privileged, "/proc has processes only"},
		{"keys", "ENOENT", privileged, "/proc has processes only"},
		{"sysfs", "ENOENT", privileged, "not in the root"},
		{"cgroupfs", "ENOENT", privileged, "not in the root"},
		{"kvm", "ENOENT", nowhere, "not in the root, landlock"},
		{"mem_device", "ENOENT", nowhere, "not in the root, landlock"},
		{"write_root", "EROFS", privileged, "read-only mounts, landlock"},
		{"write_etc", "EROFS", privileged, "read-only mounts, landlock"},
		{"write_code", "EROFS", nowhere, "read-only mounts, landlock"},
		{"write_program", "EROFS", nowhere, "read-only mounts, landlock, another user"},
		{"chmod_program", "EROFS", nowhere, "read-only mounts, another user, nosuid"},

		{"miner", "EACCES", privileged, "noexec /tmp, landlock"},
		{"miner_fd", "ENOSYS", privileged, "filter, noexec /tmp, landlock"},
		{"miner_proc", "EACCES", privileged, "noexec /tmp, landlock"},
		{"miner_map", "EPERM", privileged, "noexec /tmp"},
		{"miner_memfd", "ENOSYS", bare | privileged, "filter"},
	}
}

// harmful are those that would leave something behind on the host.
func harmful(name string) bool { return name == "write_root" || name == "write_etc" }

func TestAttacks(t *testing.T) {
	m := fortress(t, box.Config{})
	for _, r := range rows() {
		t.Run(r.name, func(t *testing.T) {
			if v := m.attack(t, nil, r.name); !among(v.Errno, r.want) {
				t.Errorf("ended with %q after %d, want %s, by: %s", v.Errno, v.Count, r.want, r.by)
			}
		})
	}
}

// The same attacks get through where the filter is missing, or where there is no box.
func TestAttacksGetThroughWithoutTheirDefence(t *testing.T) {
	m := fortress(t, box.Config{})
	proven := map[int]int{}
	for _, r := range rows() {
		if r.gets&bare != 0 {
			t.Run(r.name+"/without filter", func(t *testing.T) {
				v := m.attack(t, func(s *box.Spec) { s.Filter = nil }, r.name)
				if v.Errno != "" {
					t.Skipf("this kernel refuses it by itself, with %s", v.Errno)
				}
				proven[bare]++
			})
		}
		if r.gets&privileged != 0 && !harmful(r.name) {
			t.Run(r.name+"/on the host", func(t *testing.T) {
				if v := onHost(t, r.name); v.Errno != "" {
					t.Skipf("this machine refuses it to anybody, with %s", v.Errno)
				}
				proven[privileged]++
			})
		}
	}
	if proven[bare] < 10 || proven[privileged] < 20 {
		t.Errorf("only %d attacks got through without the filter, and %d on the host", proven[bare], proven[privileged])
	}
}

func TestHostIsOutOfReach(t *testing.T) {
	m := fortress(t, box.Config{})
	listener, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	port := strconv.Itoa(listener.Addr().(*net.TCPAddr).Port)
	name := "casemate-attack-" + strconv.Itoa(os.Getpid())
	abstract, err := net.Listen("unix", "@"+name)
	if err != nil {
		t.Fatal(err)
	}
	defer abstract.Close()
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("secret"), 0o644); err != nil {
		t.Fatal(err)
	}
	other := m.start(t, m.spec(t, "probe", "forever"))
	for _, c := range []struct{ name, arg, want, by string }{
		{"host_port", port, "ECONNREFUSED", "network namespace"},
		{"abstract", name, "ECONNREFUSED EPERM", "network namespace, landlock"},
		{"host_file", secret, "ENOENT", "the root holds nothing of the host"},
		{"climb", secret, "ENOENT", "the root is swapped, not changed"},
		{"disk", "/dev/vda", "ENOENT", "not in the root, nodev, landlock"},
		{"signal_others", strconv.Itoa(os.Getpid()), "ESRCH", "process namespace"},
		{"signal_others", strconv.Itoa(other.PID), "ESRCH", "process namespace"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if v := m.attack(t, nil, c.name, c.arg); !among(v.Errno, c.want) {
				t.Errorf("ended with %q after %d, want %s, by: %s", v.Errno, v.Count, c.want, c.by)
			}
		})
		t.Run(c.name+"/on the host", func(t *testing.T) {
			if c.name == "disk" || c.name == "signal_others" {
				t.Skip("the host's table of processes is left out there, and not every machine has that disk")
			}
			if v := onHost(t, c.name, c.arg); v.Errno != "" {
				t.Errorf("even there it ended with %s", v.Errno)
			}
		})
	}
	other.Kill()
	if e := other.Exit(); e.Signal == 0 {
		t.Errorf("the neighbour had ended by itself: %v", e)
	}
}

// Nothing in a box authenticates to anything: no file, variable, descriptor or socket.
func TestNothingIsInherited(t *testing.T) {
	const canary = "canary-7d1f0e5a"
	t.Setenv("CASEMATE_KEY", canary)
	// A descriptor that the node has, and would be inherited without a word.
	secret := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(secret, []byte(canary), 0o600); err != nil {
		t.Fatal(err)
	}
	m := fortress(t, box.Config{})

	t.Run("environment", func(t *testing.T) {
		if v := m.attack(t, nil, "env"); v.Text != "HOME=/tmp\n" {
			t.Errorf("the guest has %q", v.Text)
		}
	})
	t.Run("descriptors", func(t *testing.T) {
		v := m.attack(t, nil, "fds")
		lines := strings.Split(strings.TrimSpace(v.Text), "\n")
		if v.Count != 3 || len(lines) != 3 || !strings.HasPrefix(lines[0], "0 char 103 ") || // /dev/null
			!strings.HasPrefix(lines[1], "1 pipe ") || !strings.HasPrefix(lines[2], "2 pipe ") {
			t.Errorf("the guest has %q", v.Text)
		}
	})
	t.Run("files", func(t *testing.T) {
		v := m.attack(t, nil, "crawl", canary)
		if v.Count != 0 || strings.Contains(v.Text, "socket") {
			t.Errorf("a secret or a socket is there: %s", v.Text)
		}
		want := map[string]bool{
			"/bin/probe": true, "/etc/hosts": true, "/var/task/index.js": true,
			"/dev/null": true, "/dev/zero": true, "/dev/full": true, "/dev/random": true, "/dev/urandom": true,
		}
		for path := range strings.Lines(v.Text) {
			if path = strings.TrimSpace(path); !want[path] {
				t.Errorf("the root has %s", path)
			}
			delete(want, path)
		}
		if len(want) > 0 {
			t.Errorf("the crawl did not come by %v", want)
		}
	})
	t.Run("control groups", func(t *testing.T) {
		v := m.attack(t, nil, "read", "/proc/self/cgroup")
		for l := range strings.Lines(v.Text) {
			if !strings.HasSuffix(strings.TrimSpace(l), ":/") {
				t.Errorf("the guest sees where its group is: %s", l)
			}
		}
		if v.Text == "" {
			t.Error("nothing was read")
		}
	})
	t.Run("mounts", func(t *testing.T) {
		v := m.attack(t, nil, "read", "/proc/self/mountinfo")
		for l := range strings.Lines(v.Text) {
			f := strings.Fields(l)
			options, path := f[5], f[4]
			if path != "/tmp" && !strings.HasPrefix(path, "/dev/") && !strings.HasPrefix(options, "ro") {
				t.Errorf("%s can be written: %s", path, options)
			}
			if !strings.Contains(options, "nosuid") {
				t.Errorf("%s honours set-user-id: %s", path, options)
			}
			if path == "/tmp" && !strings.Contains(options, "noexec") {
				t.Errorf("/tmp is executable: %s", options)
			}
			if !strings.HasPrefix(path, "/dev/") && !strings.Contains(options, "nodev") {
				t.Errorf("%s has devices: %s", path, options)
			}
		}
		if strings.Count(v.Text, "\n") < 8 {
			t.Errorf("only %q", v.Text)
		}
	})
	// The crawl finds what is there: in a box with the secret in a file.
	t.Run("proof", func(t *testing.T) {
		m := fortress(t, box.Config{}, box.File{Path: "/opt/key", Mode: 0o644, Content: []byte("x" + canary)})
		if v := m.attack(t, nil, "crawl", canary); v.Count != 1 || !strings.Contains(v.Text, "FOUND IN /opt/key") {
			t.Errorf("the secret was not found: %s", v.Text)
		}
	})
}

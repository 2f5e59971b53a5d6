package filter

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// role makes this test's program be something else: what is to run under a filter.
const role = "CASEMATE_FILTER_ROLE"

func TestMain(m *testing.M) {
	var err error
	switch os.Getenv(role) {
	case "":
		os.Exit(m.Run())
	case "exec":
		err = become(os.Args[1:])
	case "sealed":
		err = beSealed(os.Stdout)
	}
	if err != nil {
		_, _ = fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// become executes a program under Native, as the init of a box does.
func become(args []string) error {
	program, err := Native()
	if err != nil {
		return err
	}
	runtime.LockOSThread()
	path, err := unix.BytePtrFromString(args[0])
	if err != nil {
		return err
	}
	argv, err := syscall.SlicePtrFromStrings(args)
	if err != nil {
		return err
	}
	env, err := syscall.SlicePtrFromStrings([]string{"PATH=/usr/bin:/bin", "LANG=C.UTF-8"})
	if err != nil {
		return err
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	f := unix.SockFprog{Len: uint16(len(program) / 8), Filter: (*unix.SockFilter)(unsafe.Pointer(&program[0]))}
	if _, _, e := syscall.RawSyscall(unix.SYS_SECCOMP, 1, 0, uintptr(unsafe.Pointer(&f))); e != 0 {
		return e
	}
	_, _, e := syscall.RawSyscall(unix.SYS_EXECVE, uintptr(unsafe.Pointer(path)), uintptr(unsafe.Pointer(&argv[0])), uintptr(unsafe.Pointer(&env[0])))
	return e
}

// beSealed is a Go program that starts, seals itself, works on, and tries what it may
// not do, in every thread.
func beSealed(w io.Writer) error {
	program, err := WasmSealed()
	if err != nil {
		return err
	}
	start, stop := make(chan struct{}), make(chan error, 64)
	var ready sync.WaitGroup
	try := func() error {
		if fd, err := unix.Open("/dev/null", unix.O_RDONLY, 0); !errors.Is(err, unix.EPERM) {
			return fmt.Errorf("opening: %d, %v", fd, err)
		}
		if fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0); !errors.Is(err, unix.EPERM) {
			return fmt.Errorf("a socket: %d, %v", fd, err)
		}
		if err := unix.Exec("/bin/true", []string{"true"}, nil); !errors.Is(err, unix.EPERM) {
			return fmt.Errorf("executing: %v", err)
		}
		if pid, _, e := syscall.RawSyscall6(unix.SYS_CLONE, uintptr(unix.SIGCHLD), 0, 0, 0, 0, 0); e != unix.EPERM {
			if e == 0 && pid == 0 {
				os.Exit(1)
			}
			return fmt.Errorf("a process: %v", e)
		}
		if err := unix.Kill(1, 0); !errors.Is(err, unix.EPERM) {
			return fmt.Errorf("a signal: %v", err)
		}
		return nil
	}
	for range 32 { // threads that were there before
		ready.Add(1)
		go func() {
			runtime.LockOSThread()
			ready.Done()
			<-start
			stop <- try()
		}()
	}
	ready.Wait()
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	if err := Seal(program); err != nil {
		return err
	}
	close(start)
	for range 32 { // and threads that are made later
		go func() {
			runtime.LockOSThread()
			garbage := make([][]byte, 0, 64)
			for i := range 64 {
				garbage = append(garbage, make([]byte, 1<<16+i))
			}
			runtime.GC()
			err := try()
			runtime.KeepAlive(garbage)
			stop <- err
		}()
	}
	for range 64 {
		if err := <-stop; err != nil {
			return err
		}
	}
	if err := memoryStaysUsable(); err != nil {
		return err
	}
	_, err = io.WriteString(w, "sealed\n")
	return err
}

// memoryStaysUsable does what the process does for its guests.
func memoryStaysUsable() error {
	fd, err := unix.MemfdCreate("image", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return fmt.Errorf("memfd: %v", err)
	}
	if err := unix.Ftruncate(fd, 1<<16); err != nil {
		return fmt.Errorf("ftruncate: %v", err)
	}
	if _, err := unix.Pwrite(fd, []byte("image"), 0); err != nil {
		return fmt.Errorf("pwrite: %v", err)
	}
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, unix.F_SEAL_WRITE); err != nil {
		return fmt.Errorf("sealing: %v", err)
	}
	m, err := unix.Mmap(fd, 0, 1<<16, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE)
	if err != nil {
		return fmt.Errorf("mapping: %v", err)
	}
	if err := unix.Madvise(m, unix.MADV_DONTNEED); err != nil {
		return fmt.Errorf("madvise: %v", err)
	}
	if err := unix.Mprotect(m, unix.PROT_READ|unix.PROT_EXEC); err != nil {
		return fmt.Errorf("mprotect: %v", err)
	}
	return errors.Join(unix.Munmap(m), unix.Close(fd))
}

func under(t *testing.T, r string, args ...string) (string, error) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), self, args...)
	cmd.Env = []string{role + "=" + r}
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func TestSealedProcessWorksOn(t *testing.T) {
	out, err := under(t, "sealed")
	if err != nil || out != "sealed\n" {
		t.Fatalf("%v: %s", err, out)
	}
}

// interpreter gives the path behind a name, past the shims of version managers.
func interpreter(t *testing.T, name string, tell ...string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), name, tell...).Output()
	if err != nil {
		t.Skipf("no %s on this machine: %v", name, err)
	}
	return strings.TrimSpace(string(out))
}

// What runtimes do on an ordinary day works under the filter: their just-in-time
// compilers, threads, timers, name look-ups, servers and clients, copies, and processes.
func TestRuntimesRunUnderNative(t *testing.T) {
	t.Run("node", func(t *testing.T) {
		node := interpreter(t, "node", "-p", "process.execPath")
		out, err := under(t, "exec", node, "-e", `
const fs = require('fs'), os = require('os'), http = require('http'), cp = require('child_process'), dns = require('dns');
const { Worker } = require('worker_threads'), crypto = require('crypto'), zlib = require('zlib');
const dir = fs.mkdtempSync(os.tmpdir() + '/filter-');
(async () => {
  fs.writeFileSync(dir + '/a', 'a'); fs.cpSync(dir + '/a', dir + '/b'); fs.copyFileSync(dir + '/a', dir + '/c', fs.constants.COPYFILE_FICLONE);
  await fs.promises.readFile(dir + '/b'); fs.watch(dir).close();
  await new Promise((ok, no) => new Worker('require("worker_threads").parentPort.postMessage(1)', { eval: true }).on('message', ok).on('error', no));
  await new Promise((ok, no) => crypto.pbkdf2('a', 'b', 10, 32, 'sha256', (e) => e ? no(e) : ok()));
  zlib.gunzipSync(zlib.gzipSync('a'.repeat(100000)));
  await new Promise((ok, no) => dns.lookup('localhost', (e) => e ? no(e) : ok()));
  const s = http.createServer((q, r) => q.pipe(r)); await new Promise((ok) => s.listen(0, '127.0.0.1', ok));
  const r = await fetch('http://127.0.0.1:' + s.address().port, { method: 'POST', body: 'x' }); await r.text(); s.closeAllConnections(); s.close();
  if (cp.execFileSync('/bin/echo', ['hi']).toString() !== 'hi\n') throw new Error('echo');
  os.cpus(); os.networkInterfaces; os.userInfo; os.setPriority(5); process.memoryUsage(); os.hostname();
  let f = 0; for (let i = 0; i < 1e7; i++) f = (f + i * i) | 0;
})().then(() => { fs.rmSync(dir, { recursive: true }); console.log('done'); }, (e) => { console.error(e); process.exit(1); });`)
		if err != nil || out != "done\n" {
			t.Fatalf("%v: %s", err, out)
		}
	})
	t.Run("python", func(t *testing.T) {
		python := interpreter(t, "python3", "-c", "import sys; print(sys.executable)")
		out, err := under(t, "exec", python, "-c", `
import shutil, tempfile, threading, subprocess, socket, asyncio, os, random, hashlib, signal, urllib.request, http.server, time, sqlite3, ssl, mmap, select, selectors
d = tempfile.mkdtemp()
open(d + "/a", "w").write("a"); shutil.copy2(d + "/a", d + "/b"); shutil.copytree(d, d + "/t"); os.listxattr(d)
t = threading.Thread(target=lambda: None); t.start(); t.join()
assert subprocess.run(["/bin/echo", "hi"], capture_output=True).stdout == b"hi\n"
assert subprocess.run("echo hi", shell=True, capture_output=True).stdout == b"hi\n"
socket.getaddrinfo("localhost", 80)
async def main():
    s = await asyncio.start_server(lambda r, w: w.close(), "127.0.0.1", 0)
    r, w = await asyncio.open_connection(*s.sockets[0].getsockname()); await r.read(); s.close()
    p = await asyncio.create_subprocess_exec("/bin/true"); await p.wait(); await asyncio.sleep(0.001)
asyncio.run(main())
pid = os.fork()
if pid == 0: os._exit(3)
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 3
c = sqlite3.connect(d + "/db"); c.execute("create table a(b)"); c.commit(); c.close()
ssl.create_default_context(); signal.setitimer(signal.ITIMER_REAL, 0); os.nice(1); os.getloadavg(); time.get_clock_info("monotonic")
mmap.mmap(-1, 4096).close(); os.mkfifo(d + "/f"); os.sync(); os.cpu_count(); os.sched_getaffinity(0)
shutil.rmtree(d); print("done")`)
		if err != nil || out != "done\n" {
			t.Fatalf("%v: %s", err, out)
		}
	})
	t.Run("shell", func(t *testing.T) {
		out, err := under(t, "exec", "/bin/sh", "-c", `d=$(mktemp -d) && cd "$d" && echo a > a && cp -a a b && mv b c && ls -l | grep -c c && rm -r "$d"`)
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	})
}

// The calls that people fear are refused by the kernel in earnest, not by our own
// machine alone. Each is one that needs no privilege, or that this process would have
// the privilege for, so that nothing but the filter is in its way.
func TestKernelRefusesUnderNative(t *testing.T) {
	python := interpreter(t, "python3", "-c", "import sys; print(sys.executable)")
	out, err := under(t, "exec", python, "-c", `
import ctypes, socket, os
c = ctypes.CDLL(None, use_errno=True)
def call(*a):
    r = c.syscall(*a); return 0 if r >= 0 else ctypes.get_errno()
nr = {"x86_64": dict(unshare=272, clone3=435, memfd_create=319, keyctl=250, userfaultfd=323, io_uring_setup=425, ptrace=101, personality=135),
      "aarch64": dict(unshare=97, clone3=435, memfd_create=279, keyctl=219, userfaultfd=282, io_uring_setup=425, ptrace=117, personality=92)}[os.uname().machine]
got = dict(unshare=call(nr["unshare"], 0x10000000), clone3=call(nr["clone3"], 0, 0), memfd_create=call(nr["memfd_create"], b"x", 0),
           keyctl=call(nr["keyctl"], 0, -3, 1), userfaultfd=call(nr["userfaultfd"], 1), io_uring=call(nr["io_uring_setup"], 1, 0),
           ptrace=call(nr["ptrace"], 0, 0, 0, 0), personality=call(nr["personality"], 0x40000))
for name, family, kind in (("vsock", 40, 1), ("netlink", 16, 3), ("alg", 38, 5), ("packet", 17, 3), ("raw", 2, 3)):
    try: socket.socket(family, kind).close(); got[name] = 0
    except OSError as e: got[name] = e.errno
print(" ".join("%s=%d" % i for i in got.items()))`)
	const want = "unshare=1 clone3=38 memfd_create=38 keyctl=1 userfaultfd=1 io_uring=38 ptrace=1 personality=1 " +
		"vsock=97 netlink=97 alg=97 packet=97 raw=1\n"
	if err != nil || out != want {
		t.Fatalf("%v: %s", err, out)
	}
}

//go:build linux

// Command guest is what the tests run inside a box. Its first argument says what it does.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

func main() {
	do := map[string]func([]string) error{
		"echo": echo, "net": network, "exit": exit, "facts": facts, "alloc": alloc, "processes": processes, "fill": fill,
		"inodes": inodes, "tree": tree, "block": block, "die": die, "orphan": orphan, "run": run, "term": term, "self": self,
		"spin": spin, "stat": stat,
	}[os.Args[1]]
	if err := do(os.Args[2:]); err != nil {
		fmt.Println("error:", err)
		os.Exit(3)
	}
}

func echo(args []string) error {
	fmt.Println(args[0])
	return nil
}

func exit(args []string) error {
	n, err := strconv.Atoi(args[0])
	if err == nil {
		os.Exit(n)
	}
	return err
}

// network connects to the first address and serves echo on the second.
func network(args []string) error {
	c, err := net.Dial("tcp", args[0])
	if err != nil {
		return err
	}
	fmt.Fprintln(c, "from inside")
	l, err := net.Listen("tcp", args[1])
	if err != nil {
		return err
	}
	fmt.Println("listening")
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		text, _ := bufio.NewReader(c).ReadString('\n')
		fmt.Fprint(c, text)
		c.Close()
	}
}

// facts prints what can be seen, as JSON.
func facts([]string) error {
	f := map[string]any{"env": os.Environ(), "pid": os.Getpid(), "ppid": os.Getppid(), "uid": os.Getuid(), "gid": os.Getgid()}
	groups, _ := os.Getgroups()
	f["groups"] = len(groups)
	f["cwd"], _ = os.Getwd()
	f["host"], _ = os.Hostname()
	var fds []string
	for fd := range 256 {
		if to, err := os.Readlink("/proc/self/fd/" + strconv.Itoa(fd)); err == nil && !strings.HasPrefix(to, "anon_inode:[event") {
			fds = append(fds, strconv.Itoa(fd)+" "+to)
		}
	}
	f["fds"] = fds
	var tree []string
	_ = filepath.WalkDir("/", func(p string, d fs.DirEntry, err error) error {
		if p == "/proc" {
			tree = append(tree, p)
			return fs.SkipDir
		}
		tree = append(tree, p)
		return nil
	})
	f["tree"] = tree
	status, _ := os.ReadFile("/proc/self/status")
	f["status"] = string(status)
	mounts, _ := os.ReadFile("/proc/self/mountinfo")
	f["mounts"] = string(mounts)
	tried := map[string]string{}
	for _, p := range []string{"/x", "/var/task/x", "/dev/x", "/proc/x", "/proc/self/oom_score_adj", "/tmp/x"} {
		fd, err := syscall.Open(p, syscall.O_CREAT|syscall.O_WRONLY, 0o600)
		if err == nil {
			_, err = syscall.Write(fd, []byte("0"))
		}
		tried[p] = fmt.Sprint(err)
	}
	for _, p := range []string{"/proc/1/environ", "/proc/1/mem", "/proc/1/root", "/proc/sys/kernel/core_pattern", "/proc/1/fd"} {
		_, err := os.Open(p)
		tried[p] = fmt.Sprint(err)
	}
	tried["kill 1"] = fmt.Sprint(syscall.Kill(1, 9))
	tried["mount"] = fmt.Sprint(syscall.Mount("none", "/tmp", "tmpfs", 0, ""))
	tried["setuid"] = fmt.Sprint(syscall.Setuid(0))
	tried["umount"] = fmt.Sprint(syscall.Unmount("/tmp", syscall.MNT_DETACH))
	f["tried"] = tried
	return json.NewEncoder(os.Stdout).Encode(f)
}

var kept [][]byte

func alloc(args []string) error {
	n, _ := strconv.Atoi(args[0])
	for range n {
		b := make([]byte, 1<<20)
		for i := 0; i < len(b); i += 4096 {
			b[i] = 1
		}
		kept = append(kept, b)
	}
	fmt.Println("allocated")
	return block(nil)
}

// processes starts as many processes as it can.
func processes([]string) error {
	n := 0
	for ; n < 1000; n++ {
		if _, err := again("block"); err != nil {
			break
		}
	}
	fmt.Println(n)
	return nil
}

// again starts this program once more. It has no path: a descriptor leads to it.
func again(args ...string) (int, error) {
	p, err := syscall.ForkExec("/proc/self/exe", append([]string{"guest"}, args...), &syscall.ProcAttr{Files: []uintptr{0, 1, 2}})
	return p, err
}

func fill([]string) error {
	f, err := os.Create("/tmp/fill")
	if err != nil {
		return err
	}
	n, b := 0, make([]byte, 64<<10)
	for {
		m, err := f.Write(b)
		n += m
		if err != nil {
			fmt.Println(n, err)
			return nil
		}
	}
}

func inodes([]string) error {
	for n := range 100_000 {
		if err := os.WriteFile("/tmp/"+strconv.Itoa(n), nil, 0o600); err != nil {
			fmt.Println(n, err)
			return nil
		}
	}
	return nil
}

// tree starts a child that ignores the world, and its child, and waits.
func tree(args []string) error {
	if args[0] != "0" {
		n, _ := strconv.Atoi(args[0])
		if _, err := again("tree", strconv.Itoa(n-1)); err != nil {
			return err
		}
	} else {
		fmt.Println("planted")
	}
	return block(nil)
}

func block([]string) error {
	for {
		_ = syscall.Pause()
	}
}

func die(args []string) error {
	n, _ := strconv.Atoi(args[0])
	_ = syscall.Kill(os.Getpid(), syscall.Signal(n))
	return block(nil)
}

// orphan leaves processes without parents behind, one after the other.
func orphan([]string) error {
	for range 200 {
		pid, err := again("run", "exit", "0")
		if err != nil {
			return err
		}
		var s syscall.WaitStatus
		if _, err := syscall.Wait4(pid, &s, 0, nil); err != nil || s.ExitStatus() != 0 {
			return fmt.Errorf("%v, status %d", err, s.ExitStatus())
		}
	}
	fmt.Println("done")
	return nil
}

// run starts this program once more and does not wait for it.
func run(args []string) error {
	_, err := again(args...)
	return err
}

// term waits to be told.
func term([]string) error {
	if err := syscall.Kill(os.Getpid(), 0); err != nil {
		return err
	}
	fmt.Println("ready")
	return block(nil)
}

// self copies itself to /tmp and runs that.
func self([]string) error {
	b, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		return err
	}
	if err := os.WriteFile("/tmp/miner", b, 0o755); err != nil {
		return err
	}
	_, err = syscall.ForkExec("/tmp/miner", []string{"miner", "echo", "mining"}, &syscall.ProcAttr{Files: []uintptr{0, 1, 2}})
	fmt.Println(err)
	return nil
}

func spin([]string) error {
	fmt.Println("spinning")
	for { //nolint:staticcheck // that is the point
	}
}

func stat(args []string) error {
	_, err := os.Stat(args[0])
	return err
}

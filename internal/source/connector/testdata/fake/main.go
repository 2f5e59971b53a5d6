// Command fake is a connector that does what no connector should, or says what it sees.
// What it does is the end of its name.
package main

import (
	"bufio"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

var in = bufio.NewReaderSize(os.Stdin, 1<<20)

func say(format string, args ...any) { fmt.Fprintf(os.Stdout, format+"\n", args...) }

type line struct {
	Message, Position string
	ID                uint64
	Settings          struct {
		Path, Socket, Server string
		Node                 int
	}
	Secrets map[string][]byte
}

// hear reads lines until one of them is the message, and answers pings meanwhile.
func hear(message string) line {
	for {
		text, err := in.ReadString('\n')
		if err != nil {
			os.Exit(0)
		}
		var l line
		if err := json.Unmarshal([]byte(text), &l); err != nil {
			panic(err)
		}
		if l.Message == "ping" {
			say(`{"message":"pong","id":%d}`, l.ID)
		}
		if l.Message == message || (message == "" && l.Message != "ping") {
			return l
		}
	}
}

func emit(id int, data string) {
	say(`{"message":"events","id":%d,"events":[{"specversion":"1.0","id":"%s","type":"t","data_base64":"%s"}]}`,
		id, data, base64.StdEncoding.EncodeToString([]byte(data)))
}

func main() {
	if len(os.Args) > 1 {
		child()
	}
	kind := strings.TrimPrefix(os.Args[0], "casemate-connector-")
	switch kind {
	case "silent":
		hear("stop")
	case "early":
		fmt.Fprintln(os.Stderr, "no licence")
		os.Exit(3)
	case "future":
		say(`{"message":"ready","protocols":[9,12],"kinds":[{"name":"future"}]}`)
		hear("start")
	case "other":
		say(`{"message":"ready","protocols":[1],"kinds":[{"name":"another"}]}`)
		hear("start")
	}
	say(`{"message":"ready","protocols":[1],"kinds":[{"name":%q,"connection":true,"secrets":["password","missing"]}]}`, kind)
	start := hear("")
	if start.Message == "check" {
		switch kind {
		case "picky":
			say(`{"message":"checked","field":"stream","reason":"must be\u0000 a name"}`)
		case "mute":
			hear("never")
		case "early-check":
			os.Exit(1)
		default:
			say(`{"message":"checked"}`)
		}
		os.Exit(0)
	}
	run(kind, start)
}

func run(kind string, start line) {
	switch kind {
	case "garbage":
		say(`{"message":`)
	case "word":
		say(`{"message":"dance"}`)
	case "state":
		say(`{"message":"health","state":"splendid"}`)
	case "endless":
		for {
			if _, err := os.Stdout.Write(make([]byte, 1<<20)); err != nil {
				os.Exit(0)
			}
		}
	case "flood":
		for i := 1; ; i++ {
			emit(i, fmt.Sprint("e", i))
		}
	case "chatter":
		for {
			say(`{"message":"health","state":"running"}`)
		}
	case "log":
		for i := 0; i < 5000; i++ {
			fmt.Fprintln(os.Stderr, strings.Repeat("x", 10000), i)
		}
		emit(1, "after")
	case "deaf", "orphan":
		emit(1, kind)
		hang()
	case "same":
		emit(1, "a")
		emit(1, "b")
	case "mortal":
		emit(1, "after "+start.Position)
		hear("accepted")
		say(`{"message":"position","position":"%sx"}`, start.Position)
		emit(2, "sync "+start.Position) // answered after the position was kept
		hear("accepted")
		os.Exit(3)
	case "bad":
		say(`{"message":"events","id":1,"events":[{"specversion":"1.0","id":"1","type":"t"},{"specversion":"1.0","id":"2","type":"t","principal":"root"}]}`)
		refused := hear("refused")
		emit(2, fmt.Sprint("refused ", refused.ID))
	case "leak":
		fmt.Fprintf(os.Stderr, "the password is %s, or %s\n", start.Secrets["password"], base64.StdEncoding.EncodeToString(start.Secrets["password"]))
		say(`{"message":"health","state":"alert","reason":"cannot use %s"}`, start.Secrets["password"])
	case "stubborn":
		emit(1, "stubborn")
		for {
			hear("never")
		}
	case "late":
		emit(1, "late")
		hear("stop")
		emit(2, "later")
		hear("accepted") // of the first, maybe
		os.Exit(0)
	case "parent":
		c := exec.Command("/proc/self/exe", "child")
		c.Stdout, c.Stderr = os.Stdout, os.Stderr
		if err := c.Start(); err != nil {
			panic(err)
		}
		hear("accepted") // the child's events
		os.Exit(0)
	case "spy":
		spy(start)
	case "rogue":
		rogue(start)
	}
	hear("stop")
	os.Exit(0)
}

// hang is not a select without cases, which the runtime takes for a mistake.
func hang() {
	for {
		time.Sleep(time.Hour)
	}
}

func child() {
	emit(1, "child")
	hang()
}

// spy says what it is and what it can do.
func spy(start line) {
	seen := map[string]any{
		"uid": os.Getuid(), "gid": os.Getgid(), "env": os.Environ(), "args": os.Args, "secrets": len(start.Secrets),
		"ppid": os.Getppid(),
	}
	if s, err := os.Getgroups(); err == nil {
		seen["groups"] = len(s)
	}
	for name, path := range map[string]string{"secretFile": start.Settings.Path, "hosts": "/etc/hosts", "passwd": "/etc/passwd"} {
		_, err := os.ReadFile(path)
		seen[name] = err == nil
	}
	_, err := os.Create("/tmp/casemate-connector-spy")
	seen["write"] = err == nil
	r, _, _ := syscall.Syscall6(syscall.SYS_PRCTL, 39, 0, 0, 0, 0, 0) // PR_GET_NO_NEW_PRIVS
	seen["noNewPrivileges"] = r == 1
	for name, what := range map[string]int{"core": 4, "files": 7, "data": 2, "fsize": 1} {
		var l syscall.Rlimit
		if err := syscall.Getrlimit(what, &l); err != nil {
			panic(err)
		}
		seen[name] = l.Max
	}
	seen["descriptors"] = 0
	for fd := 3; fd < 64; fd++ {
		var st syscall.Stat_t
		if syscall.Fstat(fd, &st) == nil && st.Mode&syscall.S_IFMT == syscall.S_IFREG {
			seen["descriptors"] = seen["descriptors"].(int) + 1
		}
	}
	seen["exec"] = exec.Command("/bin/true").Run() == nil
	l, err := net.Listen("tcp", "127.0.0.1:0")
	seen["network"] = err == nil
	if err == nil {
		l.Close()
	}
	b, err := json.Marshal(seen)
	if err != nil {
		panic(err)
	}
	emit(1, strings.ReplaceAll(string(b), `"`, `'`))
}

// rogue tries what would harm the node, and says what it could do.
func rogue(start line) {
	var could []string
	try := func(what string, err error) {
		if err == nil {
			could = append(could, what)
		}
	}
	call := func(number uintptr, a ...uintptr) error {
		var args [6]uintptr
		copy(args[:], a)
		if _, _, e := syscall.RawSyscall6(number, args[0], args[1], args[2], args[3], args[4], args[5]); e != 0 {
			return e
		}
		return nil
	}
	node, path := uintptr(start.Settings.Node), start.Settings.Path
	_, err := os.ReadFile(path)
	try("read the node's file", err)
	_, err = os.ReadFile(fmt.Sprintf("/proc/%d/environ", node))
	try("read the node's environment", err)
	_, err = os.OpenFile(fmt.Sprintf("/proc/%d/mem", node), os.O_RDWR, 0)
	try("open the node's memory", err)
	try("write a file", os.WriteFile("/tmp/casemate-connector-rogue", nil, 0o600))
	try("change a mode", os.Chmod(path, 0o777))
	try("change times", os.Chtimes(path, time.Now(), time.Now()))
	try("remove a file", os.Remove(path))
	try("execute a shell", exec.Command("/bin/sh", "-c", "true").Run())
	try("execute itself", exec.Command("/proc/self/exe", "child").Start())
	try("become another program", syscall.Exec("/proc/self/exe", []string{"x", "child"}, nil))
	_, err = net.Dial("unix", start.Settings.Socket)
	try("connect to a socket", err)
	_, err = net.Dial("unix", "@"+start.Settings.Socket)
	try("connect to an abstract socket", err)
	_, err = net.Listen("tcp", "127.0.0.1:0")
	try("serve", err)
	try("make a packet socket", func() error { _, err := syscall.Socket(syscall.AF_PACKET, syscall.SOCK_RAW, 0); return err }())
	for _, pid := range []uintptr{node, 1} {
		try("trace", call(syscall.SYS_PTRACE, 16 /* PTRACE_ATTACH */, pid))
		try("signal", call(syscall.SYS_KILL, pid, 0))
		try("limit the node", call(302 /* prlimit64 */, pid, 7, 0, 0))
	}
	try("be traced", call(syscall.SYS_PTRACE, 0))
	try("mount", call(syscall.SYS_MOUNT))
	try("leave its namespaces", call(syscall.SYS_UNSHARE, syscall.CLONE_NEWUSER))
	try("load a program into the kernel", call(321 /* bpf */, 0, 0, 0))
	_, err = net.Dial("tcp", start.Settings.Server)
	if err != nil {
		could = append(could, "not reach its server: "+err.Error())
	}
	mode, _, _ := syscall.Syscall6(syscall.SYS_PRCTL, 21 /* PR_GET_SECCOMP */, 0, 0, 0, 0, 0)
	emit(1, fmt.Sprintf("mode %d; %s", mode, strings.Join(could, ", ")))
}

package layout

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/casemate-dev/casemate/internal/function"
)

// inRoot is the child's part: this program again, in namespaces of its own.
const inRoot = "CASEMATE_TEST_LAYOUT"

type order struct {
	Layout *Layout
	Dir    string // where to build it
	Code   string // put at /var/task
	Args   []string
}

func TestMain(m *testing.M) {
	if s := os.Getenv(inRoot); s != "" {
		var o order
		err := json.Unmarshal([]byte(s), &o)
		if err == nil {
			err = o.enter()
		}
		fmt.Fprintln(os.Stderr, "building the root:", err)
		os.Exit(125)
	}
	os.Exit(m.Run())
}

// enter builds the root and becomes the program. It returns only on failure.
func (o *order) enter() error {
	l := o.Layout
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return err
	}
	empty := filepath.Join(o.Dir, "empty")
	root := filepath.Join(o.Dir, "root")
	for _, d := range []string{empty, root} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return err
		}
	}
	if err := unix.Mount("root", root, "tmpfs", unix.MS_NOSUID, "size=1m"); err != nil {
		return err
	}
	for _, d := range append(l.Dirs, "/var/task", "/tmp") {
		if err := os.MkdirAll(root+d, 0o755); err != nil {
			return err
		}
	}
	for _, f := range l.Files {
		os.MkdirAll(filepath.Dir(root+f.Path), 0o755)
		if err := os.WriteFile(root+f.Path, f.Content, f.Mode); err != nil {
			return err
		}
	}
	for _, k := range l.Links {
		os.MkdirAll(filepath.Dir(root+k.Path), 0o755)
		if err := os.Symlink(k.Target, root+k.Path); err != nil {
			return err
		}
	}
	binds := append([]Bind(nil), l.Binds...)
	for _, m := range l.Masks {
		binds = append(binds, Bind{From: empty, To: m, Dir: true})
	}
	binds = append(binds, Bind{From: o.Code, To: "/var/task", Dir: true}, Bind{From: "/dev/null", To: "/dev/null"})
	for _, b := range binds {
		to := root + b.To
		if _, err := os.Lstat(to); err != nil {
			os.MkdirAll(filepath.Dir(to), 0o755)
			if b.Dir {
				err = os.Mkdir(to, 0o755)
			} else {
				err = os.WriteFile(to, nil, 0o644)
			}
			if err != nil {
				return err
			}
		}
		if err := unix.Mount(b.From, to, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("binding %s at %s: %w", b.From, b.To, err)
		}
	}
	if err := unix.Chroot(root); err != nil {
		return err
	}
	if err := os.Chdir("/var/task"); err != nil {
		return err
	}
	return unix.Exec(o.Args[0], o.Args, []string{"PATH=/usr/bin", "HOME=/tmp"})
}

// run runs a program in a root and gives what it printed.
func run(t *testing.T, l *Layout, code string, args ...string) string {
	t.Helper()
	if code == "" {
		code = t.TempDir()
	}
	spec, err := json.Marshal(order{Layout: l, Dir: t.TempDir(), Code: code, Args: args})
	if err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), self)
	cmd.Env = []string{inRoot + "=" + string(spec)}
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWNET}
	if os.Getuid() != 0 {
		cmd.SysProcAttr.Cloneflags |= unix.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}}
	}
	var out, errs strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Start(); err != nil {
		t.Skip("this system has no mount namespaces for us: ", err)
	}
	if err := cmd.Wait(); err != nil {
		t.Fatalf("%v: %v\n%s%s", args, err, out.String(), errs.String())
	}
	return strings.TrimSpace(out.String())
}

// direct runs a program as Discover wants it.
func direct(ctx context.Context, program string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Dir, cmd.Env = "/", []string{"PATH=" + os.Getenv("PATH")}
	return cmd.Output()
}

func discover(t *testing.T) *Host {
	t.Helper()
	return Discover(t.Context(), Options{Path: os.Getenv("PATH"), Run: direct})
}

func layoutOf(t *testing.T, h *Host, p Program) *Layout {
	t.Helper()
	l, err := h.Layout(p)
	if err != nil {
		t.Skip(err) // the machine has no such interpreter
	}
	return l
}

func write(t *testing.T, name, content string, mode os.FileMode) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, name), []byte(content), mode); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestNodeRunsInItsRoot(t *testing.T) {
	h := discover(t)
	l := layoutOf(t, h, Node)
	version, _ := h.Version(Node)
	code := write(t, "index.mjs", `
		import crypto from 'node:crypto';
		import fs from 'node:fs';
		import zlib from 'node:zlib';
		import tls from 'node:tls';
		import dns from 'node:dns/promises';
		import { Worker } from 'node:worker_threads';
		const file = fs.readFileSync('/etc/ssl/certs/ca-certificates.crt', 'utf8');
		tls.createSecureContext({ ca: file });
		const text = zlib.gunzipSync(zlib.gzipSync('größe')).toString();
		const localhost = (await dns.lookup('localhost', { family: 4 })).address;
		const worker = await new Promise((done) => new Worker('require("worker_threads").parentPort.postMessage(7)', { eval: true }).on('message', done));
		const { publicKey } = crypto.generateKeyPairSync('ed25519');
		console.log(JSON.stringify([process.versions.node, text, localhost, worker, publicKey.type,
			new Intl.DateTimeFormat('de', { month: 'long', timeZone: 'Europe/Berlin' }).format(0), fs.readdirSync('/usr/bin').sort().join()]));
	`, 0o644)
	got := run(t, l, code, l.Interpreter, "index.mjs")
	want := fmt.Sprintf(`["%s","größe","127.0.0.1",7,"public","Januar","node"]`, version)
	if got != want {
		t.Errorf("got %s\nwant %s", got, want)
	}
	if !strings.HasPrefix(l.Version, "nodejs "+version+" (") {
		t.Errorf("version %s", l.Version)
	}
}

func TestPythonRunsInItsRoot(t *testing.T) {
	h := discover(t)
	testPython(t, h)
}

// TestPythonOfTheDistributionRunsInItsRoot: a shim or a version manager often hides it.
func TestPythonOfTheDistributionRunsInItsRoot(t *testing.T) {
	testPython(t, Discover(t.Context(), Options{Path: "/usr/bin", Run: direct}))
}

func testPython(t *testing.T, h *Host) {
	t.Helper()
	l := layoutOf(t, h, Python)
	version, _ := h.Version(Python)
	code := write(t, "app.py", `
import asyncio, bz2, ctypes, datetime, decimal, email, hashlib, http.client, json, lzma, multiprocessing, os, re
import sqlite3, socket, ssl, sys, threading, unicodedata, urllib.request, uuid, zlib, zoneinfo
context = ssl.create_default_context()
db = sqlite3.connect(":memory:")
print(json.dumps([
    ".".join(map(str, sys.version_info[:3])), sys.prefix, sys.executable,
    db.execute("select 6 * 7").fetchone()[0],
    hashlib.sha3_256(b"").hexdigest()[:8], len(context.get_ca_certs()) > 0,
    zlib.decompress(zlib.compress(b"a")).decode() + bz2.decompress(bz2.compress(b"b")).decode() + lzma.decompress(lzma.compress(b"c")).decode(),
    datetime.datetime(2026, 7, 1, tzinfo=zoneinfo.ZoneInfo("Europe/Berlin")).utcoffset().total_seconds(),
    socket.gethostbyname("localhost"), ctypes.CDLL(None).getpid() == os.getpid(),
    [p for p in sys.path if "packages" in p and os.listdir(p)],
]))
`, 0o644)
	got := run(t, l, code, l.Interpreter, "app.py")
	want := fmt.Sprintf(`["%s", "/usr", "%s", 42, "a7ffc6f8", true, "abc", 7200.0, "127.0.0.1", true, []]`, version, l.Interpreter)
	if got != want {
		t.Errorf("got %s\nwant %s", got, want)
	}
	// The host's packages, pip among them, are not the function's.
	find := "import importlib.util as u; print(u.find_spec('pip'), u.find_spec('setuptools'))"
	if got := run(t, l, "", "/usr/bin/python3", "-c", find); got != "None None" {
		t.Errorf("the host's packages are inside: %s", got)
	}
}

func TestShellRunsInItsRoot(t *testing.T) {
	l := layoutOf(t, discover(t), Shell)
	code := write(t, "bootstrap", `#!/bin/sh
set -eu
echo 'a=1' | sed 's/a/b/' | grep -o 'b=.' | tr b c
echo one two | awk '{print $2}'
printf 'x\ny\n' | sort -r | head -n 1
curl --version | head -c 4; echo
printf hello | sha256sum | cut -c 1-8
`, 0o755)
	if got, want := run(t, l, code, "/var/task/bootstrap"), "c=1\ntwo\ny\ncurl\n2cf24dba"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// TestShellIsThatOfAWS runs what AWS's tutorial for custom runtimes has: its /bin/sh is bash.
func TestShellIsThatOfAWS(t *testing.T) {
	if installed("bash") == "" {
		t.Skip("there is no bash on this machine")
	}
	l := layoutOf(t, discover(t), Shell)
	code := write(t, "bootstrap", `#!/bin/sh
set -euo pipefail
function handler () {
  echo "Echoing request: '$1'"
}
HEADERS="$(mktemp)"
RESPONSE=$($(echo "function.handler" | cut -d. -f2) '{"a":1}')
echo "$RESPONSE" | tee "$HEADERS"
`, 0o755)
	if got, want := run(t, l, code, "/var/task/bootstrap"), `Echoing request: '{"a":1}'`; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// TestProgramsRunInTheBase runs what a developer would bring along: one program that
// is static and one that wants the C++ library.
func TestProgramsRunInTheBase(t *testing.T) {
	l := layoutOf(t, discover(t), NoProgram)
	for what, build := range map[string][]string{
		"c":      {"cc", "-o", "bootstrap", "main.c"},
		"static": {"cc", "-static", "-o", "bootstrap", "main.c"},
		"c++":    {"c++", "-o", "bootstrap", "main.c"},
	} {
		t.Run(what, func(t *testing.T) {
			source := "#include <stdio.h>\n#include <math.h>\nint main(int c, char **v) { printf(\"%.0f\\n\", sqrt(c * 49)); return 0; }\n"
			if what == "c++" {
				source = "#include <iostream>\n#include <thread>\nint main() { std::thread t([] { std::cout << 7 << std::endl; }); t.join(); }\n"
			}
			code := write(t, "main.c", source, 0o644)
			if what == "c++" {
				os.Rename(filepath.Join(code, "main.c"), filepath.Join(code, "main.cc"))
				build[len(build)-1] = "main.cc"
			} else {
				build = append(build, "-lm")
			}
			cmd := exec.CommandContext(t.Context(), build[0], build[1:]...)
			cmd.Dir = code
			if b, err := cmd.CombinedOutput(); err != nil {
				t.Skipf("no compiler: %v %s", err, b)
			}
			if got := run(t, l, code, "/var/task/bootstrap"); got != "7" {
				t.Errorf("got %q", got)
			}
		})
	}
	for _, b := range l.Binds {
		if strings.HasPrefix(b.To, "/usr/bin") {
			t.Errorf("the base has a program: %s", b.To)
		}
	}
}

func TestNothingElseOfTheHostIsInside(t *testing.T) {
	h := discover(t)
	for _, p := range []Program{NoProgram, Node, Python, Shell} {
		l := layoutOf(t, h, p)
		for _, b := range l.Binds {
			real, err := filepath.EvalSymlinks(b.From)
			if err != nil || real != b.From {
				t.Errorf("%s: the path %s has a link in it, to %s", p, b.From, real)
			}
			if !strings.HasPrefix(b.To, "/usr/") && b.To != authoritiesInside {
				t.Errorf("%s: %s is at %s", p, b.From, b.To)
			}
			if b.Dir && b.From != zones && b.From != h.python.stdlib && b.From != nodeShared {
				t.Errorf("%s: the directory %s is inside", p, b.From)
			}
			for _, secret := range []string{"/etc/shadow", "/proc", "/sys", "/dev", "/home", "/run"} {
				if strings.HasPrefix(b.From, secret) {
					t.Errorf("%s: %s is inside", p, b.From)
				}
			}
		}
	}
	if got := run(t, layoutOf(t, h, Shell), "", "/usr/bin/sh", "-c", "ls /; ls /etc /root /home 2>/dev/null | sort | tr '\n' ' '"); strings.Contains(got, "shadow") || !strings.Contains(got, "passwd") {
		t.Errorf("inside there is %s", got)
	}
}

func TestVersionCoversTheFiles(t *testing.T) {
	h := discover(t)
	a, b := layoutOf(t, h, NoProgram), layoutOf(t, discover(t), NoProgram)
	if a.Version != b.Version {
		t.Errorf("two looks at one host: %s, %s", a.Version, b.Version)
	}
	l := &Layout{Binds: []Bind{{From: write(t, "a", "x", 0o644), To: "/usr/lib/x", Dir: true}}}
	before, err := l.digest()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(l.Binds[0].From, "b"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if after, err := l.digest(); err != nil || after == before {
		t.Errorf("another file makes no difference: %v", err)
	}
	l.Masks = []string{"/usr/lib/x"}
	if masked, err := l.digest(); err != nil || masked == before {
		t.Errorf("a mask makes no difference: %v", err)
	}
}

func TestNeeds(t *testing.T) {
	for _, c := range []struct {
		runtime function.Runtime
		command []string
		first   string
		want    Program
	}{
		{function.RuntimeNodeJS, nil, "", Node},
		{function.RuntimePython, nil, "", Python},
		{function.RuntimeHTTP, []string{"node", "x.js"}, "", Node},
		{function.RuntimeAzure, []string{"python3", "x.py"}, "", Python},
		{function.RuntimeHTTP, []string{"server"}, "\x7fELF", NoProgram},
		{function.RuntimeProvided, nil, "\x7fELF", NoProgram},
		{function.RuntimeProvided, nil, "#!/bin/bash -e\nx", Shell},
		{function.RuntimeProvided, nil, "#!/usr/bin/env bash\n", Shell},
		{function.RuntimeProvided, nil, "#! /usr/bin/env -S node --x\n", Node},
		{function.RuntimeProvided, nil, "#!/usr/bin/python3.11\n", Python},
		{function.RuntimeProvided, nil, "#!/usr/bin/env\n", Shell},
		{function.RuntimeProvided, nil, "#!\n", NoProgram},
		{function.RuntimeProvided, nil, "", NoProgram},
	} {
		got := NeedsOf(&function.Config{Runtime: c.runtime, Command: c.command}, []byte(c.first))
		if got != c.want {
			t.Errorf("%s %v %q: %q, want %q", c.runtime, c.command, c.first, got, c.want)
		}
	}
}

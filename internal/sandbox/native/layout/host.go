package layout

import (
	"context"
	"encoding/json"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
)

// The oldest interpreters that are used: Node.js 18 has fetch and a stable test of
// ES modules; Python 3.9 is the oldest that AWS has a current base image for.
const (
	OldestNode   = 18
	OldestPython = 9 // of 3
)

// Run runs a program with an environment that holds nothing but Path, in the root
// directory, and gives its standard output. It must bound both time and output.
type Run func(ctx context.Context, program string, args ...string) ([]byte, error)

// Options of Discover.
type Options struct {
	Path string // as PATH: where interpreters are looked for
	Run  Run
}

// Host is what a machine has to offer.
type Host struct {
	finder *finder
	node   interpreter
	python interpreter
}

// interpreter is one that was found, or the reason that it was not.
type interpreter struct {
	version string
	program string // without symbolic links
	missing *MissingError

	// Of Python.
	short  string // 3.11
	prefix string
	stdlib string
	dynload,
	authorities string
}

// Discover looks for interpreters. It never fails: what is missing, Layout says.
func Discover(ctx context.Context, o Options) *Host {
	h := &Host{node: findNode(ctx, o), python: findPython(ctx, o)}
	cache, _ := os.ReadFile("/etc/ld.so.cache") // musl has none
	h.finder = newFinder(cache, "/bin/sh", h.node.program, h.python.program)
	return h
}

// Version gives the version of an interpreter, or why there is none.
func (h *Host) Version(p Program) (string, error) {
	i := &h.node
	if p == Python {
		i = &h.python
	}
	if i.missing != nil {
		return "", i.missing
	}
	return i.version, nil
}

// look finds a program. Directories of the path that are relative would depend on
// where the node was started.
func look(list, name string) string {
	for _, dir := range filepath.SplitList(list) {
		if !filepath.IsAbs(dir) {
			continue
		}
		p := filepath.Join(dir, name)
		if info, err := os.Stat(p); err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 {
			return p
		}
	}
	return ""
}

const nodeProbe = `process.stdout.write(JSON.stringify({version: process.versions.node, program: process.execPath}))`

func findNode(ctx context.Context, o Options) interpreter {
	remedy := "install Node.js " + strconv.Itoa(OldestNode) + " or newer (apt install nodejs, or nodejs.org), see that the node's PATH has it, and restart the node"
	fail := func(reason string) interpreter {
		return interpreter{missing: &MissingError{What: "Node.js", Reason: reason, Remedy: remedy}}
	}
	program := look(o.Path, "node")
	if program == "" {
		return fail("is not on the PATH")
	}
	var said struct{ Version, Program string }
	if reason := ask(ctx, o.Run, &said, program, "-e", nodeProbe); reason != "" {
		return fail(reason)
	}
	major, _, _ := strings.Cut(said.Version, ".")
	if n, err := strconv.Atoi(major); err != nil || n < OldestNode {
		return fail("is too old (" + short([]byte(said.Version)) + ")")
	}
	i := interpreter{version: said.Version, program: said.Program}
	if reason := i.settle(); reason != "" {
		return fail(reason)
	}
	return i
}

const pythonProbe = `
import json, os, sys
try:
    import ssl
    authorities = ssl.get_default_verify_paths().openssl_cafile
except ImportError:
    authorities = ""
print(json.dumps({
    "version": ".".join(map(str, sys.version_info[:3])), "short": "%d.%d" % sys.version_info[:2],
    "program": getattr(sys, "_base_executable", None) or sys.executable, "prefix": sys.base_prefix,
    "stdlib": os.path.dirname(os.__file__), "authorities": authorities,
    "dynload": next((p for p in sys.path if p.endswith("lib-dynload")), ""),
}))`

func findPython(ctx context.Context, o Options) interpreter {
	remedy := "install Python 3." + strconv.Itoa(OldestPython) + " or newer (apt install python3), see that the node's PATH has it as python3, and restart the node"
	fail := func(reason string) interpreter {
		return interpreter{missing: &MissingError{What: "Python", Reason: reason, Remedy: remedy}}
	}
	program := look(o.Path, "python3")
	if program == "" {
		return fail("is not on the PATH")
	}
	var said struct{ Version, Short, Program, Prefix, Stdlib, Dynload, Authorities string }
	if reason := ask(ctx, o.Run, &said, program, "-I", "-S", "-c", pythonProbe); reason != "" {
		return fail(reason)
	}
	minor, is3 := strings.CutPrefix(said.Short, "3.")
	if n, err := strconv.Atoi(minor); err != nil || !is3 || n < OldestPython {
		return fail("is too old (" + short([]byte(said.Version)) + ")")
	}
	i := interpreter{
		version: said.Version, short: said.Short, program: said.Program, prefix: said.Prefix,
		stdlib: said.Stdlib, dynload: said.Dynload, authorities: said.Authorities,
	}
	if reason := i.settle(); reason != "" {
		return fail(reason)
	}
	if _, err := os.Stat(filepath.Join(i.stdlib, "os.py")); err != nil {
		return fail("has no standard library in " + i.stdlib)
	}
	return i
}

// ask runs a probe, and says what went wrong.
func ask(ctx context.Context, run Run, said any, program string, args ...string) string {
	b, err := run(ctx, program, args...)
	if err != nil {
		return "does not run (" + program + ": " + short([]byte(err.Error())) + ")"
	}
	if err := json.Unmarshal(b, said); err != nil {
		return "gives no account of itself (" + program + " said " + short(b) + ")"
	}
	return ""
}

// settle resolves the program's path, and says what went wrong.
func (i *interpreter) settle() string {
	real, err := filepath.EvalSymlinks(i.program)
	if err != nil || !filepath.IsAbs(real) {
		return "says that it is at " + short([]byte(i.program)) + ", where it is not"
	}
	i.program = real
	return ""
}

// Debian's Node.js keeps parts of its own library here.
const nodeShared = "/usr/share/nodejs"

func (b *builder) node(h *Host, l *Layout) error {
	i := &h.node
	if i.missing != nil {
		return i.missing
	}
	l.Version, l.Interpreter = "nodejs "+i.version, "/usr/bin/node"
	err := b.program(i.program, l.Interpreter)
	if err == nil {
		err = b.sharedModules(i.program)
	}
	if err != nil {
		return &MissingError{What: "Node.js", Reason: "cannot be used (" + err.Error() + ")", Remedy: "install it anew"}
	}
	return nil
}

// sharedModules puts in the JavaScript that a Node.js with a library of its own loads
// from files: distributions build it so, nodejs.org does not.
func (b *builder) sharedModules(program string) error {
	needed, err := b.finder.closure(program)
	if err != nil {
		return err
	}
	for name := range needed {
		if strings.HasPrefix(name, "libnode.so") {
			if _, err := os.Stat(nodeShared); err == nil {
				return b.file(nodeShared, nodeShared)
			}
		}
	}
	return nil
}

func (b *builder) python(h *Host, l *Layout) error {
	i := &h.python
	if i.missing != nil {
		return i.missing
	}
	l.Version, l.Interpreter = "python "+i.version, "/usr/bin/python"+i.short
	if err := b.pythonFiles(i, l); err != nil {
		return &MissingError{What: "Python", Reason: "cannot be used (" + err.Error() + ")", Remedy: "install it anew"}
	}
	return nil
}

func (b *builder) pythonFiles(i *interpreter, l *Layout) error {
	if err := b.program(i.program, l.Interpreter); err != nil {
		return err
	}
	for _, name := range []string{"python3", "python"} {
		b.links["/usr/bin/"+name] = path.Base(l.Interpreter)
	}
	// Python finds its library from where it lies itself: beside bin.
	at := moved(i.stdlib, i.prefix)
	if err := b.file(i.stdlib, at); err != nil {
		return err
	}
	for _, packages := range []string{"site-packages", "dist-packages"} {
		if info, err := os.Stat(filepath.Join(i.stdlib, packages)); err == nil && info.IsDir() {
			l.Masks = append(l.Masks, path.Join(at, packages))
		}
	}
	if i.dynload != "" {
		if !strings.HasPrefix(i.dynload, i.stdlib+"/") {
			if err := b.file(i.dynload, moved(i.dynload, i.prefix)); err != nil {
				return err
			}
		}
		modules, err := filepath.Glob(filepath.Join(i.dynload, "*.so"))
		if err != nil {
			return err
		}
		for _, m := range modules {
			if withoutUse(filepath.Base(m)) {
				continue
			}
			// A module whose library is gone cannot be imported on the host either.
			_ = b.libraries(m)
		}
	}
	// OpenSSL has the place of its authorities built in.
	if a := i.authorities; path.IsAbs(a) && a != authoritiesInside && b.links[a] == "" {
		if _, there := b.binds[authoritiesInside]; there {
			b.links[a] = authoritiesInside
		}
	}
	return nil
}

// withoutUse reports modules for which there is nothing inside to work with, and
// which would bring a window system's libraries and Kerberos along.
func withoutUse(module string) bool {
	return strings.HasPrefix(module, "_tkinter.") || strings.HasPrefix(module, "nis.")
}

// moved gives the place inside of what lies below a prefix on the host.
func moved(p, prefix string) string {
	rel, err := filepath.Rel(prefix, p)
	if err != nil || rel == ".." || strings.HasPrefix(rel, "../") {
		return inside(p)
	}
	return path.Join("/usr", rel)
}

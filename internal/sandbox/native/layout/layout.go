package layout

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/casemate-dev/casemate/internal/function"
)

// Bind puts a file or directory of the host into the root, read-only.
type Bind struct {
	From string // absolute, without symbolic links
	To   string // absolute, inside
	Dir  bool
}

// File is a small file of the root.
type File struct {
	Path    string
	Mode    fs.FileMode
	Content []byte
}

// Link is a symbolic link of the root.
type Link struct{ Path, Target string }

// Layout describes a root. Its lists are sorted; Binds are to be mounted in order.
type Layout struct {
	// Version is what a receipt names: "nodejs 20.20.2 (3f1a…)". The digest in it covers
	// where each file lies, its size and when it was changed last.
	Version     string
	Interpreter string // path inside; "" where there is none
	Binds       []Bind
	// Masks are directories inside to be covered with an empty one, after Binds.
	Masks []string
	Files []File
	Dirs  []string
	Links []Link
}

// MissingError says what the host lacks. All of it may be shown to the operator and to
// whoever deploys.
type MissingError struct {
	What   string // "Node.js"
	Reason string
	Remedy string // what to do
}

func (e *MissingError) Error() string { return e.What + " " + e.Reason + ": " + e.Remedy }

// Program is an interpreter or a kit that a version needs.
type Program string

// The programs there are.
const (
	NoProgram Program = ""
	Node      Program = "node"
	Python    Program = "python3"
	Shell     Program = "sh" // and a few small programs, see shellKit
)

// NeedsOf says which program a version needs. first is the beginning, 256 bytes will
// do, of the file that is started: bootstrap, or Command[0] where that is a file. It
// may be empty.
func NeedsOf(c *function.Config, first []byte) Program {
	switch c.Runtime {
	case function.RuntimeNodeJS:
		return Node
	case function.RuntimePython:
		return Python
	default:
	}
	if len(c.Command) > 0 {
		switch c.Command[0] {
		case "node":
			return Node
		case "python3", "python":
			return Python
		}
	}
	line, found := bytes.CutPrefix(first, []byte("#!"))
	if !found {
		return NoProgram
	}
	line, _, _ = bytes.Cut(line, []byte("\n"))
	words := strings.Fields(string(line))
	if len(words) > 1 && path.Base(words[0]) == "env" {
		words = words[1:]
		if words[0] == "-S" {
			words = words[1:]
		}
	}
	if len(words) == 0 {
		return NoProgram
	}
	switch name := path.Base(words[0]); {
	case name == "node":
		return Node
	case name == "python" || strings.HasPrefix(name, "python3"):
		return Python
	default:
		return Shell
	}
}

// Layout gives the root for versions that need a program. It fails with a
// *MissingError.
func (h *Host) Layout(p Program) (*Layout, error) {
	b := builder{binds: map[string]Bind{}, links: map[string]string{}, finder: h.finder}
	if err := b.base(); err != nil {
		return nil, err
	}
	l := &Layout{Version: "base"}
	var err error
	switch p {
	case NoProgram:
	case Node:
		err = b.node(h, l)
	case Python:
		err = b.python(h, l)
	case Shell:
		err = b.shell(l)
	default:
		err = &MissingError{What: string(p), Reason: "is not a program that functions can have", Remedy: "name node or python3, or bring an executable along"}
	}
	if err != nil {
		return nil, err
	}
	l.Binds = slices.SortedFunc(maps.Values(b.binds), func(x, y Bind) int { return strings.Compare(x.To, y.To) })
	for _, from := range slices.Sorted(maps.Keys(b.links)) {
		l.Links = append(l.Links, Link{Path: from, Target: b.links[from]})
	}
	l.Files = baseFiles()
	l.Dirs = []string{"/usr/bin", "/usr/lib", "/usr/lib64", "/usr/sbin"}
	slices.Sort(l.Masks)
	digest, err := l.digest()
	if err != nil {
		return nil, err
	}
	l.Version = fmt.Sprintf("%s (%s)", l.Version, digest)
	return l, nil
}

// digest gives twelve hex digits over what the root holds, by the metadata of each
// file: contents would take a second to read.
func (l *Layout) digest() (string, error) {
	sum := sha256.New()
	add := func(kind, to, from string, info fs.FileInfo) {
		fmt.Fprintf(sum, "%s\x00%s\x00%s\x00%d\x00%d\x00%o\n", kind, to, from, info.Size(), info.ModTime().UnixNano(), info.Mode())
	}
	for _, b := range l.Binds {
		err := filepath.WalkDir(b.From, func(p string, e fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			to := b.To + strings.TrimPrefix(p, b.From)
			if slices.Contains(l.Masks, to) {
				return fs.SkipDir
			}
			info, err := e.Info()
			if err != nil {
				return err
			}
			if !info.IsDir() { // a cache of bytecode that is written anew changes its directory
				add("file", to, p, info)
			}
			return nil
		})
		if err != nil {
			return "", &MissingError{What: b.From, Reason: "cannot be read (" + err.Error() + ")", Remedy: "look at who may read it"}
		}
	}
	for _, f := range l.Files {
		fmt.Fprintf(sum, "own\x00%s\x00%x\n", f.Path, sha256.Sum256(f.Content))
	}
	for _, k := range l.Links {
		fmt.Fprintf(sum, "link\x00%s\x00%s\n", k.Path, k.Target)
	}
	return hex.EncodeToString(sum.Sum(nil))[:12], nil
}

// builder collects a root.
type builder struct {
	binds  map[string]Bind // by To
	links  map[string]string
	finder *finder
}

// file puts a file in, its symbolic links resolved. The first one at a place stays.
func (b *builder) file(from, to string) error {
	if _, taken := b.binds[to]; taken {
		return nil
	}
	real, err := filepath.EvalSymlinks(from)
	if err != nil {
		return err
	}
	info, err := os.Stat(real)
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() && !info.IsDir() {
		return fmt.Errorf("%s is neither a file nor a directory", real)
	}
	b.binds[to] = Bind{From: real, To: to, Dir: info.IsDir()}
	return nil
}

// program puts an executable in with the libraries it needs.
func (b *builder) program(from, to string) error {
	if err := b.file(from, to); err != nil {
		return err
	}
	return b.libraries(from)
}

// libraries puts in what an executable or library needs.
func (b *builder) libraries(from string) error {
	needed, err := b.finder.closure(from)
	if err != nil {
		return err
	}
	for name, host := range needed {
		if err := b.file(host, b.finder.place(name)); err != nil {
			return err
		}
	}
	return nil
}

// inside gives the place of a host's path where all is below /usr.
func inside(p string) string {
	for _, top := range []string{"/bin/", "/sbin/", "/lib/", "/lib64/"} {
		if strings.HasPrefix(p, top) {
			return "/usr" + p
		}
	}
	return p
}

// authorities are where systems keep the certificate authorities, as one file.
func authorities() []string {
	return []string{
		"/etc/ssl/certs/ca-certificates.crt",                // Debian, Alpine
		"/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem", // Fedora
		"/etc/pki/tls/certs/ca-bundle.crt",
		"/etc/ssl/ca-bundle.pem", // openSUSE
		"/etc/ssl/cert.pem",
	}
}

// Where certificate authorities are inside, and links that lead there.
const authoritiesInside = "/etc/ssl/certs/ca-certificates.crt"

const zones = "/usr/share/zoneinfo"

// baseLibraries are what a program may expect of any system. Only the first must be
// there; native modules of npm and pip need most of the rest.
func baseLibraries() []string {
	return []string{
		"libc.so.6", "libm.so.6", "libpthread.so.0", "libdl.so.2", "librt.so.1", "libutil.so.1", "libresolv.so.2",
		"libnss_files.so.2", "libnss_dns.so.2", "libgcc_s.so.1", "libstdc++.so.6",
	}
}

// base puts in what every root has. A host without a dynamic linker gives a root for
// static programs.
func (b *builder) base() error {
	for _, top := range []string{"bin", "sbin", "lib", "lib64"} {
		b.links["/"+top] = "usr/" + top
	}
	for _, from := range authorities() {
		if err := b.file(from, authoritiesInside); err == nil {
			b.links["/etc/ssl/cert.pem"] = "certs/ca-certificates.crt"
			break
		}
	}
	if info, err := os.Stat(zones); err == nil && info.IsDir() {
		if err := b.file(zones, zones); err != nil {
			return &MissingError{What: "time zones", Reason: "cannot be read (" + err.Error() + ")", Remedy: "look at " + zones}
		}
	}
	f := b.finder
	if f.loader == "" {
		return nil
	}
	if err := b.file(f.loader, inside(f.loader)); err != nil {
		return &MissingError{What: "the dynamic linker", Reason: "cannot be read (" + err.Error() + ")", Remedy: "look at " + f.loader}
	}
	for _, name := range baseLibraries() {
		host, ok := f.find(name, nil)
		if !ok {
			continue // the C library's parts are one file with musl and with newer glibc
		}
		err := b.file(host, f.place(name))
		if err == nil {
			err = b.libraries(host)
		}
		if err != nil {
			return &MissingError{What: name, Reason: "cannot be used (" + err.Error() + ")", Remedy: "look at " + host}
		}
	}
	return nil
}

// baseFiles are the small files in /etc. Names are resolved by whoever listens on the
// loopback interface; while nobody does, at once with an error.
func baseFiles() []File {
	text := func(p, s string) File { return File{Path: p, Mode: 0o444, Content: []byte(s)} }
	return []File{
		text("/etc/group", "root:x:0:\nguest:x:1000:\nnogroup:x:65534:\n"),
		text("/etc/hosts", "127.0.0.1 localhost\n::1 localhost\n"),
		text("/etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files dns\n"),
		text("/etc/passwd", "root:x:0:0:root:/:/usr/sbin/nologin\nguest:x:1000:1000:guest:/tmp:/usr/sbin/nologin\nnobody:x:65534:65534:nobody:/:/usr/sbin/nologin\n"),
		text("/etc/resolv.conf", "nameserver 127.0.0.1\noptions timeout:2 attempts:2\n"),
	}
}

// shellKit are the programs that come with a shell. Only sh must be there.
func shellKit() []string {
	return strings.Fields(`sh bash env cat ls cp mv rm mkdir rmdir ln touch chmod stat head tail cut tr sort uniq wc
		tee date sleep dirname basename readlink realpath mktemp test [ true false expr seq od base64 sha256sum printf echo
		uname id xargs find grep sed awk curl jq`)
}

func (b *builder) shell(l *Layout) error {
	l.Version, l.Interpreter = "shell", "/usr/bin/sh"
	first := map[string]string{} // real file, to its place: programs in one file become links
	for _, name := range shellKit() {
		real := installed(name)
		if bash := installed("bash"); name == "sh" && bash != "" {
			real = bash // as in AWS's image: bootstraps written for it say #!/bin/sh and set -o pipefail
		}
		to := "/usr/bin/" + name
		switch place, known := first[real]; {
		case real == "" && name == "sh":
			return &MissingError{What: "a shell", Reason: "is not there", Remedy: "install one as /bin/sh, or deploy an executable that is no script"}
		case real == "":
		case known:
			b.links[to] = path.Base(place)
		default:
			first[real] = to
			if err := b.program(real, to); err != nil {
				return &MissingError{What: name, Reason: "cannot be used (" + err.Error() + ")", Remedy: "look at " + real}
			}
		}
	}
	return nil
}

// installed gives the file of one of the host's programs, "" when it has none.
func installed(name string) string {
	for _, dir := range []string{"/usr/bin", "/bin"} {
		if p, err := filepath.EvalSymlinks(filepath.Join(dir, name)); err == nil {
			return p
		}
	}
	return ""
}

// short cuts what a program printed, for an error.
func short(b []byte) string {
	s := strings.Join(strings.Fields(string(b)), " ")
	return cmp.Or(s[:min(len(s), 200)], "nothing")
}

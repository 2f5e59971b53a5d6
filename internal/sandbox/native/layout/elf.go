package layout

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strings"
)

// maxLibraries bounds what one program may need.
const maxLibraries = 512

// finder finds shared libraries as the host's dynamic linker does (ld.so(8)): where
// the object says, then in the linker's cache, then in the usual directories.
type finder struct {
	loader  string // the dynamic linker's path as programs have it; "" when there is none
	class   elf.Class
	machine elf.Machine
	libDir  string              // where libraries go inside
	cache   map[string][]string // name to paths
	dirs    []string
}

// newFinder takes the dynamic linker from the first of some programs that has one.
func newFinder(cache []byte, programs ...string) *finder {
	f := &finder{cache: readCache(cache)}
	for _, p := range programs {
		o, err := readObject(p)
		if err != nil || o.interp == "" {
			continue
		}
		f.loader, f.class, f.machine = o.interp, o.class, o.machine
		break
	}
	if f.loader == "" {
		return f
	}
	triplet := map[elf.Machine]string{elf.EM_X86_64: "x86_64-linux-gnu", elf.EM_AARCH64: "aarch64-linux-gnu", elf.EM_RISCV: "riscv64-linux-gnu"}[f.machine]
	for _, d := range []string{"/lib/" + triplet, "/usr/lib/" + triplet, "/lib64", "/usr/lib64", "/lib", "/usr/lib", "/usr/local/lib"} {
		if triplet != "" || !strings.HasSuffix(d, "/") {
			f.dirs = append(f.dirs, d)
		}
	}
	// With musl the linker is the C library, and its own directory is searched.
	f.libDir = inside(path.Dir(f.loader))
	if libc, ok := f.find("libc.so.6", nil); ok {
		f.libDir = inside(path.Dir(libc))
	}
	return f
}

// place is where a library goes inside: the linker's own path, or the directory that
// it searches.
func (f *finder) place(name string) string {
	if name == path.Base(f.loader) {
		return inside(f.loader)
	}
	return path.Join(f.libDir, path.Base(name))
}

// object is as much of an ELF file as decides what it needs.
type object struct {
	class   elf.Class
	machine elf.Machine
	interp  string
	needed  []string
	dirs    []string // RUNPATH, or RPATH where there is none
}

var errNoELF = errors.New("not an ELF file")

func readObject(file string) (*object, error) {
	e, err := elf.Open(file)
	if err != nil {
		var format *elf.FormatError
		if errors.As(err, &format) {
			return nil, errNoELF
		}
		return nil, err
	}
	defer e.Close()
	o := &object{class: e.Class, machine: e.Machine}
	for _, p := range e.Progs {
		if p.Type != elf.PT_INTERP || p.Filesz > 4096 {
			continue
		}
		b := make([]byte, p.Filesz)
		if _, err := p.ReadAt(b, 0); err != nil {
			return nil, fmt.Errorf("reading the name of the dynamic linker: %v", err)
		}
		o.interp = string(bytes.TrimRight(b, "\x00"))
	}
	if o.needed, err = e.ImportedLibraries(); err != nil {
		return nil, fmt.Errorf("reading the libraries that %s needs: %v", file, err)
	}
	paths, err := e.DynString(elf.DT_RUNPATH)
	if err == nil && len(paths) == 0 {
		paths, err = e.DynString(elf.DT_RPATH)
	}
	if err != nil {
		return nil, fmt.Errorf("reading where %s looks for libraries: %v", file, err)
	}
	origin := filepath.Dir(file)
	for _, list := range paths {
		for dir := range strings.SplitSeq(list, ":") {
			dir = strings.NewReplacer("$ORIGIN", origin, "${ORIGIN}", origin).Replace(dir)
			if filepath.IsAbs(dir) {
				o.dirs = append(o.dirs, filepath.Clean(dir))
			}
		}
	}
	return o, nil
}

// closure gives all libraries that a file needs, by name, with their paths on the
// host. A file that is static, or no ELF file, needs none.
func (f *finder) closure(file string) (map[string]string, error) {
	found := map[string]string{}
	real, err := filepath.EvalSymlinks(file)
	if err != nil {
		return nil, err
	}
	for queue := []string{real}; len(queue) > 0; queue = queue[1:] {
		o, err := readObject(queue[0])
		if errors.Is(err, errNoELF) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if o.interp != "" && o.interp != f.loader {
			return nil, fmt.Errorf("%s wants the dynamic linker %s, and this host's programs have %q", queue[0], o.interp, f.loader)
		}
		for _, name := range o.needed {
			if _, known := found[name]; known {
				continue
			}
			host, ok := f.find(name, o.dirs)
			if !ok {
				return nil, fmt.Errorf("the shared library %s, which %s needs, is nowhere", name, queue[0])
			}
			if len(found) == maxLibraries {
				return nil, fmt.Errorf("%s needs more than %d shared libraries", file, maxLibraries)
			}
			found[name] = host
			if host, err = filepath.EvalSymlinks(host); err != nil {
				return nil, err
			}
			queue = append(queue, host)
		}
	}
	return found, nil
}

// find looks for a library of the host's kind.
func (f *finder) find(name string, own []string) (string, bool) {
	if name == path.Base(f.loader) {
		return f.loader, true
	}
	if strings.Contains(name, "/") {
		return name, filepath.IsAbs(name) && f.fits(name)
	}
	for _, dir := range own {
		if p := filepath.Join(dir, name); f.fits(p) {
			return p, true
		}
	}
	for _, p := range f.cache[name] {
		if f.fits(p) {
			return p, true
		}
	}
	for _, dir := range f.dirs {
		if p := filepath.Join(dir, name); f.fits(p) {
			return p, true
		}
	}
	return "", false
}

// fits reports whether a file is a library for this host's programs.
func (f *finder) fits(p string) bool {
	file, err := os.Open(p)
	if err != nil {
		return false
	}
	defer file.Close()
	var h [20]byte
	if _, err := file.ReadAt(h[:], 0); err != nil || string(h[:4]) != elf.ELFMAG {
		return false
	}
	order := binary.ByteOrder(binary.LittleEndian)
	if elf.Data(h[elf.EI_DATA]) == elf.ELFDATA2MSB {
		order = binary.BigEndian
	}
	return elf.Class(h[elf.EI_CLASS]) == f.class && elf.Machine(order.Uint16(h[18:])) == f.machine
}

// The dynamic linker's cache (glibc, sysdeps/generic/dl-cache.h), little-endian.
const (
	cacheMagic  = "glibc-ld.so.cache1.1"
	cacheHeader = 48
	cacheEntry  = 24
	maxCached   = 1 << 16
)

// readCache reads /etc/ld.so.cache. What it cannot read it leaves out: the usual
// directories are searched anyway. Entries for special processors are left out, since
// the root should not depend on which one the node runs on.
func readCache(b []byte) map[string][]string {
	out := map[string][]string{}
	at := bytes.Index(b, []byte(cacheMagic)) // an older form may come before
	if at < 0 || len(b)-at < cacheHeader {
		return out
	}
	b = b[at:]
	text := func(offset uint32) string {
		if int64(offset) >= int64(len(b)) {
			return ""
		}
		s, _, _ := bytes.Cut(b[offset:], []byte{0})
		return string(s)
	}
	n := int(min(binary.LittleEndian.Uint32(b[len(cacheMagic):]), maxCached))
	for i := range n {
		e := b[min(cacheHeader+i*cacheEntry, len(b)):]
		if len(e) < cacheEntry {
			break
		}
		name, file := text(binary.LittleEndian.Uint32(e[4:])), text(binary.LittleEndian.Uint32(e[8:]))
		if binary.LittleEndian.Uint64(e[16:]) == 0 && name != "" && path.IsAbs(file) {
			out[name] = append(out[name], file)
		}
	}
	return out
}

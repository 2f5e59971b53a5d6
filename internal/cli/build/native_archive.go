package build

import (
	"archive/zip"
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"unicode/utf8"
)

// Bounds of an archive; a node has the same ones.
const (
	MaxUnpacked = 256 << 20 // bytes
	MaxFiles    = 20_000
)

// copySource copies the folder, without what is ignored, to the stage. Links are kept
// as links, and none may lead out.
func (p *pack) copySource(ctx context.Context, skip rules) error {
	t := &tally{pack: p}
	if err := os.MkdirAll(p.stage, 0o700); err != nil {
		return fmt.Errorf("making a folder for the files: %v", err)
	}
	return filepath.WalkDir(p.source, func(at string, d fs.DirEntry, err error) error {
		if err != nil {
			return p.input("source", at+" cannot be read", "check its permissions, or leave it out with "+ignoreFile)
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if at == p.source {
			return nil
		}
		rel, err := filepath.Rel(p.source, at)
		if err != nil {
			return fmt.Errorf("reading the source: %v", err)
		}
		name, to := filepath.ToSlash(rel), filepath.Join(p.stage, rel)
		switch kind := d.Type(); {
		case skip.match(name, d.IsDir()):
			if d.IsDir() {
				return fs.SkipDir
			}
			return nil
		case d.IsDir():
			return os.MkdirAll(to, 0o700)
		case kind == fs.ModeSymlink:
			return p.copyLink(at, to, name)
		case kind.IsRegular():
			n, err := copyFile(at, to)
			if err != nil {
				return p.input("source", name+" cannot be read", "check its permissions, or leave it out with "+ignoreFile)
			}
			return t.count(name, n)
		default:
			return p.input("source", name+" is neither a file nor a folder", "take it away, or leave it out with "+ignoreFile)
		}
	})
}

func (p *pack) copyLink(at, to, name string) error {
	target, err := os.Readlink(at)
	if err != nil {
		return fmt.Errorf("reading the link %s: %v", name, err)
	}
	if !inside(name, filepath.ToSlash(target)) {
		return p.input("source", name+" is a link that leads out of the function's folder", "put a copy of what it leads to in its place, or leave it out with "+ignoreFile)
	}
	return os.Symlink(target, to)
}

// inside reports whether a link, by its path in the archive, stays in it.
func inside(name, target string) bool {
	if path.IsAbs(target) || filepath.IsAbs(target) || target == "" {
		return false
	}
	to := path.Join(path.Dir(name), target)
	return to != ".." && !strings.HasPrefix(to, "../")
}

func copyFile(from, to string) (int64, error) {
	in, err := os.Open(from)
	if err != nil {
		return 0, err
	}
	defer func() { _ = in.Close() }()
	info, err := in.Stat()
	if err != nil {
		return 0, err
	}
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600|info.Mode().Perm()&0o100)
	if err != nil {
		return 0, err
	}
	n, err := io.Copy(out, io.LimitReader(in, MaxUnpacked+1))
	return n, errors.Join(err, out.Close())
}

// tally counts files against the bounds and remembers the largest, for the message.
type tally struct {
	*pack
	files   int
	bytes   int64
	largest []sized
}

type sized struct {
	name string
	size int64
}

// shownLargest is how many of the largest files a message names.
const shownLargest = 5

func (t *tally) count(name string, n int64) error {
	t.files++
	t.bytes += n
	t.largest = append(t.largest, sized{name, n})
	slices.SortFunc(t.largest, func(a, b sized) int { return cmp.Or(cmp.Compare(b.size, a.size), strings.Compare(a.name, b.name)) })
	t.largest = t.largest[:min(len(t.largest), shownLargest)]
	switch {
	case t.files > MaxFiles:
		return t.input("source", fmt.Sprintf("the function has more than %d files", MaxFiles), "leave out what it does not need with "+ignoreFile)
	case t.bytes > MaxUnpacked:
		return t.tooLarge(fmt.Sprintf("the function's files are larger than %d MiB", MaxUnpacked>>20))
	}
	return nil
}

func (t *tally) tooLarge(what string) error {
	var names []string
	for _, l := range t.largest {
		names = append(names, fmt.Sprintf("%s (%.1f MiB)", l.name, float64(l.size)/(1<<20)))
	}
	return t.input("source", what+"; the largest are "+strings.Join(names, ", "), "leave out what it does not need with "+ignoreFile)
}

// archive packs the stage. The bytes depend on names, contents and who may execute
// what, and on nothing else: no times, no owners, names in order.
func (p *pack) archive() ([]byte, error) {
	t := &tally{pack: p}
	var out bytes.Buffer
	w := zip.NewWriter(&out)
	names, err := p.names()
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		if err := p.entry(w, t, name); err != nil {
			return nil, err
		}
		if out.Len() > MaxArtifact {
			return nil, t.tooLarge(fmt.Sprintf("the archive is larger than %d MiB", MaxArtifact>>20))
		}
	}
	if err := w.Close(); err != nil {
		return nil, fmt.Errorf("packing: %v", err)
	}
	if out.Len() > MaxArtifact {
		return nil, t.tooLarge(fmt.Sprintf("the archive is larger than %d MiB", MaxArtifact>>20))
	}
	return out.Bytes(), nil
}

// names lists the files and links of the stage in the order of their bytes.
func (p *pack) names() ([]string, error) {
	var names []string
	folded := map[string]string{}
	err := filepath.WalkDir(p.stage, func(at string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		rel, err := filepath.Rel(p.stage, at)
		if err != nil {
			return err
		}
		name := filepath.ToSlash(rel)
		if !utf8.ValidString(name) || strings.ContainsAny(name, "\\\x00") {
			return p.input("source", fmt.Sprintf("%q is a file name that cannot be packed", name), "rename it, or leave it out with "+ignoreFile)
		}
		if other, taken := folded[strings.ToLower(name)]; taken {
			return p.input("source", name+" and "+other+" differ in case alone", "rename one of them, or leave it out with "+ignoreFile)
		}
		folded[strings.ToLower(name)] = name
		names = append(names, name)
		return nil
	})
	var input *InputError
	if err != nil && !errors.As(err, &input) {
		return nil, fmt.Errorf("packing: %v", err)
	}
	slices.Sort(names)
	return names, err
}

func (p *pack) entry(w *zip.Writer, t *tally, name string) error {
	at := filepath.Join(p.stage, filepath.FromSlash(name))
	info, err := os.Lstat(at)
	if err != nil {
		return fmt.Errorf("packing: %v", err)
	}
	h := &zip.FileHeader{Name: name, Method: zip.Deflate} // without a time
	var content []byte
	if info.Mode().Type() == fs.ModeSymlink {
		target, err := os.Readlink(at)
		if err != nil {
			return fmt.Errorf("packing: %v", err)
		}
		if !inside(name, filepath.ToSlash(target)) {
			return p.input("source", name+" is a link that leads out of the function's folder", "install packages from a registry, not from a folder beside this one")
		}
		content, h.Method = []byte(filepath.ToSlash(target)), zip.Store
		h.SetMode(fs.ModeSymlink | 0o777)
	} else {
		if info.Size() > MaxUnpacked { // of a build: the rest was counted when it was copied
			return t.count(name, info.Size())
		}
		if content, err = os.ReadFile(at); err != nil {
			return fmt.Errorf("packing: %v", err)
		}
		h.SetMode(0o644)
		if info.Mode()&0o100 != 0 || name == p.program || bytes.HasPrefix(content, []byte("\x7fELF")) {
			h.SetMode(0o755)
		}
	}
	if err := t.count(name, int64(len(content))); err != nil {
		return err
	}
	f, err := w.CreateHeader(h)
	if err == nil {
		_, err = f.Write(content)
	}
	if err != nil {
		return fmt.Errorf("packing: %v", err)
	}
	return nil
}

// checkArchive finds out what a node would refuse an archive for that was made
// elsewhere.
func checkArchive(j *job, code []byte) error {
	const remedy = "name a zip archive of the function's files, as casemate makes it"
	r, err := zip.NewReader(bytes.NewReader(code), int64(len(code)))
	if err != nil {
		return j.input("source", "the file is not a zip archive", remedy)
	}
	if len(r.File) == 0 {
		return j.input("source", "the archive is empty", remedy)
	}
	if len(r.File) > MaxFiles {
		return j.input("source", fmt.Sprintf("the archive has more than %d files", MaxFiles), remedy)
	}
	var total uint64
	for _, f := range r.File {
		total += min(f.UncompressedSize64, MaxUnpacked+1)
	}
	if total > MaxUnpacked {
		return j.input("source", fmt.Sprintf("the archive's files are larger than %d MiB", MaxUnpacked>>20), remedy)
	}
	return nil
}

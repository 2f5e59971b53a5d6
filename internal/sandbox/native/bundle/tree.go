package bundle

import (
	"archive/zip"
	"bytes"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// emptyDeflated is the length of nothing, deflated; Info-ZIP and Java write it for
// directories.
const emptyDeflated = 2

type kind byte

const (
	kindDirectory kind = iota + 1
	kindFile
	kindLink
)

// tree collects names and what they name.
type tree struct {
	limits Limits
	kinds  map[string]kind
	folded map[string]string // the name in one letter case, to the name
}

func newTree(l Limits) *tree {
	return &tree{limits: l, kinds: map[string]kind{}, folded: map[string]string{}}
}

// add takes one entry in.
func (t *tree) add(f *zip.File) (entry, kind, error) {
	k, err := kindOf(f)
	if err != nil {
		return entry{}, 0, err
	}
	name := f.Name
	if k == kindDirectory {
		name = strings.TrimSuffix(name, "/")
	}
	if err := t.checkName(f.Name, name); err != nil {
		return entry{}, 0, err
	}
	if f.Flags&flagUTF8 == 0 && strings.IndexFunc(name, func(r rune) bool { return r > unicode.MaxASCII }) >= 0 {
		return entry{}, 0, refuse(f.Name, Name, "is not marked as UTF-8")
	}
	if _, taken := t.kinds[name]; taken {
		return entry{}, 0, refuse(f.Name, Duplicate, "is there twice")
	}
	if err := t.put(name, k); err != nil {
		return entry{}, 0, err
	}
	e := entry{file: f, name: name, executable: f.Mode()&0o111 != 0}
	if k == kindLink {
		if e.target, err = t.link(&e); err != nil {
			return entry{}, 0, err
		}
	}
	return e, k, nil
}

// put records a name, and refuses one that differs from another in letter case
// alone: on half of the developers' machines both would be one file.
func (t *tree) put(name string, k kind) error {
	key := strings.Map(foldRune, name)
	if other, ok := t.folded[key]; ok && other != name {
		return refuse(name, Duplicate, "differs from %.200q in letter case alone", other)
	}
	t.folded[key] = name
	t.kinds[name] = k
	return nil
}

// foldRune gives the least of the runes that are one letter in different cases.
func foldRune(r rune) rune {
	least := r
	for c := unicode.SimpleFold(r); c != r; c = unicode.SimpleFold(c) {
		least = min(least, c)
	}
	return least
}

// check sees that everything lies in directories, and adds those that have no
// entry of their own.
func (t *tree) check() error {
	for _, name := range slices.Sorted(maps.Keys(t.kinds)) {
		for p := path.Dir(name); p != "."; p = path.Dir(p) {
			switch t.kinds[p] {
			case kindDirectory:
			case 0:
				if err := t.put(p, kindDirectory); err != nil {
					return err
				}
				if len(t.kinds) > 2*t.limits.Entries {
					return refuse("", Count, "it needs more than %d directories", t.limits.Entries)
				}
			default:
				return refuse(name, Below, "lies below %.200q, which is no directory", p)
			}
		}
	}
	return nil
}

func (t *tree) directories() []string {
	var dirs []string
	for name, k := range t.kinds {
		if k == kindDirectory {
			dirs = append(dirs, name)
		}
	}
	slices.Sort(dirs)
	return dirs
}

// kindOf says what an entry is; its name and its mode must agree.
func kindOf(f *zip.File) (kind, error) {
	mode := f.Mode()
	slash := strings.HasSuffix(f.Name, "/")
	// The library adds the directory's bit for a name with a slash, so the mode itself
	// is asked too: its upper four bits are the type, on a system of Unix's kind.
	if unix := f.CreatorVersion >> 8; unix == 3 || unix == 19 {
		if t := f.ExternalAttrs >> 16 & 0xf000; t != 0 && (t == 0x4000) != slash {
			return 0, refuse(f.Name, Type, "is a directory by its name or its mode, not by both")
		}
	}
	if mode&(fs.ModeSetuid|fs.ModeSetgid|fs.ModeSticky) != 0 {
		return 0, refuse(f.Name, Type, "has a set-user-id, set-group-id or sticky bit")
	}
	switch mode.Type() {
	case 0:
		return kindFile, nil
	case fs.ModeDir:
		if !slash || f.UncompressedSize64 != 0 || f.CompressedSize64 > emptyDeflated {
			return 0, refuse(f.Name, Type, "is a directory with content")
		}
		return kindDirectory, nil
	case fs.ModeSymlink:
		return kindLink, nil
	default:
		return 0, refuse(f.Name, Type, "is neither a file, a directory nor a link")
	}
}

// checkName refuses names that could lead elsewhere, or that deceive a reader.
func (t *tree) checkName(shown, name string) error {
	if reason := t.badPath(name); reason != "" {
		return refuse(shown, Name, "%s", reason)
	}
	components := strings.Split(name, "/")
	if len(components) > t.limits.Depth {
		return refuse(shown, Name, "is more than %d directories deep", t.limits.Depth)
	}
	for _, c := range components {
		switch {
		case c == "":
			return refuse(shown, Name, "has an empty component")
		case c == "." || c == "..":
			return refuse(shown, Name, "has a component %q", c)
		case len(c) > t.limits.Name:
			return refuse(shown, Name, "has a component longer than %d bytes", t.limits.Name)
		}
	}
	return nil
}

// badPath says what names and links' targets have in common that is wrong.
func (t *tree) badPath(p string) string {
	switch {
	case p == "":
		return "has no name"
	case len(p) > t.limits.Path:
		return "is too long"
	case p[0] == '/':
		return "is absolute"
	case len(p) > 1 && p[1] == ':' && (p[0]|0x20) >= 'a' && (p[0]|0x20) <= 'z':
		return "begins with a drive"
	case !utf8.ValidString(p):
		return "is not valid UTF-8"
	}
	for _, r := range p {
		switch {
		case r == '\\':
			return "has a backslash"
		case unicode.Is(unicode.Cc, r), unicode.Is(unicode.Cf, r), r == '\u2028', r == '\u2029', r == utf8.RuneError:
			return "has a control or format character"
		}
	}
	return ""
}

// link reads and judges where a link leads. The link's own directory is a real
// one (see check), so .. in front means what it says. A .. further on could come
// after another link and mean something else.
func (t *tree) link(e *entry) (string, error) {
	if e.file.UncompressedSize64 > uint64(t.limits.Path) {
		return "", refuse(e.name, Link, "leads to a path that is too long")
	}
	var b bytes.Buffer
	if err := e.copyTo(&b, make([]byte, 512)); err != nil {
		return "", err
	}
	target := b.String()
	if reason := t.badPath(target); reason != "" {
		return "", refuse(e.name, Link, "leads to a path that %s", reason)
	}
	up, front := 0, true
	for c := range strings.SplitSeq(target, "/") {
		switch {
		case c == "" || len(c) > t.limits.Name:
			return "", refuse(e.name, Link, "leads to a path with an empty or too long component")
		case c == "..":
			if up++; !front {
				return "", refuse(e.name, Link, "leads to %.200q, with .. behind a name", target)
			}
		case c != ".":
			front = false
		}
	}
	if up > strings.Count(e.name, "/") {
		return "", refuse(e.name, Link, "leads to %.200q, outside the archive", target)
	}
	return target, nil
}

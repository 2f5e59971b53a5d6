package bundle

import (
	"archive/zip"
	"bytes"
	"cmp"
	"errors"
	"hash/crc32"
	"io"
	"io/fs"
	"slices"
	"strings"
)

// Limits bound an archive. Sizes are bytes. A zero field means its default.
type Limits struct {
	Packed   int64 // of the archive
	Unpacked int64 // of all files together
	File     int64 // of one file
	Entries  int   // files, directories and links
	Depth    int   // components of a path
	Name     int   // length of a component
	Path     int   // length of a path, and of a link's target
	Ratio    int64 // unpacked over packed, beyond RatioFree
}

// Limits that hold where a field of Limits is zero.
const (
	DefaultPacked   int64 = 64 << 20
	DefaultUnpacked int64 = 256 << 20
	DefaultFile     int64 = 256 << 20
	DefaultEntries        = 20_000
	DefaultDepth          = 40
	DefaultName           = 255
	DefaultPath           = 1024
	DefaultRatio    int64 = 100
)

// RatioFree is how many bytes an archive may unpack to whatever the ratio: a
// folder of empty tables is no bomb.
const RatioFree int64 = 32 << 20

func (l Limits) withDefaults() Limits {
	l.Packed = cmp.Or(l.Packed, DefaultPacked)
	l.Unpacked = cmp.Or(l.Unpacked, DefaultUnpacked)
	l.File = cmp.Or(l.File, DefaultFile)
	l.Entries = cmp.Or(l.Entries, DefaultEntries)
	l.Depth = cmp.Or(l.Depth, DefaultDepth)
	l.Name = cmp.Or(l.Name, DefaultName)
	l.Path = cmp.Or(l.Path, DefaultPath)
	l.Ratio = cmp.Or(l.Ratio, DefaultRatio)
	return l
}

// Summary is what an archive holds. Sizes are bytes.
type Summary struct {
	Files, Links     int
	Directories      int // those that files need included
	Packed, Unpacked int64
}

// Archive is an archive whose structure, names, types, links and declared sizes
// were checked. Its content is checked as it is read.
type Archive struct {
	reader  *zip.Reader
	entries []entry  // files, then links, each sorted by name
	dirs    []string // sorted, so that parents come first
	summary Summary
}

// entry is one file or link.
type entry struct {
	file       *zip.File
	name       string
	executable bool
	target     string // of a link
}

// Open checks an archive's structure. It fails with an *Error. The archive must
// not change while the result is in use.
func Open(archive []byte, l Limits) (*Archive, error) {
	l = l.withDefaults()
	if int64(len(archive)) > l.Packed {
		return nil, refuse("", Size, "it has %d bytes, more than %d", len(archive), l.Packed)
	}
	places, err := structure(archive, l)
	if err != nil {
		return nil, err
	}
	r, err := zip.NewReader(bytes.NewReader(archive), int64(len(archive)))
	if err != nil && !errors.Is(err, zip.ErrInsecurePath) { // names are judged below, by stricter rules
		return nil, refuse("", Format, "%v", err)
	}
	if len(r.File) != len(places) {
		return nil, refuse("", Format, "two readers disagree on the number of its entries")
	}
	a := &Archive{reader: r}
	t := newTree(l)
	var total int64
	for i, f := range r.File {
		if err := agree(f, &places[i]); err != nil {
			return nil, err
		}
		if f.UncompressedSize64 > uint64(l.File) {
			return nil, refuse(f.Name, Size, "has %d bytes, more than %d", f.UncompressedSize64, l.File)
		}
		if total += int64(f.UncompressedSize64); total > l.Unpacked {
			return nil, refuse("", Size, "it unpacks to more than %d bytes", l.Unpacked)
		}
		e, kind, err := t.add(f)
		switch {
		case err != nil:
			return nil, err
		case kind != kindDirectory:
			a.entries = append(a.entries, e)
		}
	}
	if total > RatioFree && total > l.Ratio*int64(len(archive)) {
		return nil, refuse("", Ratio, "it unpacks to more than %d times its size", l.Ratio)
	}
	if err := t.check(); err != nil {
		return nil, err
	}
	slices.SortFunc(a.entries, func(x, y entry) int {
		if xl, yl := x.target != "", y.target != ""; xl != yl {
			if yl {
				return -1
			}
			return 1
		}
		return strings.Compare(x.name, y.name)
	})
	a.dirs = t.directories()
	a.summary = Summary{Directories: len(a.dirs), Packed: int64(len(archive)), Unpacked: total}
	for i := range a.entries {
		if a.entries[i].target != "" {
			a.summary.Links++
		} else {
			a.summary.Files++
		}
	}
	return a, nil
}

// agree compares what the two readers see.
func agree(f *zip.File, p *place) error {
	offset, err := f.DataOffset()
	switch {
	case err != nil, f.Name != p.name, uint64(offset) != p.content, f.Method != p.method, f.Flags != p.flags,
		f.CompressedSize64 != p.packed, f.UncompressedSize64 != p.size, f.CRC32 != p.crc:
		return refuse(p.name, Format, "reads differently to two readers")
	case f.Flags&(flagEncrypted|flagStrong|flagMasked) != 0:
		return refuse(p.name, Method, "is encrypted")
	case f.Method == zip.Store && p.packed != p.size:
		return refuse(p.name, Content, "is stored in another size than it has")
	case f.Method != zip.Store && f.Method != zip.Deflate:
		return refuse(p.name, Method, "is compressed by method %d; only stored and deflated entries are read", f.Method)
	}
	return nil
}

// Summary says what the archive holds, by its own account: Check verifies it.
func (a *Archive) Summary() Summary { return a.summary }

// FS gives the archive's files for reading. It does not follow links. A file whose
// content does not match its checksum fails when its end is read.
func (a *Archive) FS() fs.FS { return a.reader }

// Executable reports whether the archive has a file of that name, and whether it
// unpacks as one that may be executed.
func (a *Archive) Executable(name string) (found, executable bool) {
	for i := range a.entries {
		if e := &a.entries[i]; e.name == name && e.target == "" {
			return true, e.executable
		}
	}
	return false, false
}

// Check reads all of the content and compares sizes and checksums. It fails with
// an *Error.
func (a *Archive) Check() error {
	buffer := make([]byte, copyBuffer)
	for i := range a.entries {
		if err := a.entries[i].copyTo(io.Discard, buffer); err != nil {
			return err
		}
	}
	return nil
}

// Check reads an archive through, without writing anything. It fails with an
// *Error.
func Check(archive []byte, l Limits) (Summary, error) {
	a, err := Open(archive, l)
	if err != nil {
		return Summary{}, err
	}
	return a.Summary(), a.Check()
}

const copyBuffer = 64 << 10

// copyTo writes the entry's content, whose size and checksum must be as declared.
// It fails with an *Error when the archive is at fault, and with w's error.
func (e *entry) copyTo(w io.Writer, buffer []byte) error {
	r, err := e.file.Open()
	if err != nil {
		return refuse(e.name, Content, "cannot be read: %v", err)
	}
	defer r.Close()
	// The library skips the checksum when it is declared as zero, so it is taken here.
	sum := crc32.NewIEEE()
	var n uint64
	for {
		k, err := r.Read(buffer)
		if n += uint64(k); n > e.file.UncompressedSize64 {
			return refuse(e.name, Content, "is longer than it says")
		}
		sum.Write(buffer[:k])
		if k > 0 {
			if _, err := w.Write(buffer[:k]); err != nil {
				return err
			}
		}
		switch {
		case err == io.EOF:
			if n != e.file.UncompressedSize64 || sum.Sum32() != e.file.CRC32 {
				return refuse(e.name, Content, "does not match its size or checksum")
			}
			return nil
		case err != nil:
			return refuse(e.name, Content, "cannot be read: %v", err)
		}
	}
}

package bundle

import (
	"encoding/binary"
	"slices"
)

// The records of a zip archive (PKWARE APPNOTE 6.3.10, section 4.3).
const (
	localSignature     = 0x04034b50
	centralSignature   = 0x02014b50
	endSignature       = 0x06054b50
	localSize          = 30
	centralSize        = 46
	endSize            = 22
	flagEncrypted      = 1 << 0
	flagDescriptor     = 1 << 3
	flagStrong         = 1 << 6
	flagMasked         = 1 << 13
	flagUTF8           = 1 << 11
	zip64Extra         = 0x0001
	descriptorSize     = 12
	descriptorWithSign = 16
	full16             = 0xffff
	full32             = 0xffffffff
)

// place is where an entry lies, as the archive's directory has it.
type place struct {
	name           string
	start, content uint64 // of the local header; of the content
	packed, size   uint64
	crc            uint32
	flags, method  uint16
}

// structure reads the archive's directory and the header before each entry, and
// checks that together they account for every byte of the archive.
func structure(b []byte, l Limits) ([]place, error) {
	if len(b) < endSize {
		return nil, refuse("", Format, "it is too short to be a zip archive")
	}
	end := b[len(b)-endSize:]
	if binary.LittleEndian.Uint32(end) != endSignature {
		return nil, refuse("", Format, "it does not end as a zip archive without comment does")
	}
	count := int(u16(end, 10))
	size, start := uint64(u32(end, 12)), uint64(u32(end, 16))
	switch {
	case u16(end, 4) != 0 || u16(end, 6) != 0 || int(u16(end, 8)) != count:
		return nil, refuse("", Format, "it is spread over several disks")
	case u16(end, 20) != 0:
		return nil, refuse("", Format, "it has a comment")
	case count == full16 || size == full32 || start == full32:
		return nil, refuse("", Format, "it is a zip64 archive")
	case count > l.Entries:
		return nil, refuse("", Count, "it holds %d entries, more than %d", count, l.Entries)
	case start+size != uint64(len(b)-endSize):
		return nil, refuse("", Format, "its directory is not where it says")
	}
	places := make([]place, 0, count)
	for directory := b[start : len(b)-endSize]; len(directory) > 0; {
		p, n, err := central(directory)
		if err != nil {
			return nil, err
		}
		if err := p.local(b[:start]); err != nil {
			return nil, err
		}
		places, directory = append(places, p), directory[n:]
		if len(places) > count {
			return nil, refuse("", Format, "its directory has more entries than it says")
		}
	}
	if len(places) != count {
		return nil, refuse("", Format, "its directory has fewer entries than it says")
	}
	return places, tiled(places, start)
}

// central reads one entry of the directory; it gives the record's length too.
func central(b []byte) (place, int, error) {
	if len(b) < centralSize || binary.LittleEndian.Uint32(b) != centralSignature {
		return place{}, 0, refuse("", Format, "its directory is damaged")
	}
	name, extra, comment := int(u16(b, 28)), int(u16(b, 30)), int(u16(b, 32))
	n := centralSize + name + extra + comment
	if len(b) < n {
		return place{}, 0, refuse("", Format, "its directory is damaged")
	}
	p := place{
		name:  string(b[centralSize : centralSize+name]),
		flags: u16(b, 8), method: u16(b, 10), crc: u32(b, 16),
		packed: uint64(u32(b, 20)), size: uint64(u32(b, 24)), start: uint64(u32(b, 42)),
	}
	switch {
	case u16(b, 34) != 0:
		return place{}, 0, refuse(p.name, Format, "is on another disk")
	case hasZip64(b[centralSize+name : centralSize+name+extra]):
		return place{}, 0, refuse(p.name, Format, "has a zip64 record")
	case p.packed == full32 || p.size == full32 || p.start == full32:
		return place{}, 0, refuse(p.name, Format, "has a zip64 record")
	}
	return p, n, nil
}

// local reads the header before the content, which must say what the directory
// says. b ends where the directory begins.
func (p *place) local(b []byte) error {
	if p.start+localSize > uint64(len(b)) {
		return refuse(p.name, Format, "begins outside the archive")
	}
	h := b[p.start:]
	if binary.LittleEndian.Uint32(h) != localSignature {
		return refuse(p.name, Format, "has no header where the directory says")
	}
	name, extra := int(u16(h, 26)), int(u16(h, 28))
	p.content = p.start + localSize + uint64(name) + uint64(extra)
	if p.content+p.packed > uint64(len(b)) {
		return refuse(p.name, Overlap, "reaches into the archive's directory")
	}
	if string(h[localSize:localSize+name]) != p.name {
		return refuse(p.name, Format, "has another name in its header")
	}
	if u16(h, 6) != p.flags || u16(h, 8) != p.method {
		return refuse(p.name, Format, "has other flags in its header")
	}
	if hasZip64(h[localSize+name : localSize+name+extra]) {
		return refuse(p.name, Format, "has a zip64 record")
	}
	crc, packed, size := u32(h, 14), uint64(u32(h, 18)), uint64(u32(h, 22))
	same := crc == p.crc && packed == p.packed && size == p.size
	later := p.flags&flagDescriptor != 0 && crc == 0 && packed == 0 && size == 0
	if !same && !later {
		return refuse(p.name, Format, "has another size or checksum in its header")
	}
	return nil
}

// tiled reports whether entries lie one after the other from the archive's first
// byte to its directory.
func tiled(places []place, directory uint64) error {
	sorted := slices.SortedFunc(slices.Values(places), func(a, b place) int {
		if a.start < b.start {
			return -1
		}
		return 1
	})
	at := uint64(0)
	for i, p := range sorted {
		if p.start != at {
			return refuse(p.name, Overlap, "does not begin where the one before it ends")
		}
		next := directory
		if i+1 < len(sorted) {
			next = sorted[i+1].start
		}
		end := p.content + p.packed
		gap := next - end
		switch {
		case next < end:
			return refuse(p.name, Overlap, "shares bytes with another")
		case gap == 0:
		case p.flags&flagDescriptor != 0 && (gap == descriptorSize || gap == descriptorWithSign):
		default:
			return refuse(p.name, Overlap, "is followed by %d bytes of nobody's", gap)
		}
		at = next
	}
	if at != directory {
		return refuse("", Overlap, "it begins with %d bytes of nobody's", directory)
	}
	return nil
}

// hasZip64 looks for the record that overrides sizes and offsets. Fields that do
// not parse count as one: nobody agrees on what they mean.
func hasZip64(extra []byte) bool {
	for len(extra) > 0 {
		if len(extra) < 4 || u16(extra, 0) == zip64Extra || len(extra) < 4+int(u16(extra, 2)) {
			return true
		}
		extra = extra[4+int(u16(extra, 2)):]
	}
	return false
}

func u16(b []byte, at int) uint16 { return binary.LittleEndian.Uint16(b[at:]) }
func u32(b []byte, at int) uint32 { return binary.LittleEndian.Uint32(b[at:]) }

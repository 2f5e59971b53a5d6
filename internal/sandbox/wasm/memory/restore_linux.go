package memory

import (
	"bytes"
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// keepPages bounds the private pages that an instance keeps from one invocation to
// the next; those beyond go back to the kernel. 2 MiB where pages have 4 KiB.
const keepPages = 512

// sortEvery is how many restores pass before pages that the last guest did not
// write are let go. A page written less often than that is cheaper to fault in.
const sortEvery = 16

// Restore brings the memory back to its image: the same bytes, the same size. It
// panics when the kernel refuses, since the next guest would see what this one left.
func (l *Linear) Restore() {
	if err := l.restore(); err != nil {
		panic(fmt.Sprintf("memory: cannot restore: %v", err))
	}
}

func (l *Linear) restore() error {
	end := max(l.used, l.reach)
	l.restores++
	var err error
	switch {
	case end == 0:
	case l.system.strategy == Scan:
		err = l.scan(end)
	case l.system.strategy == Advise:
		err = l.drop(0, end)
		l.reach = 0
	default:
		l.copyBack(0, end)
	}
	l.size = l.imageSize()
	l.used = l.size
	return err
}

// Trim gives private pages back to the kernel, for an instance that will not be
// used soon. The memory must be restored.
func (l *Linear) Trim() {
	if l.system.strategy == Scan && l.reach > 0 {
		if err := l.drop(0, l.reach); err != nil {
			panic(fmt.Sprintf("memory: cannot trim: %v", err))
		}
		l.reach = 0
	}
}

// drop throws the private pages of a range away.
func (l *Linear) drop(from, to uint64) error {
	if err := unix.Madvise(l.mem[from:to], unix.MADV_DONTNEED); err != nil {
		return fmt.Errorf("giving pages back: %v", err)
	}
	return nil
}

// region is a run of pages of one kind: struct page_region of linux/fs.h.
type region struct{ start, end, categories uint64 }

// scanArg is struct pm_scan_arg of linux/fs.h.
type scanArg struct {
	size, flags, start, end, walkEnd, vec, vecLen, maxPages uint64
	inverted, mask, anyOf, returned                         uint64
}

// Values of linux/fs.h.
const (
	pagemapScan = 0xc0606610 // _IOWR('f', 16, struct pm_scan_arg)
	isFile      = 1 << 2
	isPresent   = 1 << 3
	isSwapped   = 1 << 4
	isZero      = 1 << 5
)

// scan finds the private pages below end and restores them: by copying while there
// are few, else by giving them back.
func (l *Linear) scan(end uint64) error {
	sorting := l.restores%sortEvery == 0
	room := uint64(keepPages) * l.system.page
	l.reach = 0
	for from := uint64(0); from < end; {
		regions, next, err := l.private(from, end)
		if err != nil {
			return err
		}
		for _, r := range regions {
			if n := r.end - r.start; n > room {
				// All that is above goes at once: giving thousands of pages back one by one
				// would hold up whoever faults in this process meanwhile.
				return l.drop(r.start, end)
			} else if !sorting {
				room -= n
				l.copyBack(r.start, r.end)
				l.reach = r.end
				continue
			}
			if err := l.sort(r, &room); err != nil {
				return err
			}
		}
		from = next
	}
	return nil
}

// sort keeps and restores the pages of a region that differ from the image, and
// gives those back that do not.
func (l *Linear) sort(r region, room *uint64) error {
	page := l.system.page
	for at := r.start; at < r.end; at += page {
		if l.clean(at, at+page) {
			if err := l.drop(at, at+page); err != nil {
				return err
			}
			continue
		}
		*room -= page
		l.copyBack(at, at+page)
		l.reach = at + page
	}
	return nil
}

func (l *Linear) clean(from, to uint64) bool {
	if to <= l.imageSize() {
		return bytes.Equal(l.mem[from:to], l.image.bytes[from:to])
	}
	return zero(l.mem[from:to])
}

// private asks the kernel for the pages of [from, end) that are the memory's own:
// neither the image's nor the zero page, present or swapped out. It gives them as
// offsets, and where to ask on.
func (l *Linear) private(from, end uint64) ([]region, uint64, error) {
	base := uint64(uintptr(unsafe.Pointer(&l.mem[0])))
	arg := scanArg{
		size: uint64(unsafe.Sizeof(scanArg{})), start: base + from, end: base + end,
		vec: uint64(uintptr(unsafe.Pointer(&l.regions[0]))), vecLen: uint64(len(l.regions)),
		inverted: isFile | isZero, mask: isFile | isZero, anyOf: isPresent | isSwapped, returned: isPresent,
	}
	n, _, errno := unix.Syscall(unix.SYS_IOCTL, l.system.fd, pagemapScan, uintptr(unsafe.Pointer(&arg)))
	if errno != 0 {
		return nil, 0, fmt.Errorf("scanning pages: %v", errno)
	}
	found := l.regions[:n]
	for i := range found {
		found[i].start -= base
		found[i].end -= base
	}
	if len(found) < len(l.regions) {
		return found, end, nil
	}
	return found, arg.walkEnd - base, nil
}

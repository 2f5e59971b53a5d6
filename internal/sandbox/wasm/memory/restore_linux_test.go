package memory

import (
	"bytes"
	"errors"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// privatePages counts the pages that a memory has for itself.
func privatePages(t *testing.T, s *System, l *Linear) (n int) {
	t.Helper()
	if s.pagemap == nil {
		t.Skip("no page map here")
	}
	regions := l.regions
	l.regions = make([]region, 64)
	defer func() { l.regions = regions }()
	for from := uint64(0); from < uint64(len(l.mem)); {
		found, next, err := l.private(from, uint64(len(l.mem)))
		if err != nil {
			t.Skipf("the kernel cannot tell: %v", err)
		}
		for _, r := range found {
			n += int((r.end - r.start) / s.page)
		}
		from = next
	}
	return n
}

func TestImageIsSealed(t *testing.T) {
	t.Parallel()
	for _, strategy := range []Strategy{Scan, Advise} {
		s := open(t, strategy, 1<<30)
		img := newImage(t, s, 2*PageSize, Piece{Data: []byte("sealed")})
		if _, err := unix.Pwrite(img.fd, []byte("X"), 0); !errors.Is(err, unix.EPERM) {
			t.Errorf("writing gave %v", err)
		}
		for _, size := range []int64{0, PageSize, 4 * PageSize} {
			if err := unix.Ftruncate(img.fd, size); !errors.Is(err, unix.EPERM) {
				t.Errorf("making it %d bytes long gave %v", size, err)
			}
		}
		if _, err := unix.Mmap(img.fd, 0, PageSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED); !errors.Is(err, unix.EPERM) {
			t.Errorf("mapping it for writing gave %v", err)
		}
		if _, err := unix.FcntlInt(uintptr(img.fd), unix.F_ADD_SEALS, unix.F_SEAL_FUTURE_WRITE); !errors.Is(err, unix.EPERM) {
			t.Errorf("changing the seals gave %v", err)
		}
		if flags, err := unix.FcntlInt(uintptr(img.fd), unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC == 0 {
			t.Errorf("a program that is started would inherit the image: %#x, %v", flags, err)
		}
		if !bytes.HasPrefix(img.Bytes(), []byte("sealed")) {
			t.Error("it changed")
		}
	}
}

// TestImageIsSparse makes an image of which little is not zero: only that takes room.
func TestImageIsSparse(t *testing.T) {
	t.Parallel()
	s := open(t, Advise, 1<<30)
	data := make([]byte, 64<<20)
	copy(data[17<<20:], "one")
	copy(data[40<<20+4090:], "another, over the end of a page")
	img := newImage(t, s, 64<<20, Piece{Data: data})
	var stat unix.Stat_t
	if err := unix.Fstat(img.fd, &stat); err != nil {
		t.Fatal(err)
	}
	if taken := stat.Blocks * 512; taken == 0 || taken > 64<<10 {
		t.Errorf("64 MiB with three pages written take %d bytes", taken)
	}
	if at := differs(img.Bytes(), data); at >= 0 {
		t.Errorf("the image differs at %#x", at)
	}
}

func TestPagesKept(t *testing.T) {
	t.Parallel()
	s := open(t, Scan, 1<<30)
	const limit = 4 * keepPages << 12
	img := newImage(t, s, limit/2, Piece{Data: bytes.Repeat([]byte("i"), limit/2)})
	l := newLinear(t, s, limit)
	if err := l.Map(img); err != nil {
		t.Fatal(err)
	}
	page := int(s.page)
	touch := func(count, step int) {
		if !l.Begin(0) {
			t.Fatal("it cannot begin")
		}
		b := l.Resize(limit)
		for k := range count {
			b[k*step*page+3]++
		}
		l.Restore()
		l.End()
		if at := differs(l.Bytes(), img.Bytes()); at >= 0 {
			t.Fatalf("it differs at %#x", at)
		}
	}
	touch(10, 7)
	if got := privatePages(t, s, l); got != 10 {
		t.Errorf("of ten pages written %d are kept", got)
	}
	// One that writes less does not keep them for ever.
	for range sortEvery {
		touch(2, 7)
	}
	if got := privatePages(t, s, l); got != 2 {
		t.Errorf("after %d restores with two pages written, %d are kept", sortEvery, got)
	}
	// One that writes everything does not keep it, either way of writing.
	for range sortEvery {
		touch(limit/page, 1)
		if got := privatePages(t, s, l); got > keepPages {
			t.Errorf("%d pages are kept, more than %d", got, keepPages)
		}
		touch(limit/page/2, 2)
		if got := privatePages(t, s, l); got > keepPages {
			t.Errorf("%d scattered pages are kept, more than %d", got, keepPages)
		}
	}
	l.Trim()
	if got := privatePages(t, s, l); got != 0 {
		t.Errorf("%d pages are left after trimming", got)
	}
	touch(5, 1)
	touch(3, 100)
}

// TestManyRegions has more runs of pages than one question to the kernel finds.
func TestManyRegions(t *testing.T) {
	t.Parallel()
	s := open(t, Scan, 1<<30)
	l := newLinear(t, s, 8<<20)
	img := newImage(t, s, PageSize)
	if err := l.Map(img); err != nil {
		t.Fatal(err)
	}
	for _, step := range []int{2, 3, 5, 2} {
		if !l.Begin(0) {
			t.Fatal("it cannot begin")
		}
		b := l.Resize(8 << 20)
		for at := 0; at < len(b); at += step * int(s.page) {
			b[at] = 1
		}
		l.Restore()
		l.End()
		for at, c := range l.mem {
			if c != 0 {
				t.Fatalf("with every %d. page written, byte %#x is %d", step, at, c)
			}
		}
	}
}

// TestRestoreNeverPretends has the kernel refuse: the next guest must not get what
// the last one left.
func TestRestoreNeverPretends(t *testing.T) {
	t.Parallel()
	pagemap, err := OpenPagemap()
	if err != nil {
		t.Skip(err)
	}
	defer func() { _ = pagemap.Close() }()
	s, err := Open(NewBudget(1<<30), pagemap, Scan)
	if err != nil {
		t.Skip(err)
	}
	l := newLinear(t, s, PageSize)
	if err := l.Map(newImage(t, s, PageSize)); err != nil {
		t.Fatal(err)
	}
	l.Bytes()[7] = 7
	no, err := os.Open("/dev/null")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = no.Close() }()
	s.fd = no.Fd()
	defer func() {
		if recover() == nil {
			t.Error("a restore that the kernel refused went on")
		}
	}()
	l.Restore()
}

// TestPagesAboveAreLetGo has one guest grow and write far above, and then others that
// do not grow: its page does not stay for ever, whenever it was written.
func TestPagesAboveAreLetGo(t *testing.T) {
	t.Parallel()
	s := open(t, Scan, 1<<30)
	l := newLinear(t, s, 8*PageSize)
	if err := l.Map(newImage(t, s, PageSize)); err != nil {
		t.Fatal(err)
	}
	once := func(size uint64) {
		if !l.Begin(0) {
			t.Fatal("it cannot begin")
		}
		b := l.Resize(size)
		b[len(b)-1] = 1
		l.Restore()
		l.End()
	}
	for before := range sortEvery {
		for range before {
			once(PageSize)
		}
		once(8 * PageSize)
		for range 2 * sortEvery {
			once(PageSize)
		}
		if got := privatePages(t, s, l); got != 1 {
			t.Errorf("written after %d restores: %d pages are kept, want the one that is written each time", before, got)
		}
	}
}

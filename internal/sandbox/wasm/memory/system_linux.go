package memory

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// System makes images and memories, all with one strategy and one budget.
type System struct {
	strategy Strategy
	budget   *Budget
	pagemap  *os.File
	fd       uintptr // of pagemap
	page     uint64  // the machine's page size, in bytes
}

// OpenPagemap opens what the strategy Scan asks: the calling process's own page
// map. A process that is going to lose its file system opens it before.
func OpenPagemap() (*os.File, error) {
	f, err := os.Open("/proc/self/pagemap")
	if err != nil {
		return nil, fmt.Errorf("opening the page map: %v", err)
	}
	return f, nil
}

// Open finds the strategies that work here and takes want, or the best one when
// want is "". It fails when want does not work. pagemap may be nil.
func Open(budget *Budget, pagemap *os.File, want Strategy) (*System, error) {
	s := &System{budget: budget, pagemap: pagemap, page: uint64(os.Getpagesize())}
	if pagemap != nil {
		s.fd = pagemap.Fd()
	}
	var why []error
	for _, strategy := range []Strategy{Scan, Advise, Copy} {
		if want != "" && strategy != want {
			continue
		}
		s.strategy = strategy
		err := s.probe()
		if err == nil {
			return s, nil
		}
		why = append(why, fmt.Errorf("%s: %v", strategy, err))
	}
	return nil, fmt.Errorf("finding a way to restore memory: %v", errors.Join(why...))
}

// Strategy is the one in use.
func (s *System) Strategy() Strategy { return s.strategy }

// probe goes once around: an image, a write, and back.
func (s *System) probe() error {
	if s.strategy == Scan && s.pagemap == nil {
		return errors.New("no page map was given")
	}
	img, err := s.NewImage(PageSize, Piece{Offset: 5, Data: []byte("x")})
	if err != nil {
		return err
	}
	defer img.Close()
	l, err := s.New(2 * PageSize)
	if err != nil {
		return err
	}
	defer l.Close()
	if err := l.Map(img); err != nil {
		return err
	}
	if !l.Begin(0) {
		return errors.New("the budget is too small for anything")
	}
	defer l.End()
	if l.Resize(2*PageSize) == nil {
		return errors.New("the budget is too small for anything")
	}
	copy(l.Bytes(), bytes.Repeat([]byte("y"), 2*PageSize))
	if err := l.restore(); err != nil {
		return err
	}
	if l.mem[5] != 'x' || l.mem[6] != 0 || l.mem[PageSize] != 0 {
		return errors.New("memory did not come back")
	}
	return nil
}

// NewImage makes an image of zeroes with pieces on it, later ones over earlier ones.
func (s *System) NewImage(size uint64, pieces ...Piece) (*Image, error) {
	if err := checkPieces(size, pieces); err != nil {
		return nil, err
	}
	i := &Image{system: s, size: size, fd: -1}
	if size == 0 {
		return i, nil
	}
	if s.strategy == Copy {
		i.bytes = make([]byte, size)
		for _, p := range pieces {
			copy(i.bytes[p.Offset:], p.Data)
		}
		return i, nil
	}
	fd, err := unix.MemfdCreate("image", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return nil, fmt.Errorf("making an image: %v", err)
	}
	i.fd = fd
	if err := i.fill(pieces); err != nil {
		i.Close()
		return nil, fmt.Errorf("making an image: %v", err)
	}
	return i, nil
}

// fill writes the pieces, leaves out pages of zeroes, and seals the file.
func (i *Image) fill(pieces []Piece) error {
	if err := unix.Ftruncate(i.fd, int64(i.size)); err != nil {
		return fmt.Errorf("sizing: %v", err)
	}
	write := i.writeMapped
	if len(pieces) == 1 {
		write = i.writeRuns
	}
	if err := write(pieces); err != nil {
		return fmt.Errorf("writing: %v", err)
	}
	seals := unix.F_SEAL_WRITE | unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_SEAL
	if _, err := unix.FcntlInt(uintptr(i.fd), unix.F_ADD_SEALS, seals); err != nil {
		return fmt.Errorf("sealing: %v", err)
	}
	var err error
	i.bytes, err = unix.Mmap(i.fd, 0, int(i.size), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return fmt.Errorf("mapping: %v", err)
	}
	return nil
}

// writeMapped is for many pieces, which may be small.
func (i *Image) writeMapped(pieces []Piece) error {
	if len(pieces) == 0 {
		return nil
	}
	view, err := unix.Mmap(i.fd, 0, int(i.size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return err
	}
	for _, p := range pieces {
		copy(view[p.Offset:], p.Data)
	}
	return unix.Munmap(view) // what is mapped to be written cannot be sealed
}

// writeRuns writes a large piece: as many pages at once as follow each other.
func (i *Image) writeRuns(pieces []Piece) error {
	page := i.system.page
	at, data := pieces[0].Offset, pieces[0].Data
	for len(data) > 0 {
		n := uint64(0) // of the run
		for n < uint64(len(data)) {
			next := min(page-(at+n)%page, uint64(len(data))-n)
			if next == page && zero(data[n:n+next]) {
				break // which need not exist
			}
			n += next
		}
		if n == 0 {
			at, data = at+page, data[page:]
			continue
		}
		for n > 0 {
			written, err := unix.Pwrite(i.fd, data[:n], int64(at))
			if err != nil {
				return err
			}
			at, data, n = at+uint64(written), data[written:], n-uint64(written)
		}
	}
	return nil
}

func zero(b []byte) bool {
	for len(b) >= 8 {
		if *(*uint64)(unsafe.Pointer(&b[0])) != 0 {
			return false
		}
		b = b[8:]
	}
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}

// Freeze makes an image of what a memory holds now.
func (s *System) Freeze(l *Linear) (*Image, error) {
	return s.NewImage(l.size, Piece{Data: l.Bytes()})
}

// Close lets go of the image. Memories that have it mapped keep it alive.
func (i *Image) Close() {
	if i.fd < 0 {
		return
	}
	if i.bytes != nil {
		_ = unix.Munmap(i.bytes)
		i.bytes = nil
	}
	_ = unix.Close(i.fd)
	i.fd = -1
}

// New reserves address space for a memory of at most limit bytes.
func (s *System) New(limit uint64) (*Linear, error) {
	// An empty reservation cannot be made, and needs not.
	mem, err := unix.Mmap(-1, 0, int(max(limit, PageSize)), unix.PROT_READ|unix.PROT_WRITE,
		unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_NORESERVE)
	if err != nil {
		return nil, fmt.Errorf("reserving %d bytes of address space: %v", limit, err)
	}
	l := &Linear{system: s, limit: limit, mem: mem}
	// Huge pages would make a guest that touches one byte cost two megabytes.
	if err := unix.Madvise(mem, unix.MADV_NOHUGEPAGE); err != nil {
		l.Close()
		return nil, fmt.Errorf("asking for small pages: %v", err)
	}
	if s.strategy == Scan {
		l.regions = make([]region, 96)
	}
	return l, nil
}

// Map makes the image the state of the memory. What the memory held is gone.
func (l *Linear) Map(i *Image) error {
	if i.size > l.limit {
		return fmt.Errorf("mapping an image of %d bytes into %d", i.size, l.limit)
	}
	if old := max(l.used, l.reach, l.imageSize()); old > 0 {
		// Whatever is mapped there, file or not, makes way for zeroes.
		if err := fixed(l.mem[:old], -1); err != nil {
			return fmt.Errorf("clearing memory: %v", err)
		}
	}
	if i.size > 0 && i.fd >= 0 {
		if err := fixed(l.mem[:i.size], i.fd); err != nil {
			return fmt.Errorf("mapping an image: %v", err)
		}
	}
	l.image, l.size, l.used, l.reach = i, i.size, i.size, 0
	if l.system.strategy == Copy {
		copy(l.mem, i.bytes)
	}
	return nil
}

// fixed maps a file, or zeroes when fd is -1, over a range that is already ours.
func fixed(mem []byte, fd int) error {
	flags := unix.MAP_PRIVATE | unix.MAP_FIXED | unix.MAP_NORESERVE
	if fd < 0 {
		flags |= unix.MAP_ANONYMOUS
	}
	_, err := unix.MmapPtr(fd, 0, unsafe.Pointer(&mem[0]), uintptr(len(mem)), unix.PROT_READ|unix.PROT_WRITE, flags)
	if err != nil {
		return err
	}
	return unix.Madvise(mem, unix.MADV_NOHUGEPAGE)
}

// Close gives the address space back.
func (l *Linear) Close() {
	if l.mem != nil {
		_ = unix.Munmap(l.mem)
		l.mem, l.size = nil, 0
	}
}

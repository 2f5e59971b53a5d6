//go:build !linux

package memory

import (
	"errors"
	"fmt"
	"os"
)

// System makes images and memories, all with one strategy and one budget.
type System struct{ budget *Budget }

type region struct{}

// OpenPagemap gives nothing here: the strategy Scan is Linux's.
func OpenPagemap() (*os.File, error) { return nil, errors.ErrUnsupported }

// Open gives a system with the strategy Copy, the only one there is here.
func Open(budget *Budget, _ *os.File, want Strategy) (*System, error) {
	if want != "" && want != Copy {
		return nil, fmt.Errorf("restoring memory by %s: %w", want, errors.ErrUnsupported)
	}
	return &System{budget: budget}, nil
}

// Strategy is the one in use.
func (s *System) Strategy() Strategy { return Copy }

// NewImage makes an image of zeroes with pieces on it, later ones over earlier ones.
func (s *System) NewImage(size uint64, pieces ...Piece) (*Image, error) {
	if err := checkPieces(size, pieces); err != nil {
		return nil, err
	}
	i := &Image{system: s, size: size, fd: -1, bytes: make([]byte, size)}
	for _, p := range pieces {
		copy(i.bytes[p.Offset:], p.Data)
	}
	return i, nil
}

// Freeze makes an image of what a memory holds now.
func (s *System) Freeze(l *Linear) (*Image, error) {
	return s.NewImage(l.size, Piece{Data: l.Bytes()})
}

// Close lets go of the image.
func (i *Image) Close() {}

// New reserves address space for a memory of at most limit bytes. The system gives
// pages as they are touched.
func (s *System) New(limit uint64) (*Linear, error) {
	return &Linear{system: s, limit: limit, mem: make([]byte, max(limit, PageSize))}, nil
}

// Map makes the image the state of the memory. What the memory held is gone.
func (l *Linear) Map(i *Image) error {
	if i.size > l.limit {
		return fmt.Errorf("mapping an image of %d bytes into %d", i.size, l.limit)
	}
	clear(l.mem[:max(l.used, l.imageSize())])
	l.image, l.size, l.used = i, i.size, i.size
	copy(l.mem, i.bytes)
	return nil
}

// Close gives the memory back.
func (l *Linear) Close() { l.mem, l.size = nil, 0 }

// Restore brings the memory back to its image: the same bytes, the same size.
func (l *Linear) Restore() {
	l.restores++
	l.copyBack(0, l.used)
	l.size = l.imageSize()
	l.used = l.size
}

// Trim has nothing to give back here.
func (l *Linear) Trim() {}

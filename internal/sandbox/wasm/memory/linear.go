package memory

import "fmt"

// PageSize is the unit in which the memory of a guest grows, in bytes (WebAssembly
// core specification, section 4.2.8).
const PageSize = 64 << 10

// Strategy is a way to restore memory.
type Strategy string

// The strategies, the best first.
const (
	Scan   Strategy = "scan"
	Advise Strategy = "advise"
	Copy   Strategy = "copy"
)

// Linear is the memory of one instance.
type Linear struct {
	system *System
	limit  uint64
	mem    []byte // the whole reservation
	image  *Image // nil: zeroes

	size  uint64 // what the guest has now
	used  uint64 // largest size since the last Restore
	reach uint64 // end of the pages that the last Restore left private

	peak   uint64 // largest size since Begin
	held   uint64 // taken from the budget
	denied bool   // the guest asked for more than it may have

	restores uint64
	regions  []region
}

// Size is the guest's memory now, in bytes.
func (l *Linear) Size() uint64 { return l.size }

// Peak is the largest size since Begin, in bytes.
func (l *Linear) Peak() uint64 { return l.peak }

// Denied reports whether the guest was refused memory since Begin.
func (l *Linear) Denied() bool { return l.denied }

// Bytes is the guest's memory now. The slice ends where the memory does, in length
// and capacity; it is stale after the next growth or Restore.
func (l *Linear) Bytes() []byte { return l.mem[:l.size:l.size] }

// Begin takes what an instance begins with from the budget: start bytes, or the
// mapped image's size when that is more. It reports whether the budget allowed it. End gives it back.
func (l *Linear) Begin(start uint64) bool {
	if l.image != nil {
		start = max(start, l.image.size)
	}
	l.peak, l.denied = l.size, false
	if start > l.limit || !l.system.budget.take(start) {
		return false
	}
	l.held = start
	return true
}

// End gives back what Begin and growing took from the budget.
func (l *Linear) End() {
	l.system.budget.give(l.held)
	l.held = 0
}

// Resize sets the size of the guest's memory, a multiple of PageSize, and gives it,
// or nil when it may not have as much. Memory never moves. New memory is zero.
func (l *Linear) Resize(size uint64) []byte {
	if size > l.limit {
		l.denied = true
		return nil
	}
	if size > l.held {
		if !l.system.budget.take(size - l.held) {
			l.denied = true
			return nil
		}
		l.held = size
	}
	l.size = size
	l.used = max(l.used, size)
	l.peak = max(l.peak, size)
	return l.Bytes()
}

// imageSize is the size to which Restore returns.
func (l *Linear) imageSize() uint64 {
	if l.image == nil {
		return 0
	}
	return l.image.size
}

// copyBack copies the image over mem[from:to] and clears what lies above it.
func (l *Linear) copyBack(from, to uint64) {
	if end := min(to, l.imageSize()); from < end {
		copy(l.mem[from:end], l.image.bytes[from:end])
		from = end
	}
	clear(l.mem[from:to])
}

// Image is the state that memories start from and return to. It never changes.
type Image struct {
	system *System
	size   uint64
	bytes  []byte // a view that is only read
	fd     int    // of the file that is mapped, -1 without
}

// Size of the image in bytes, a multiple of PageSize.
func (i *Image) Size() uint64 { return i.size }

// Bytes is the image's content. It must not be written.
func (i *Image) Bytes() []byte { return i.bytes }

// Piece is content for a new image.
type Piece struct {
	Offset uint64
	Data   []byte
}

// checkPieces makes sure that each piece lies within the size.
func checkPieces(size uint64, pieces []Piece) error {
	if size%PageSize != 0 {
		return fmt.Errorf("making an image of %d bytes: not a multiple of %d", size, PageSize)
	}
	for _, p := range pieces {
		if p.Offset > size || uint64(len(p.Data)) > size-p.Offset {
			return fmt.Errorf("making an image: %d bytes at %d lie outside its %d bytes", len(p.Data), p.Offset, size)
		}
	}
	return nil
}

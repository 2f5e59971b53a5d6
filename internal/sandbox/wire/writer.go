package wire

import (
	"errors"
	"io"
	"runtime"
	"sync"
)

// maxPending bounds what waits to be written, in bytes. Above it Send waits, which
// is what makes a fast sender of large bodies take turns with the others.
const maxPending = 4 * (headerSize + MaxPayload)

// keepBuffer is the largest buffer that is kept for the next batch, in bytes.
const keepBuffer = 128 << 10

// ErrClosed is the error of a Writer after Close.
var ErrClosed = errors.New("connection closed")

// Writer writes frames from many goroutines. Whoever finds nobody writing becomes
// the writer and takes along what others have put down meanwhile, so frames that
// come close together leave in one write and nobody waits for a goroutine to wake.
//
// The mutex guards all fields below it. It is never held during a write.
type Writer struct {
	dst io.Writer

	mu      sync.Mutex
	room    sync.Cond
	pending []byte
	spare   []byte
	writing bool
	err     error
}

// NewWriter writes frames to dst. A failed write is final.
func NewWriter(dst io.Writer) *Writer {
	w := &Writer{dst: dst}
	w.room.L = &w.mu
	return w
}

// Send writes one frame, or leaves it to the goroutine that is writing. An error
// means that the frame did not leave; nil means that it left or that a later call
// will tell. The payload is copied.
func (w *Writer) Send(t Type, stream uint32, payload ...[]byte) error {
	w.mu.Lock()
	if err := w.put(t, stream, payload); err != nil || w.writing {
		w.mu.Unlock()
		return err
	}
	return w.drain()
}

// Gather is Send for a busy moment: before it writes, it lets the goroutines run
// that are ready, so that what they send leaves in the same write. A write wakes
// the other process, which costs more than all the rest of sending a frame. With
// nobody ready it is Send.
func (w *Writer) Gather(t Type, stream uint32, payload ...[]byte) error {
	w.mu.Lock()
	if err := w.put(t, stream, payload); err != nil || w.writing {
		w.mu.Unlock()
		return err
	}
	w.writing = true
	w.mu.Unlock()
	runtime.Gosched()
	w.mu.Lock()
	return w.drain()
}

// Flush writes what Hold put down.
func (w *Writer) Flush() error {
	w.mu.Lock()
	if w.writing || w.err != nil {
		err := w.err
		w.mu.Unlock()
		return err
	}
	return w.drain()
}

// Hold puts a frame down without writing it: it leaves with the next Send, Gather
// or Flush. Use it for a frame that another of the same goroutine follows at once.
func (w *Writer) Hold(t Type, stream uint32, payload ...[]byte) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.put(t, stream, payload)
}

// put adds a frame to what waits, when there is room. The caller holds the mutex.
func (w *Writer) put(t Type, stream uint32, payload [][]byte) error {
	for len(w.pending) >= maxPending && w.err == nil && w.writing {
		w.room.Wait()
	}
	if w.err != nil {
		return w.err
	}
	w.pending = AppendFrame(w.pending, t, stream, payload...)
	return nil
}

// drain writes until nothing is pending. It is called with the mutex held and
// returns without it.
func (w *Writer) drain() error {
	w.writing = true
	for len(w.pending) > 0 && w.err == nil {
		batch := w.pending
		w.pending = w.spare[:0]
		w.spare = nil
		w.mu.Unlock()
		_, err := w.dst.Write(batch)
		w.mu.Lock()
		if cap(batch) <= keepBuffer {
			w.spare = batch[:0]
		}
		if err != nil && w.err == nil {
			w.err = err
		}
		w.room.Broadcast()
	}
	w.writing = false
	err := w.err
	w.mu.Unlock()
	return err
}

// SendAll sends data in as many frames of type t as it takes, none when it is empty.
func (w *Writer) SendAll(t Type, stream uint32, data []byte) error {
	for len(data) > 0 {
		n := min(len(data), MaxPayload)
		if err := w.Send(t, stream, data[:n]); err != nil {
			return err
		}
		data = data[n:]
	}
	return nil
}

// Close makes all further sends fail, and wakes those that wait. It does not
// close the connection.
func (w *Writer) Close() {
	w.mu.Lock()
	if w.err == nil {
		w.err = ErrClosed
	}
	w.room.Broadcast()
	w.mu.Unlock()
}

package content

import (
	"crypto/cipher"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/casemate-dev/casemate/internal/state"
)

// Reader reads a part of one content. It belongs to one goroutine.
type Reader struct {
	file   *os.File
	aead   cipher.AEAD
	id     string
	size   int64 // of the content
	at     int64 // next byte
	end    int64 // the byte after the last one
	plain  []byte
	sealed []byte
}

// Read opens length bytes of a content from offset on. size is the length of the whole
// content. It fails with state.ErrCorrupt when the content is missing or its file is not as long as
// that; reading fails with it when a chunk is not what was written. Nothing of a chunk
// is handed out before it is known to be right.
func (d *Dir) Read(id string, dataKey []byte, size, offset, length int64) (*Reader, error) {
	if !ValidID(id) || size < 0 || size > MaxSize || offset < 0 || length < 0 || offset > size || length > size-offset {
		return nil, fmt.Errorf("reading content %.40q: bytes %d+%d of %d", id, offset, length, size)
	}
	aead, err := newCipher(dataKey, id)
	if err != nil {
		return nil, fmt.Errorf("reading content: %v", err)
	}
	f, err := os.Open(d.file(id))
	if os.IsNotExist(err) {
		return nil, fmt.Errorf("reading content %s: it is missing: %w", id, state.ErrCorrupt)
	}
	if err != nil {
		return nil, fmt.Errorf("reading content %s: %v", id, err)
	}
	info, err := f.Stat()
	if err != nil || info.Size() != sealedSize(size) {
		_ = f.Close() // only read
		return nil, fmt.Errorf("reading content %s: its file has another length: %w", id, state.ErrCorrupt)
	}
	return &Reader{file: f, aead: aead, id: id, size: size, at: offset, end: offset + length}, nil
}

// chunks is how many a content has.
func chunks(size int64) int64 { return max(1, (size+chunk-1)/chunk) }

func sealedSize(size int64) int64 { return size + overhead*chunks(size) }

// Read gives the next bytes.
func (r *Reader) Read(p []byte) (int, error) {
	if len(r.plain) == 0 {
		if r.at >= r.end {
			if r.size == 0 && r.sealed == nil { // the empty chunk says that it is empty
				return 0, r.fill()
			}
			return 0, io.EOF
		}
		if err := r.fill(); err != nil {
			return 0, err
		}
	}
	n := copy(p, r.plain)
	r.plain = r.plain[n:]
	r.at += int64(n)
	return n, nil
}

// fill opens the chunk that holds the next byte.
func (r *Reader) fill() error {
	number := r.at / chunk
	last := number == chunks(r.size)-1
	length := int64(chunk)
	if last {
		length = r.size - number*chunk
	}
	if r.sealed == nil {
		r.sealed = make([]byte, chunk+overhead)
	}
	raw := r.sealed[:length+overhead]
	if _, err := r.file.ReadAt(raw, number*(chunk+overhead)); err != nil {
		if errors.Is(err, io.EOF) {
			return fmt.Errorf("reading content %s: chunk %d is cut off: %w", r.id, number, state.ErrCorrupt)
		}
		return fmt.Errorf("reading content %s: %v", r.id, err)
	}
	n := nonce(uint32(number), last)
	plain, err := r.aead.Open(raw[:0], n[:], raw, nil)
	if err != nil {
		return fmt.Errorf("reading content %s: chunk %d: %w", r.id, number, state.ErrCorrupt)
	}
	r.plain = plain[r.at-number*chunk : min(length, r.end-number*chunk)]
	if r.size == 0 {
		return io.EOF
	}
	return nil
}

// Close ends the reading.
func (r *Reader) Close() error { return r.file.Close() }

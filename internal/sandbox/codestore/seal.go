package codestore

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"runtime"
	"sync"
	"sync/atomic"
)

// A file is the magic, a salt, and the code in pieces of pieceSize bytes, the last of
// which may be shorter, each under AES-256-GCM with a key of the file's own: it follows
// from the store's key, the salt and the file's name. A piece's nonce is its number and
// whether it is the last, so that none can be moved, left out or taken from another file
// (STREAM, see Hoang and others, "Online Authenticated-Encryption", 2015).
//
// Pieces can be opened at the same time, each while it is in the processor's cache.
const (
	magic      = "casemate-code-3\n"
	saltSize   = 32
	headerSize = len(magic) + saltSize
	pieceSize  = 128 << 10
	tagSize    = 16
	keyLabel   = "casemate/1 compiled code "
)

// pieces gives how many there are of so much code: one at least, which may be empty.
func pieces(size int64) int64 { return max(1, (size+pieceSize-1)/pieceSize) }

// sealedSize is the size of a file with so much code.
func sealedSize(size int64) int64 { return int64(headerSize) + size + pieces(size)*tagSize }

// sizeOf is how much code a file of that size has.
func sizeOf(sealed int64) (int64, bool) {
	body := sealed - int64(headerSize)
	n := (body + pieceSize + tagSize - 1) / (pieceSize + tagSize)
	size := body - n*tagSize
	return size, size >= 0 && sealedSize(size) == sealed
}

// fileKey gives the key of a file, ready for use.
func (s *Store) fileKey(name string, salt []byte) (cipher.AEAD, error) {
	key, err := hkdf.Key(sha256.New, s.key, salt, keyLabel+name, KeySize)
	if err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}

// nonceOf names a piece among those of its file.
func nonceOf(n int64, last bool) [12]byte {
	var nonce [12]byte
	binary.BigEndian.PutUint64(nonce[3:], uint64(n))
	if last {
		nonce[11] = 1
	}
	return nonce
}

// sealed gives the content of the file for a name.
func (s *Store) sealed(name string, code []byte) ([]byte, error) {
	b := make([]byte, 0, sealedSize(int64(len(code))))
	b = append(b, magic...)
	b = b[:headerSize]
	_, _ = rand.Read(b[len(magic):]) // it never fails
	key, err := s.fileKey(name, b[len(magic):])
	if err != nil {
		return nil, err
	}
	for n, count := int64(0), pieces(int64(len(code))); n < count; n++ {
		piece := code[:min(len(code), pieceSize)]
		code = code[len(piece):]
		nonce := nonceOf(n, n == count-1)
		b = key.Seal(b, nonce[:], piece, []byte(magic))
	}
	return b, nil
}

// writeError is a failure of whoever takes the code, not of the file.
type writeError struct{ cause error }

// Error implements error.
func (e *writeError) Error() string { return e.cause.Error() }

// nowhere takes code that is only checked.
func nowhere(int64) (io.WriterAt, error) { return discarded{}, nil }

type discarded struct{}

// WriteAt implements io.WriterAt.
func (discarded) WriteAt(p []byte, _ int64) (int, error) { return len(p), nil }

// opening is a file of which pieces are opened, by several goroutines at once.
type opening struct {
	from  io.ReaderAt
	to    io.WriterAt
	key   cipher.AEAD
	size  int64 // of the code
	count int64 // of the pieces
	next  atomic.Int64
}

// unseal opens all pieces of a file of so many bytes. An error that matches errSeal
// means that it is not what sealed gave for that name.
func (s *Store) unseal(f io.ReaderAt, sealed int64, name string, room func(int64) (io.WriterAt, error)) error {
	size, ok := sizeOf(sealed)
	if !ok {
		return fmt.Errorf("it has %d bytes: %w", sealed, errSeal)
	}
	var header [headerSize]byte
	if err := readAt(f, header[:], 0); err != nil {
		return err
	}
	if string(header[:len(magic)]) != magic {
		return errSeal
	}
	key, err := s.fileKey(name, header[len(magic):])
	if err != nil {
		return err
	}
	to, err := room(size)
	if err != nil {
		return &writeError{err}
	}
	o := &opening{from: f, to: to, key: key, size: size, count: pieces(size)}
	hands := min(o.count, int64(runtime.GOMAXPROCS(0)), maxHands)
	failures := make([]error, hands)
	var others sync.WaitGroup
	for i := int64(1); i < hands; i++ {
		others.Go(func() { failures[i] = o.work() })
	}
	failures[0] = o.work()
	others.Wait()
	return errors.Join(failures...)
}

// maxHands bounds how many goroutines open one file.
const maxHands = 4

// buffers hold one sealed piece each.
var buffers = sync.Pool{New: func() any { return new([pieceSize + tagSize]byte) }}

// work opens pieces until none is left or one fails.
func (o *opening) work() error {
	buffer := buffers.Get().(*[pieceSize + tagSize]byte)
	defer buffers.Put(buffer)
	for {
		n := o.next.Add(1) - 1
		if n >= o.count {
			return nil
		}
		if err := o.piece(n, buffer[:]); err != nil {
			o.next.Store(o.count)
			return err
		}
	}
}

// piece opens one, which is handed on only when its seal holds.
func (o *opening) piece(n int64, b []byte) error {
	at := n * pieceSize
	b = b[:min(o.size-at, pieceSize)+tagSize]
	if err := readAt(o.from, b, int64(headerSize)+n*(pieceSize+tagSize)); err != nil {
		return err
	}
	nonce := nonceOf(n, n == o.count-1)
	code, err := o.key.Open(b[:0], nonce[:], b, []byte(magic))
	if err != nil {
		return errSeal
	}
	if len(code) == 0 {
		return nil
	}
	if _, err := o.to.WriteAt(code, at); err != nil {
		return &writeError{err}
	}
	return nil
}

// readAt fills b from a file that somebody may have cut.
func readAt(f io.ReaderAt, b []byte, at int64) error {
	n, err := f.ReadAt(b, at)
	if n == len(b) {
		return nil
	}
	if errors.Is(err, io.EOF) {
		return fmt.Errorf("it became shorter: %w", errSeal)
	}
	return err
}

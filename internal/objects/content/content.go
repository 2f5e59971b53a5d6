// Package content keeps the bytes of objects: encrypted files under names drawn at
// random, each there whole or not at all.
//
// Only internal/objects imports it. A file is written once and never changed; that makes
// every method safe for concurrent use. What Commit has returned is on disk. Who holds a
// Reader may read on after Remove.
//
// Form of a file: the content in chunks of 64 KiB, each sealed by AES-256-GCM and so 16
// bytes longer; the last one may be short, and only an empty content has an empty chunk.
// The key is that of the file alone, HKDF-SHA256(data key, info "casemate/1 object
// content " + name). The nonce is seven zero bytes, the chunk's number as 32 bits
// big-endian, and 1 for the last chunk or else 0. This is the STREAM construction (Hoang,
// Reyhanitabar, Rogaway, Vizár: "Online Authenticated-Encryption and its Nonce-Reuse
// Misuse-Resistance", 2015): chunks cannot be changed, moved, left out or taken from
// another file, and the end cannot be cut off. Each chunk opens by itself, so a range
// costs no more than its own chunks.
package content

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"

	"github.com/casemate-dev/casemate/internal/state"
)

const (
	// KeySize is the length of a data key, in bytes.
	KeySize = 32
	// chunk is how much plain content one seal covers, in bytes.
	chunk    = 64 << 10
	overhead = 16
	idBytes  = 16
	shelves  = 256 // folders that files are spread over
	// MaxSize is the longest content, in bytes: numbers of chunks have 32 bits.
	MaxSize = int64(chunk) * (1 << 31)

	keyLabel = "casemate/1 object content "
	unborn   = "new" // the folder of files under way
)

// Dir is a folder of contents.
type Dir struct{ path string }

// Open opens a folder, and makes it when it is absent. Files that were under way when an
// earlier process ended are removed. One process at a time may have it open.
func Open(path string) (*Dir, error) {
	d := &Dir{path}
	if err := os.RemoveAll(filepath.Join(path, unborn)); err != nil {
		return nil, fmt.Errorf("opening the contents: %v", err)
	}
	if err := os.MkdirAll(filepath.Join(path, unborn), 0o700); err != nil {
		return nil, fmt.Errorf("opening the contents: %v", err)
	}
	for i := range shelves {
		if err := os.Mkdir(filepath.Join(path, hex.EncodeToString([]byte{byte(i)})), 0o700); err != nil && !errors.Is(err, os.ErrExist) {
			return nil, fmt.Errorf("opening the contents: %v", err)
		}
	}
	if err := syncFolder(path); err != nil {
		return nil, fmt.Errorf("opening the contents: %v", err)
	}
	return d, nil
}

// ValidID reports whether id has the form of a content's name.
func ValidID(id string) bool {
	raw, err := hex.DecodeString(id)
	return err == nil && len(raw) == idBytes && hex.EncodeToString(raw) == id
}

func (d *Dir) file(id string) string { return filepath.Join(d.path, id[:2], id) }

// Remove removes a content. It is no error when there is none.
func (d *Dir) Remove(id string) error {
	if !ValidID(id) {
		return fmt.Errorf("removing content: malformed name %.40q", id)
	}
	if err := os.Remove(d.file(id)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("removing content: %v", err)
	}
	return nil
}

// Each calls fn with the name of every content, in no order.
func (d *Dir) Each(fn func(id string) error) error {
	for i := range shelves {
		f, err := os.Open(filepath.Join(d.path, hex.EncodeToString([]byte{byte(i)})))
		if err != nil {
			return fmt.Errorf("listing contents: %v", err)
		}
		for {
			names, err := f.Readdirnames(1024)
			for _, n := range names {
				if !ValidID(n) {
					continue
				}
				if err := fn(n); err != nil {
					return errors.Join(err, f.Close())
				}
			}
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				return errors.Join(fmt.Errorf("listing contents: %v", err), f.Close())
			}
		}
		if err := f.Close(); err != nil {
			return fmt.Errorf("listing contents: %v", err)
		}
	}
	return nil
}

func newCipher(dataKey []byte, id string) (cipher.AEAD, error) {
	key, err := hkdf.Key(sha256.New, dataKey, nil, keyLabel+id, KeySize)
	if err != nil {
		return nil, err
	}
	defer clear(key)
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}

func nonce(number uint32, last bool) (n [12]byte) {
	binary.BigEndian.PutUint32(n[7:11], number)
	if last {
		n[11] = 1
	}
	return n
}

// Writer writes one content. It belongs to one goroutine. Abort must be called in the
// end, also after Commit, where it does nothing.
type Writer struct {
	dir    *Dir
	id     string
	file   *os.File
	aead   cipher.AEAD
	plain  []byte // not sealed yet; a full chunk waits for the next byte, it may be the last
	sealed []byte
	number uint32
	size   int64
	done   bool
}

// Create begins a content under a data key of KeySize bytes.
func (d *Dir) Create(dataKey []byte) (*Writer, error) {
	var raw [idBytes]byte
	if _, err := rand.Read(raw[:]); err != nil {
		return nil, fmt.Errorf("writing content: %v", err)
	}
	id := hex.EncodeToString(raw[:])
	aead, err := newCipher(dataKey, id)
	if err != nil {
		return nil, fmt.Errorf("writing content: %v", err)
	}
	f, err := os.OpenFile(filepath.Join(d.path, unborn, id), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, failure("writing content", err)
	}
	return &Writer{dir: d, id: id, file: f, aead: aead, plain: make([]byte, 0, chunk), sealed: make([]byte, 0, chunk+overhead)}, nil
}

// ID is the name that the content will have.
func (w *Writer) ID() string { return w.id }

// Size is how much was written, in bytes.
func (w *Writer) Size() int64 { return w.size }

// Write takes the next bytes. It fails with state.ErrFull when the disk is.
func (w *Writer) Write(p []byte) (int, error) {
	n := len(p)
	if w.size+int64(n) > MaxSize {
		return 0, fmt.Errorf("writing content: more than %d bytes", MaxSize)
	}
	for len(p) > 0 {
		if len(w.plain) == chunk {
			if err := w.flush(false); err != nil {
				return 0, err
			}
		}
		take := min(len(p), chunk-len(w.plain))
		w.plain = append(w.plain, p[:take]...)
		p = p[take:]
	}
	w.size += int64(n)
	return n, nil
}

func (w *Writer) flush(last bool) error {
	n := nonce(w.number, last)
	w.sealed = w.aead.Seal(w.sealed[:0], n[:], w.plain, nil)
	w.plain = w.plain[:0]
	w.number++
	if _, err := w.file.Write(w.sealed); err != nil {
		return failure("writing content", err)
	}
	return nil
}

// Commit ends the content. When it returns nil, the content is on disk under its name.
func (w *Writer) Commit() error {
	if err := w.flush(true); err != nil {
		return err
	}
	if err := w.file.Sync(); err != nil {
		return failure("writing content", err)
	}
	if err := w.file.Close(); err != nil {
		return failure("writing content", err)
	}
	final := w.dir.file(w.id)
	if err := os.Rename(w.file.Name(), final); err != nil {
		return failure("writing content", err)
	}
	w.done = true
	if err := syncFolder(filepath.Dir(final)); err != nil {
		return failure("writing content", errors.Join(err, os.Remove(final)))
	}
	return nil
}

// Abort drops a content that was not committed.
func (w *Writer) Abort() {
	if w.done {
		return
	}
	w.done = true
	_ = w.file.Close()           // it may be closed, and is of no use any more
	_ = os.Remove(w.file.Name()) // Open removes it otherwise
}

func failure(doing string, err error) error {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return fmt.Errorf("%s: %v: %w", doing, err, state.ErrFull)
	}
	return fmt.Errorf("%s: %v", doing, err)
}

func syncFolder(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

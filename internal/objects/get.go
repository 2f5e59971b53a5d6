package objects

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/casemate-dev/casemate/internal/objects/content"
)

// Reader is a version of an object that is being read. Close must be called.
type Reader struct {
	Object
	store *Store
	b     *bucket
	v     version
	key   []byte
	parts []part
	end   bool
}

// Get opens a version of an object, "" for the current one. It fails with ErrNoBucket,
// ErrNoKey, ErrNoVersion or ErrMarker; Reader.Object tells of the marker then.
func (s *Store) Get(ctx context.Context, namespace, bucketName, key, versionID string) (*Reader, error) {
	b, err := s.bucket(namespace, bucketName)
	if err != nil {
		return nil, err
	}
	r := &Reader{store: s, b: b}
	if err := s.find(ctx, b, key, versionID, r); err != nil {
		return r, err
	}
	if r.key, err = s.wrap.open(wrapContext(b.namespace, b.name, key, r.v.ID), r.v.Key); err != nil {
		r.Close()
		return nil, err
	}
	if r.v.Parts > 0 {
		if r.parts, err = s.manifest(b.namespace, b.name, key, &r.v); err != nil {
			r.Close()
			return nil, err
		}
	}
	return r, nil
}

func (s *Store) find(ctx context.Context, b *bucket, key, versionID string, into *Reader) error {
	versioned := b.info().Versioning != "" // before the lock of the key, see Store
	lock := s.lock(b, key)                 // so that its files are not dropped before they are counted as read
	lock.Lock()
	defer lock.Unlock()
	rec, _, err := s.record(ctx, b, key)
	if err != nil {
		into.end = true
		return err
	}
	i, err := rec.find(versionID)
	if i >= 0 {
		into.Object = rec.Versions[i].object(key, versioned, i == 0)
	}
	if err != nil {
		into.end = true
		return err
	}
	into.v = rec.Versions[i]
	s.readers.begin(into.v.Content)
	return nil
}

// Range gives length bytes from offset on. Reading fails with state.ErrCorrupt before
// wrong bytes would be given. It may be called again.
func (r *Reader) Range(offset, length int64) (io.ReadCloser, error) {
	if r.v.Parts == 0 {
		return r.store.dir.Read(r.v.Content, r.key, r.v.Size, offset, length)
	}
	if offset < 0 || length < 0 || offset > r.v.Size || length > r.v.Size-offset {
		return nil, fmt.Errorf("reading object: bytes %d+%d of %d", offset, length, r.v.Size)
	}
	return &partsReader{dir: r.store.dir, key: r.key, parts: r.parts, skip: offset, left: length}, nil
}

// Part gives the place of a part, from 1 on. Of an object in one piece there is part 1.
func (r *Reader) Part(number int) (offset, length int64, ok bool) {
	if r.v.Parts == 0 {
		return 0, r.v.Size, number == 1
	}
	if number < 1 || number > len(r.parts) {
		return 0, 0, false
	}
	for _, p := range r.parts[:number-1] {
		offset += p.Size
	}
	return offset, r.parts[number-1].Size, true
}

// Close ends the reading.
func (r *Reader) Close() {
	if r.end {
		return
	}
	r.end = true
	if r.store.readers.end(r.v.Content) {
		r.store.removeFiles(r.b.namespace, r.b.name, r.Key, &r.v)
	}
	clear(r.key)
}

// partsReader reads through contents one behind the other.
type partsReader struct {
	dir   *content.Dir
	key   []byte
	parts []part
	skip  int64
	left  int64
	open  *content.Reader
}

func (r *partsReader) Read(p []byte) (int, error) {
	for {
		if r.open != nil {
			n, err := r.open.Read(p)
			r.left -= int64(n)
			if !errors.Is(err, io.EOF) {
				return n, err
			}
			err = r.open.Close()
			r.open = nil
			if n > 0 || err != nil {
				return n, err
			}
		}
		for len(r.parts) > 0 && r.skip >= r.parts[0].Size && r.skip > 0 {
			r.skip -= r.parts[0].Size
			r.parts = r.parts[1:]
		}
		if r.left <= 0 || len(r.parts) == 0 {
			return 0, io.EOF
		}
		first := r.parts[0]
		r.parts = r.parts[1:]
		var err error
		if r.open, err = r.dir.Read(first.Content, r.key, first.Size, r.skip, min(r.left, first.Size-r.skip)); err != nil {
			return 0, err
		}
		r.skip = 0
	}
}

func (r *partsReader) Close() error {
	if r.open == nil {
		return nil
	}
	return r.open.Close()
}

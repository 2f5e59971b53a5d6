package objects

import (
	"context"
	"crypto/md5" //nolint:gosec // S3's ETag is an MD5; nothing relies on it
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"time"
)

// Condition is what must hold of the current version. The zero value always holds.
type Condition struct {
	Absent bool   // there must be none
	ETag   string // it must have this one, without quotes; "*" for any
}

// check fails with ErrCondition, and with ErrNoKey when there is no object to compare with.
func (c Condition) check(r *objectRecord) error {
	there := len(r.Versions) > 0 && !r.Versions[0].Marker
	switch {
	case c.Absent && there:
		return ErrCondition
	case c.ETag == "":
		return nil
	case !there:
		return ErrNoKey
	case c.ETag != "*" && c.ETag != r.Versions[0].ETag:
		return ErrCondition
	}
	return nil
}

// Put is an object to be stored.
type Put struct {
	Namespace, Bucket, Key string
	Attributes
	// Body is read to its end; an error of it fails the whole. Nothing shows before.
	Body io.Reader
	Size int64 // of the body in bytes; -1 when that is not known
	// Checksums is asked after the end of the body; nil for none.
	Checksums func() map[string]string
	Condition Condition
	Operation string // OpPut or OpCopy
	By        string
}

// Object is what is known of a version of an object.
type Object struct {
	Key       string
	VersionID string // "null" for the one without
	Versioned bool   // the bucket has, or had, versions
	Current   bool
	Marker    bool // a delete marker
	Modified  time.Time
	ETag      string // without quotes
	Size      int64
	Parts     int // 0 unless it was uploaded in parts
	By        string
	Attributes
	Checksums    map[string]string // by algorithm in lower case (crc32, …), base64
	ChecksumType string            // FULL_OBJECT or COMPOSITE
}

func (v *version) object(key string, versioned, current bool) Object {
	return Object{
		Key: key, VersionID: v.versionID(), Versioned: versioned, Current: current, Marker: v.Marker,
		Modified: v.Modified, ETag: v.ETag, Size: v.Size, Parts: v.Parts, By: v.By,
		Attributes: v.Attributes, Checksums: v.Checksums, ChecksumType: v.ChecksumType,
	}
}

// Put stores an object. It fails with ErrNoBucket, ErrKey, ErrMeta, ErrTooLarge, ErrCondition,
// ErrNoKey (the condition names an ETag, and there is no object), ErrTooMany (versions of
// the key), state.ErrFull, a *NotifyError, or what the body fails with.
func (s *Store) Put(ctx context.Context, p *Put) (Object, error) {
	b, err := s.bucket(p.Namespace, p.Bucket)
	if err != nil {
		return Object{}, err
	}
	if err := errors.Join(CheckKey(p.Key), p.check()); err != nil {
		return Object{}, err
	}
	if rec, _, err := s.record(ctx, b, p.Key); err == nil {
		if err := p.Condition.check(rec); err != nil {
			return Object{}, err // before the body is sent, if that can be
		}
	}
	id, err := newID()
	if err != nil {
		return Object{}, err
	}
	key, wrapped, err := s.wrap.draw(wrapContext(b.namespace, b.name, p.Key, id))
	if err != nil {
		return Object{}, err
	}
	defer clear(key)
	w, err := s.write(b.namespace, key, p.Body, p.Size)
	if err != nil {
		return Object{}, err
	}
	v := version{
		ID: id, Operation: p.Operation, By: p.By, ETag: w.md5, Size: w.size,
		Attributes: p.Attributes.clone(), Key: wrapped, Content: w.id,
	}
	if p.Checksums != nil {
		if v.Checksums = p.Checksums(); len(v.Checksums) > 0 {
			v.ChecksumType = "FULL_OBJECT"
		}
	}
	return s.publish(ctx, b, p.Key, v, p.Condition, func() { s.drop(b.namespace, w.id, w.size) })
}

// publish makes v the current version of key. undo removes its files; it is called when
// the version has certainly not become known.
func (s *Store) publish(ctx context.Context, b *bucket, key string, v version, c Condition, undo func()) (Object, error) {
	var o Object
	undecided, err := s.change(ctx, b, key, func(r *objectRecord, rev uint64) ([]version, []Change, error) {
		if err := c.check(r); err != nil {
			return nil, nil, err
		}
		v.Modified = s.config.Clock().UTC().Truncate(time.Millisecond)
		v.After = r.upTo(rev)
		v.Null = b.rec.Versioning != "Enabled"
		dropped := r.push(v)
		o = v.object(key, b.rec.Versioning != "", true)
		return dropped, []Change{v.change()}, nil
	})
	if err != nil && !undecided {
		undo()
	}
	return o, err
}

// push puts v in front. If it is the one called null, an older one of that name goes.
func (r *objectRecord) push(v version) (dropped []version) {
	r.Newest = 0
	left := []version{v}
	for _, old := range r.Versions {
		if v.Null && old.Null {
			dropped = append(dropped, old)
			continue
		}
		left = append(left, old)
	}
	r.Versions = left
	return dropped
}

// written is a content that no record names yet.
type written struct {
	id   string
	size int64
	md5  string
}

// write stores bytes as a content, within the bounds.
func (s *Store) write(ns string, key []byte, body io.Reader, announced int64) (_ written, err error) {
	if announced > s.config.MaxObject {
		return written{}, ErrTooLarge
	}
	w, err := s.dir.Create(key)
	if err != nil {
		return written{}, err
	}
	defer w.Abort()
	var taken int64
	defer func() {
		if err != nil {
			_ = s.room.take(ns, -taken) // giving back does not fail
		}
	}()
	sum := md5.New() //nolint:gosec // as above
	buffer := make([]byte, 64<<10)
	for {
		n, readErr := body.Read(buffer)
		if n > 0 {
			if taken+int64(n) > s.config.MaxObject {
				return written{}, ErrTooLarge
			}
			if err := s.room.take(ns, int64(n)); err != nil {
				return written{}, err
			}
			taken += int64(n)
			sum.Write(buffer[:n])
			if _, err := w.Write(buffer[:n]); err != nil {
				return written{}, err
			}
		}
		if errors.Is(readErr, io.EOF) {
			break
		}
		if readErr != nil {
			return written{}, readErr
		}
	}
	if announced >= 0 && taken != announced {
		return written{}, fmt.Errorf("reading the body: %d bytes of %d: %w", taken, announced, io.ErrUnexpectedEOF)
	}
	if err := w.Commit(); err != nil {
		return written{}, err
	}
	return written{w.ID(), taken, hex.EncodeToString(sum.Sum(nil))}, nil
}

// drop removes a content that no record names.
func (s *Store) drop(ns, id string, size int64) {
	_ = s.room.take(ns, -size) // giving back does not fail
	if err := s.dir.Remove(id); err != nil {
		s.config.Log.Warn("file of an object that was not stored stays until the next start", "error", err)
	}
}

// SetTags replaces the tags of a version, "" for the current one. The object does not
// change by it, and nobody is notified.
func (s *Store) SetTags(ctx context.Context, namespace, bucketName, key, versionID string, tags map[string]string) (Object, error) {
	b, err := s.bucket(namespace, bucketName)
	if err != nil {
		return Object{}, err
	}
	if err := checkTags(tags); err != nil {
		return Object{}, err
	}
	var o Object
	_, err = s.change(ctx, b, key, func(r *objectRecord, rev uint64) ([]version, []Change, error) {
		i, err := r.find(versionID)
		if err != nil {
			return nil, nil, err
		}
		r.unchanged(rev)
		r.Versions[i].Tags = tags
		o = r.Versions[i].object(key, b.rec.Versioning != "", i == 0)
		return nil, nil, nil
	})
	return o, err
}

// find gives the place of a version that is an object. It fails with ErrNoKey,
// ErrNoVersion or ErrMarker.
func (r *objectRecord) find(versionID string) (int, error) {
	for i := range r.Versions {
		v := &r.Versions[i]
		switch {
		case versionID == "" && v.Marker:
			return i, ErrNoKey
		case versionID == "":
			return i, nil
		case v.versionID() == versionID && v.Marker:
			return i, ErrMarker
		case v.versionID() == versionID:
			return i, nil
		}
	}
	if versionID == "" {
		return -1, ErrNoKey
	}
	return -1, ErrNoVersion
}

// Deleted is what a deletion did.
type Deleted struct {
	Versioned bool
	VersionID string // of the version that was removed, or of the marker that was made
	Marker    bool   // a marker was made, or the version removed was one
}

// Delete removes a version, or, with versionID "", the object: in a bucket with versions
// that puts a delete marker in front. It is no error when there is none.
func (s *Store) Delete(ctx context.Context, namespace, bucketName, key, versionID string, c Condition, by string) (Deleted, error) {
	b, err := s.bucket(namespace, bucketName)
	if err != nil {
		return Deleted{}, err
	}
	if err := CheckKey(key); err != nil {
		return Deleted{}, err
	}
	id, err := newID()
	if err != nil {
		return Deleted{}, err
	}
	var d Deleted
	_, err = s.change(ctx, b, key, func(r *objectRecord, rev uint64) ([]version, []Change, error) {
		if c.check(r) != nil {
			return nil, nil, ErrCondition
		}
		now := s.config.Clock().UTC().Truncate(time.Millisecond)
		d.Versioned = b.rec.Versioning != ""
		if d.Versioned && versionID == "" {
			v := version{
				ID: id, Marker: true, Null: b.rec.Versioning != "Enabled", After: r.upTo(rev),
				Operation: OpDeleteMarker, Modified: now, By: by,
			}
			d.Marker, d.VersionID = true, v.versionID()
			return r.push(v), []Change{v.change()}, nil
		}
		for i := range r.Versions {
			v := r.Versions[i]
			if v.versionID() != versionID && (versionID != "" || !v.Null) {
				continue
			}
			r.unchanged(rev)
			if i > 0 {
				r.Versions[i-1].After = v.After
			} else {
				r.Newest = v.After
			}
			r.Versions = append(r.Versions[:i:i], r.Versions[i+1:]...)
			m := removal{ID: id, After: rev, Time: now, By: by}
			if !v.Null {
				m.VersionID = v.ID
			}
			r.Removals = append([]removal{m}, r.Removals...)
			d.VersionID, d.Marker = v.versionID(), v.Marker
			return []version{v}, []Change{m.change()}, nil
		}
		d.VersionID = versionID
		return nil, nil, nil
	})
	return d, err
}

package objects

import (
	"bytes"
	"cmp"
	"context"
	"crypto/md5" //nolint:gosec // S3's ETag is an MD5; nothing relies on it
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/casemate-dev/casemate/internal/state"
)

// uploadRecord is an upload in parts that is under way. Its id becomes that of the
// version, so that whether it was completed can be seen at the object.
type uploadRecord struct {
	Form    int       `json:"v"`
	ID      string    `json:"id"`
	Key     string    `json:"key"`
	Started time.Time `json:"started"`
	By      string    `json:"by,omitempty"`
	Attributes
	Algorithm    string `json:"algorithm,omitempty"`
	ChecksumType string `json:"checksumType,omitempty"`
	DataKey      []byte `json:"dataKey"` // wrapped; all parts are under it
}

// partRecord is a part that was uploaded.
type partRecord struct {
	Form int `json:"v"`
	part
	Modified  time.Time         `json:"modified"`
	Checksums map[string]string `json:"checksums,omitempty"`
}

// part is an entry of the list of parts of an object.
type part struct {
	Number  int    `json:"n"`
	Content string `json:"c"`
	Size    int64  `json:"s"`
	ETag    string `json:"e"`
}

// Upload is an upload in parts that is under way.
type Upload struct {
	ID      string
	Key     string
	Started time.Time
	By      string
	// Algorithm is how the checksums of the parts are computed: "", crc32, crc32c,
	// crc64nvme, sha1 or sha256.
	Algorithm    string
	ChecksumType string // FULL_OBJECT or COMPOSITE
}

// Part is a part of an upload.
type Part struct {
	Number    int
	Size      int64
	ETag      string
	Modified  time.Time
	Checksums map[string]string
}

// BeginUpload begins an upload in parts. Of u, Key, By, Algorithm and ChecksumType are
// taken. It fails as Put does.
func (s *Store) BeginUpload(ctx context.Context, namespace, bucketName string, u Upload, a Attributes) (Upload, error) {
	b, err := s.bucket(namespace, bucketName)
	if err != nil {
		return Upload{}, err
	}
	if err := errors.Join(CheckKey(u.Key), a.check()); err != nil {
		return Upload{}, err
	}
	if u.ID, err = newID(); err != nil {
		return Upload{}, err
	}
	u.Started = s.config.Clock().UTC().Truncate(time.Millisecond)
	key, wrapped, err := s.wrap.draw(wrapContext(b.namespace, b.name, u.Key, u.ID))
	if err != nil {
		return Upload{}, err
	}
	clear(key)
	value, err := encode(&uploadRecord{
		recordForm, u.ID, u.Key, u.Started, u.By, a, u.Algorithm, u.ChecksumType, wrapped,
	})
	if err != nil {
		return Upload{}, err
	}
	b.life.RLock()
	defer b.life.RUnlock()
	if b.dead {
		return Upload{}, ErrNoBucket
	}
	b.mu.Lock()
	if len(b.uploads) >= maxUploads {
		b.mu.Unlock()
		return Upload{}, fmt.Errorf("uploads under way: %w", ErrTooMany)
	}
	b.uploads[u.ID] = 0
	b.mu.Unlock()
	if _, err := s.kv.Create(ctx, uploadName(namespace, bucketName, u.ID), value); err != nil {
		b.mu.Lock()
		delete(b.uploads, u.ID)
		b.mu.Unlock()
		return Upload{}, err
	}
	return u, nil
}

func (s *Store) uploadLock(id string) *sync.Mutex {
	return &s.upload[maphash.String(s.seed, id)%uint64(len(s.upload))]
}

// uploading finds an upload under way, or fails with ErrNoUpload. The caller holds its
// lock, or checks again once it does.
func (s *Store) uploading(ctx context.Context, b *bucket, key, id string) (*uploadRecord, uint64, error) {
	b.mu.Lock()
	_, known := b.uploads[id]
	b.mu.Unlock()
	if !known {
		return nil, 0, ErrNoUpload
	}
	e, err := s.kv.Get(ctx, uploadName(b.namespace, b.name, id))
	if errors.Is(err, state.ErrNotFound) {
		return nil, 0, ErrNoUpload
	}
	if err != nil {
		return nil, 0, err
	}
	u, err := decode(e, func(u *uploadRecord) int { return u.Form })
	if err != nil {
		return nil, 0, err
	}
	if u.Key != key || u.ID != id {
		return nil, 0, ErrNoUpload
	}
	// It may have been completed by a call that did not learn so; its parts are the
	// object's then.
	if _, done, err := s.completed(ctx, b, key, id); err != nil || done {
		return nil, 0, cmp.Or(err, ErrNoUpload)
	}
	return u, e.Revision, nil
}

// completed finds the object that an upload became.
func (s *Store) completed(ctx context.Context, b *bucket, key, id string) (Object, bool, error) {
	rec, _, err := s.record(ctx, b, key)
	if err != nil {
		return Object{}, false, err
	}
	for i := range rec.Versions {
		if rec.Versions[i].ID == id {
			return rec.Versions[i].object(key, b.info().Versioning != "", i == 0), true, nil
		}
	}
	return Object{}, false, nil
}

// PutPart stores a part, number 1 to MaxParts; one of that number before is replaced. Of p, Namespace,
// Bucket, Key, Body, Size and Checksums are taken. It fails with ErrNoUpload, ErrPart or as Put does.
func (s *Store) PutPart(ctx context.Context, p *Put, uploadID string, number int) (Part, error) {
	b, err := s.bucket(p.Namespace, p.Bucket)
	if err != nil {
		return Part{}, err
	}
	if number < 1 || number > MaxParts {
		return Part{}, fmt.Errorf("part %d: %w", number, ErrPart)
	}
	u, _, err := s.uploading(ctx, b, p.Key, uploadID)
	if err != nil {
		return Part{}, err
	}
	key, err := s.wrap.open(wrapContext(b.namespace, b.name, p.Key, uploadID), u.DataKey)
	if err != nil {
		return Part{}, err
	}
	defer clear(key)
	w, err := s.write(b.namespace, key, p.Body, p.Size)
	if err != nil {
		return Part{}, err
	}
	rec := partRecord{
		Form: recordForm, part: part{number, w.id, w.size, w.md5},
		Modified: s.config.Clock().UTC().Truncate(time.Millisecond),
	}
	if p.Checksums != nil {
		rec.Checksums = p.Checksums()
	}
	undecided, err := s.keepPart(ctx, b, uploadID, p.Key, &rec)
	if err != nil {
		if !undecided {
			s.drop(b.namespace, w.id, w.size)
		}
		return Part{}, err
	}
	return Part{number, w.size, w.md5, rec.Modified, rec.Checksums}, nil
}

func (s *Store) keepPart(ctx context.Context, b *bucket, id, key string, rec *partRecord) (undecided bool, err error) {
	lock := s.uploadLock(id)
	lock.Lock()
	defer lock.Unlock()
	if _, _, err := s.uploading(ctx, b, key, id); err != nil {
		return false, err
	}
	value, err := encode(rec)
	if err != nil {
		return false, err
	}
	name := partName(b.namespace, b.name, id, rec.Number)
	e, err := s.kv.Get(ctx, name)
	switch {
	case errors.Is(err, state.ErrNotFound):
		_, err = s.kv.Create(ctx, name, value)
	case err == nil:
		var old *partRecord
		if old, err = decode(e, func(p *partRecord) int { return p.Form }); err != nil {
			return false, err
		}
		if _, err = s.kv.Update(ctx, name, value, e.Revision); err == nil {
			s.drop(b.namespace, old.Content, old.Size)
		}
	default:
		return false, err
	}
	return err != nil && !errors.Is(err, state.ErrConflict) && !errors.Is(err, state.ErrFull), err
}

// parts reads the parts of an upload, by number.
func (s *Store) parts(ctx context.Context, b *bucket, id string) ([]partRecord, []state.Entry, error) {
	entries, err := s.kv.List(ctx, "p."+b.namespace+"."+b.name+"."+id+".")
	if err != nil {
		return nil, nil, err
	}
	out := make([]partRecord, 0, len(entries))
	for _, e := range entries {
		p, err := decode(e, func(p *partRecord) int { return p.Form })
		if err != nil {
			return nil, nil, err
		}
		out = append(out, *p)
	}
	slices.SortFunc(out, func(x, y partRecord) int { return cmp.Compare(x.Number, y.Number) })
	return out, entries, nil
}

// Parts lists the parts of an upload, by number. It fails with ErrNoUpload.
func (s *Store) Parts(ctx context.Context, namespace, bucketName, key, id string) (Upload, []Part, error) {
	b, err := s.bucket(namespace, bucketName)
	if err != nil {
		return Upload{}, nil, err
	}
	u, _, err := s.uploading(ctx, b, key, id)
	if err != nil {
		return Upload{}, nil, err
	}
	recs, _, err := s.parts(ctx, b, id)
	if err != nil {
		return Upload{}, nil, err
	}
	out := make([]Part, 0, len(recs))
	for _, p := range recs {
		out = append(out, Part{p.Number, p.Size, p.ETag, p.Modified, p.Checksums})
	}
	return u.upload(), out, nil
}

func (u *uploadRecord) upload() Upload {
	return Upload{u.ID, u.Key, u.Started, u.By, u.Algorithm, u.ChecksumType}
}

// Uploads lists the uploads under way, by key and id.
func (s *Store) Uploads(ctx context.Context, namespace, bucketName string) ([]Upload, error) {
	if _, err := s.bucket(namespace, bucketName); err != nil {
		return nil, err
	}
	entries, err := s.kv.List(ctx, "u."+namespace+"."+bucketName+".")
	if err != nil {
		return nil, err
	}
	out := make([]Upload, 0, len(entries))
	for _, e := range entries {
		u, err := decode(e, func(u *uploadRecord) int { return u.Form })
		if err != nil {
			return nil, err
		}
		out = append(out, u.upload())
	}
	slices.SortFunc(out, func(x, y Upload) int { return cmp.Or(cmp.Compare(x.Key, y.Key), cmp.Compare(x.ID, y.ID)) })
	return out, nil
}

// Complete is how an upload is to end.
type Complete struct {
	Namespace, Bucket, Key string
	UploadID               string
	Parts                  []Part // numbers, ETags and, if the client gave them, checksums
	Condition              Condition
	By                     string
	// Checksum gets the parts as they are stored, and gives the checksum of the whole; nil for none.
	Checksum func(u Upload, parts []Part) (checksums map[string]string, kind string, err error)
}

// CompleteUpload makes the object of its parts. Done again, it succeeds again. It fails
// with ErrNoUpload, ErrPart, ErrPartOrder, ErrPartSmall, or as Put does.
func (s *Store) CompleteUpload(ctx context.Context, c *Complete) (Object, error) {
	b, err := s.bucket(c.Namespace, c.Bucket)
	if err != nil {
		return Object{}, err
	}
	lock := s.uploadLock(c.UploadID)
	lock.Lock()
	defer lock.Unlock()
	u, rev, err := s.uploading(ctx, b, c.Key, c.UploadID)
	if errors.Is(err, ErrNoUpload) {
		if o, done, lookErr := s.completed(ctx, b, c.Key, c.UploadID); lookErr == nil && done {
			return o, nil
		}
	}
	if err != nil {
		return Object{}, err
	}
	have, entries, err := s.parts(ctx, b, c.UploadID)
	if err != nil {
		return Object{}, err
	}
	list, v, err := s.assemble(u, have, c)
	if err != nil {
		return Object{}, err
	}
	key, err := s.wrap.open(wrapContext(b.namespace, b.name, c.Key, u.ID), u.DataKey)
	if err != nil {
		return Object{}, err
	}
	defer clear(key)
	raw, err := json.Marshal(list)
	if err != nil {
		return Object{}, err
	}
	w, err := s.dir.Create(key)
	if err != nil {
		return Object{}, err
	}
	defer w.Abort()
	if _, err := w.Write(raw); err != nil {
		return Object{}, err
	}
	if err := w.Commit(); err != nil {
		return Object{}, err
	}
	v.Content, v.Manifest = w.ID(), w.Size()
	o, err := s.publish(ctx, b, c.Key, v, c.Condition, func() { s.drop(b.namespace, w.ID(), 0) })
	if err != nil {
		return Object{}, err
	}
	s.clean(ctx, b, u.ID, rev, entries, have, list)
	return o, nil
}

// assemble checks a list of parts against what was uploaded.
func (s *Store) assemble(u *uploadRecord, have []partRecord, c *Complete) ([]part, version, error) {
	if len(c.Parts) == 0 || len(c.Parts) > MaxParts {
		return nil, version{}, ErrPart
	}
	v := version{
		ID: u.ID, Operation: OpComplete, By: c.By, Attributes: u.Attributes, Key: u.DataKey, Parts: len(c.Parts),
	}
	list := make([]part, 0, len(c.Parts))
	stored := make([]Part, 0, len(c.Parts))
	sums := md5.New() //nolint:gosec // as above
	for i, p := range c.Parts {
		if i > 0 && p.Number <= c.Parts[i-1].Number {
			return nil, version{}, ErrPartOrder
		}
		at, found := slices.BinarySearchFunc(have, p.Number, func(r partRecord, n int) int { return cmp.Compare(r.Number, n) })
		if !found || have[at].ETag != p.ETag {
			return nil, version{}, fmt.Errorf("part %d: %w", p.Number, ErrPart)
		}
		h := have[at]
		for k, sum := range p.Checksums {
			if stored, ok := h.Checksums[k]; ok && stored != sum {
				return nil, version{}, fmt.Errorf("part %d: its checksum is another one: %w", p.Number, ErrPart)
			}
		}
		if h.Size < MinPart && i < len(c.Parts)-1 {
			return nil, version{}, fmt.Errorf("part %d: %w", p.Number, ErrPartSmall)
		}
		if v.Size += h.Size; v.Size > s.config.MaxObject {
			return nil, version{}, ErrTooLarge
		}
		raw, err := hex.DecodeString(h.ETag)
		if err != nil {
			return nil, version{}, fmt.Errorf("part %d: %w", p.Number, state.ErrCorrupt)
		}
		sums.Write(raw)
		list = append(list, h.part)
		stored = append(stored, Part{h.Number, h.Size, h.ETag, h.Modified, h.Checksums})
	}
	v.ETag = hex.EncodeToString(sums.Sum(nil)) + "-" + strconv.Itoa(len(list))
	if c.Checksum != nil {
		var err error
		if v.Checksums, v.ChecksumType, err = c.Checksum(u.upload(), stored); err != nil {
			return nil, version{}, err
		}
	}
	return list, v, nil
}

// clean removes what an upload leaves besides what is in list. What fails here, the next
// Open does.
func (s *Store) clean(ctx context.Context, b *bucket, id string, rev uint64, entries []state.Entry, have []partRecord, list []part) {
	ctx = context.WithoutCancel(ctx)
	used := make(map[string]bool, len(list))
	for _, p := range list {
		used[p.Content] = true
	}
	var failed error
	for _, e := range entries {
		if err := s.kv.Delete(ctx, e.Key, e.Revision); err != nil && !errors.Is(err, state.ErrNotFound) {
			failed = err
		}
	}
	for i := range have {
		if !used[have[i].Content] {
			s.drop(b.namespace, have[i].Content, have[i].Size)
		}
	}
	// Last, so that parts never outlive their upload.
	if failed == nil {
		if err := s.kv.Delete(ctx, uploadName(b.namespace, b.name, id), rev); err != nil && !errors.Is(err, state.ErrNotFound) {
			failed = err
		}
	}
	if failed != nil {
		s.config.Log.Warn("records of an upload that has ended stay until the next start", "error", failed)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.uploads, id)
}

// AbortUpload ends an upload and removes its parts. It fails with ErrNoUpload.
func (s *Store) AbortUpload(ctx context.Context, namespace, bucketName, key, id string) error {
	b, err := s.bucket(namespace, bucketName)
	if err != nil {
		return err
	}
	lock := s.uploadLock(id)
	lock.Lock()
	defer lock.Unlock()
	_, rev, err := s.uploading(ctx, b, key, id)
	if err != nil {
		return err
	}
	have, entries, err := s.parts(ctx, b, id)
	if err != nil {
		return err
	}
	s.clean(ctx, b, id, rev, entries, have, nil)
	return nil
}

// manifest reads the list of parts of a version.
func (s *Store) manifest(ns, bucket, key string, v *version) ([]part, error) {
	dataKey, err := s.wrap.open(wrapContext(ns, bucket, key, v.ID), v.Key)
	if err != nil {
		return nil, err
	}
	defer clear(dataKey)
	r, err := s.dir.Read(v.Content, dataKey, v.Manifest, 0, v.Manifest)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	raw, err := io.ReadAll(r)
	if err != nil {
		return nil, err
	}
	var list []part
	if err := json.NewDecoder(bytes.NewReader(raw)).Decode(&list); err != nil || len(list) != v.Parts {
		return nil, fmt.Errorf("reading the list of parts: %w", state.ErrCorrupt)
	}
	return list, nil
}

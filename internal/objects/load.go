package objects

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/casemate-dev/casemate/internal/state"
)

// load reads all records into the index, and removes files and records that a crash left
// behind.
func (s *Store) load(ctx context.Context) error {
	found, err := s.kv.List(ctx, "b.")
	if err != nil {
		return err
	}
	// Files are listed first: one that is made later must not seem superfluous.
	superfluous := map[string]bool{}
	if err := s.dir.Each(func(id string) error { superfluous[id] = true; return nil }); err != nil {
		return err
	}
	l := &loading{s: s, ctx: ctx, superfluous: superfluous}
	for _, e := range found {
		rec, err := decode(e, func(r *bucketRecord) int { return r.Form })
		if err != nil {
			return err
		}
		name := strings.Split(e.Key, ".")
		if len(name) != 3 || CheckBucket(name[1], name[2]) != nil {
			return fmt.Errorf("reading record %s: it is malformed: %w", e.Key, state.ErrCorrupt)
		}
		b := newBucket(name[1], name[2], *rec, e.Revision)
		if err := l.objects(b); err != nil {
			return err
		}
		if err := l.uploads(b); err != nil {
			return err
		}
		s.buckets.byID[[2]string{b.namespace, b.name}] = b
	}
	if l.unsure {
		return nil
	}
	for id := range superfluous {
		if err := s.dir.Remove(id); err != nil {
			return err
		}
	}
	if len(superfluous) > 0 {
		s.config.Log.Info("removed files that belong to no object", "files", len(superfluous))
	}
	return nil
}

type loading struct {
	s           *Store
	ctx         context.Context
	superfluous map[string]bool // by content
	unsure      bool            // none may be removed
	done        map[string]bool // ids of versions of the bucket that were uploads
}

// use counts a content as needed. It reports whether the content is there.
func (l *loading) use(id string) bool {
	there := l.superfluous[id]
	delete(l.superfluous, id)
	return there
}

func (l *loading) objects(b *bucket) error {
	entries, err := l.s.kv.List(l.ctx, "o."+b.namespace+"."+b.name+".")
	if err != nil {
		return err
	}
	l.done = map[string]bool{}
	for _, e := range entries {
		rec, err := decodeObject(e)
		if err != nil {
			return err
		}
		l.s.note(b, rec.Key, rec, e.Revision)
		for i := range rec.Versions {
			v := &rec.Versions[i]
			if v.Content == "" {
				continue
			}
			_ = l.s.room.take(b.namespace, v.Size) // what is there, is there
			l.version(b, rec.Key, v)
		}
	}
	return nil
}

func (l *loading) version(b *bucket, key string, v *version) {
	missing := !l.use(v.Content)
	if v.Parts > 0 {
		l.done[v.ID] = true
		parts, err := l.s.manifest(b.namespace, b.name, key, v)
		missing = missing || err != nil
		for _, p := range parts {
			missing = !l.use(p.Content) || missing
		}
		if err != nil {
			l.unsure = true // which files are its parts is not known
		}
	}
	if missing {
		l.s.config.Log.Error("an object cannot be read whole", "namespace", b.namespace, "bucket", b.name, "key", key, "version", v.ID)
	}
}

func (l *loading) uploads(b *bucket) error {
	uploads, err := l.s.kv.List(l.ctx, "u."+b.namespace+"."+b.name+".")
	if err != nil {
		return err
	}
	parts, err := l.s.kv.List(l.ctx, "p."+b.namespace+"."+b.name+".")
	if err != nil {
		return err
	}
	live := map[string]bool{}
	for _, e := range uploads {
		u, err := decode(e, func(u *uploadRecord) int { return u.Form })
		if err != nil {
			return err
		}
		if !l.done[u.ID] {
			live[u.ID] = true
			b.uploads[u.ID] = 0
		}
	}
	for _, e := range parts {
		p, err := decode(e, func(p *partRecord) int { return p.Form })
		if err != nil {
			return err
		}
		id := strings.Split(e.Key, ".")[3]
		// An upload that has ended, or a part that was removed but for its record.
		if !live[id] || !l.superfluous[p.Content] {
			if err := l.s.kv.Delete(l.ctx, e.Key, e.Revision); err != nil {
				return err
			}
			continue
		}
		l.use(p.Content)
		_ = l.s.room.take(b.namespace, p.Size) // what is there, is there
	}
	for _, e := range uploads {
		if live[e.Key[strings.LastIndexByte(e.Key, '.')+1:]] {
			continue
		}
		if err := l.s.kv.Delete(l.ctx, e.Key, e.Revision); err != nil {
			return err
		}
	}
	return nil
}

// Sweep forgets removals older than RemovalAge and ends uploads older than UploadAge.
// Call it about once an hour.
func (s *Store) Sweep(ctx context.Context) error {
	now := s.config.Clock()
	for _, b := range s.all() {
		uploads, err := s.Uploads(ctx, b.namespace, b.name)
		if err != nil && !errors.Is(err, ErrNoBucket) {
			return fmt.Errorf("sweeping bucket %s of %s: %w", b.name, b.namespace, err)
		}
		for _, u := range uploads {
			if now.Sub(u.Started) <= UploadAge {
				continue
			}
			if err := s.AbortUpload(ctx, b.namespace, b.name, u.Key, u.ID); err != nil && !errors.Is(err, ErrNoUpload) {
				return fmt.Errorf("sweeping bucket %s of %s: %w", b.name, b.namespace, err)
			}
		}
		if err := s.forget(ctx, b, now); err != nil {
			return fmt.Errorf("sweeping bucket %s of %s: %w", b.name, b.namespace, err)
		}
	}
	return nil
}

func (s *Store) forget(ctx context.Context, b *bucket, now time.Time) error {
	for next, more := "", true; more; {
		b.mu.Lock()
		items := b.index.from(next, MaxList)
		b.mu.Unlock()
		more = len(items) == MaxList
		for _, it := range items {
			next = it.key + "\x00"
			if !it.gone {
				continue // forgotten when there are more than removalsKept
			}
			_, err := s.change(ctx, b, it.key, func(r *objectRecord, rev uint64) ([]version, []Change, error) {
				r.unchanged(rev)
				for len(r.Removals) > 0 && now.Sub(r.Removals[len(r.Removals)-1].Time) > RemovalAge {
					r.Removals = r.Removals[:len(r.Removals)-1]
				}
				return nil, nil, nil
			})
			if err != nil && !errors.Is(err, ErrNoBucket) {
				return err
			}
		}
	}
	return nil
}

// Verify reads every byte of every object, and calls report for each that is not whole.
func (s *Store) Verify(ctx context.Context, report func(namespace, bucket, key, versionID string, err error)) error {
	for _, b := range s.all() {
		from := Position{}
		for more := true; more; {
			page, err := s.Versions(ctx, List{Namespace: b.namespace, Bucket: b.name, Limit: MaxList}, from)
			if err != nil {
				return fmt.Errorf("verifying bucket %s of %s: %w", b.name, b.namespace, err)
			}
			for i := range page.Objects {
				o := &page.Objects[i]
				if err := ctx.Err(); err != nil {
					return err
				}
				if o.Marker {
					continue
				}
				if err := s.verify(ctx, b, o); err != nil && !errors.Is(err, ErrNoKey) && !errors.Is(err, ErrNoVersion) {
					report(b.namespace, b.name, o.Key, o.VersionID, err)
				}
			}
			more, from = page.More, page.Next
		}
	}
	return nil
}

func (s *Store) verify(ctx context.Context, b *bucket, o *Object) error {
	r, err := s.Get(ctx, b.namespace, b.name, o.Key, o.VersionID)
	if err != nil {
		return err
	}
	defer r.Close()
	body, err := r.Range(0, r.Size)
	if err != nil {
		return err
	}
	defer body.Close()
	n, err := io.Copy(io.Discard, body)
	if err == nil && n != r.Size {
		err = fmt.Errorf("it has %d bytes, not %d: %w", n, r.Size, state.ErrCorrupt)
	}
	return err
}

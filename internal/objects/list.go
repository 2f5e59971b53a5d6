package objects

import (
	"context"
	"strings"
)

// List selects objects of a bucket.
type List struct {
	Namespace, Bucket string
	Prefix            string
	// Delimiter groups the keys that have it behind the prefix.
	Delimiter string
	Limit     int // 0 to MaxList entries
}

// Position is where a list goes on. Its zero value is the start.
type Position struct {
	Key       string // behind this key, and behind all that begin with it if it ends a group
	VersionID string // in a list of versions: behind this version of the key
	Group     bool
}

// Page is a part of a list.
type Page struct {
	Objects []Object
	Groups  []string // common prefixes
	More    bool
	Next    Position // the last entry; from there the list goes on
}

// Objects lists the current versions, by key in byte order. It is no snapshot: what
// changes meanwhile may show or not.
func (s *Store) Objects(ctx context.Context, l List, from Position) (Page, error) {
	return s.list(ctx, l, from, false)
}

// Versions lists all versions, by key, the newest first.
func (s *Store) Versions(ctx context.Context, l List, from Position) (Page, error) {
	return s.list(ctx, l, from, true)
}

func (s *Store) list(ctx context.Context, l List, from Position, versions bool) (Page, error) {
	b, err := s.bucket(l.Namespace, l.Bucket)
	if err != nil {
		return Page{}, err
	}
	p := &pager{l: l, versions: versions, versioned: b.info().Versioning != ""}
	next := max(l.Prefix, from.Key)
	switch {
	case from.Group:
		if next = after(from.Key); next == "" {
			return Page{}, nil
		}
	case from.VersionID != "":
		p.skip = from
	case from.Key != "" && next == from.Key:
		next += "\x00"
	}
	for {
		if l.Limit <= 0 {
			return Page{}, nil
		}
		b.mu.Lock()
		items := b.index.from(next, min(l.Limit+1, 128))
		b.mu.Unlock()
		if len(items) == 0 {
			return p.page, nil
		}
		for _, it := range items {
			next = it.key + "\x00"
			if !strings.HasPrefix(it.key, l.Prefix) {
				return p.page, nil
			}
			if it.rev != 0 && (it.gone || it.hidden && !versions) {
				continue
			}
			if group, ok := p.group(it.key); ok {
				if it.rev == 0 && !s.shows(ctx, b, it.key, versions) {
					continue
				}
				if !p.addGroup(group) {
					return p.page, nil
				}
				next = after(group)
				break // the rest of the group is left out
			}
			rec, _, err := s.record(ctx, b, it.key)
			if err != nil {
				return Page{}, err
			}
			if !p.addRecord(rec) {
				return p.page, nil
			}
		}
		if next == "" {
			return p.page, nil
		}
	}
}

func (s *Store) shows(ctx context.Context, b *bucket, key string, versions bool) bool {
	rec, _, err := s.record(ctx, b, key)
	return err == nil && len(rec.Versions) > 0 && (versions || !rec.Versions[0].Marker)
}

// pager fills a page.
type pager struct {
	l         List
	versions  bool
	versioned bool
	skip      Position
	page      Page
}

func (p *pager) full() bool {
	if len(p.page.Objects)+len(p.page.Groups) < p.l.Limit {
		return false
	}
	p.page.More = true
	return true
}

// group gives the common prefix that a key is listed under, if it is.
func (p *pager) group(key string) (string, bool) {
	if p.l.Delimiter == "" {
		return "", false
	}
	i := strings.Index(key[len(p.l.Prefix):], p.l.Delimiter)
	if i < 0 {
		return "", false
	}
	return key[:len(p.l.Prefix)+i+len(p.l.Delimiter)], true
}

func (p *pager) addGroup(group string) bool {
	if p.full() {
		return false
	}
	p.page.Groups = append(p.page.Groups, group)
	p.page.Next = Position{Key: group, Group: true}
	return true
}

func (p *pager) addRecord(rec *objectRecord) bool {
	skipping := p.skip.VersionID != "" && rec.Key == p.skip.Key
	for i := range rec.Versions {
		v := &rec.Versions[i]
		switch {
		case !p.versions && (i > 0 || v.Marker):
			return true
		case skipping:
			skipping = v.versionID() != p.skip.VersionID
			continue
		}
		if p.full() {
			return false
		}
		p.page.Objects = append(p.page.Objects, v.object(rec.Key, p.versioned, i == 0))
		p.page.Next = Position{Key: rec.Key}
		if p.versions {
			p.page.Next.VersionID = v.versionID()
		}
	}
	return true
}

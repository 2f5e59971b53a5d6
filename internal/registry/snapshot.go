package registry

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/casemate-dev/casemate/internal/function"
	"github.com/casemate-dev/casemate/internal/state"
)

// snapshot is everything that is deployed, at one moment. It is never changed
// once it is published.
type snapshot struct {
	functions map[function.Ref]*entry
	routes    map[string][]Route // by namespace
	dropped   map[string][]Fault // by namespace: routes that could not be served
}

// entry is one function in a snapshot.
type entry struct {
	ref      function.Ref
	revision uint64
	fault    error   // why the record is refused; then nothing below is set
	rec      *record // as stored
	versions map[function.Digest]*function.Version
	damaged  map[function.Digest]error // listed versions that are refused, and why
	byID     []*function.Version       // for finding one by a prefix
	aliases  map[string]*position
	live     *position
}

// position is an alias made ready for Resolve.
type position struct {
	name    string
	targets []target // largest share first
}

type target struct {
	id      function.Digest
	version *function.Version // nil when the stored version is refused
	upTo    int               // exclusive, of 100; the last one is 100
}

// Fault is a stored value that is refused, or a route that cannot be served.
type Fault struct {
	Key    string
	Ref    function.Ref
	Reason string
}

func newEntry(ref function.Ref, revision uint64, rec *record, versions map[function.Digest]*function.Version, damaged map[function.Digest]error) *entry {
	e := &entry{
		ref: ref, revision: revision, rec: rec, versions: versions, damaged: damaged,
		aliases: make(map[string]*position, len(rec.Aliases)),
	}
	for _, v := range versions {
		e.byID = append(e.byID, v)
	}
	slices.SortFunc(e.byID, func(a, b *function.Version) int { return strings.Compare(string(a.ID), string(b.ID)) })
	for _, a := range rec.Aliases {
		p := &position{name: a.Name}
		sum := 0
		for _, t := range a.Targets {
			sum += t.Percent
			p.targets = append(p.targets, target{t.Version, versions[t.Version], sum})
		}
		e.aliases[a.Name] = p
	}
	e.live = e.aliases[function.LiveAlias]
	return e
}

// primary is the version with the largest share of an alias; nil when there is
// no such alias or the version is refused.
func (e *entry) primary(alias string) *function.Version {
	if e == nil || e.aliases[alias] == nil {
		return nil
	}
	return e.aliases[alias].targets[0].version
}

// with returns a snapshot in which the functions given are replaced, or removed
// where the entry is nil.
func (s *snapshot) with(changed map[function.Ref]*entry) *snapshot {
	next := &snapshot{functions: maps.Clone(s.functions), routes: maps.Clone(s.routes), dropped: maps.Clone(s.dropped)}
	if next.functions == nil {
		next.functions, next.routes, next.dropped = map[function.Ref]*entry{}, map[string][]Route{}, map[string][]Fault{}
	}
	touched := map[string]bool{}
	for ref, e := range changed {
		touched[ref.Namespace] = true
		if e == nil {
			delete(next.functions, ref)
		} else {
			next.functions[ref] = e
		}
	}
	for ns := range touched {
		next.routes[ns], next.dropped[ns] = servable(next.liveRoutes(ns))
		if len(next.routes[ns]) == 0 {
			delete(next.routes, ns)
		}
		if len(next.dropped[ns]) == 0 {
			delete(next.dropped, ns)
		}
	}
	return next
}

// in lists the functions of a namespace by name.
func (s *snapshot) in(ns string) []*entry {
	var es []*entry
	for ref, e := range s.functions {
		if ref.Namespace == ns {
			es = append(es, e)
		}
	}
	slices.SortFunc(es, func(a, b *entry) int { return strings.Compare(a.ref.Name, b.ref.Name) })
	return es
}

// Faults lists the stored values that are refused and the routes that cannot be
// served, in order of key. An operator should see them.
func (r *Registry) Faults() []Fault {
	s := r.current.Load()
	var fs []Fault
	for ref, e := range s.functions {
		if e.fault != nil {
			fs = append(fs, Fault{functionKey(ref), ref, e.fault.Error()})
		}
		for id, err := range e.damaged {
			fs = append(fs, Fault{versionKey(ref, id), ref, err.Error()})
		}
	}
	for _, d := range s.dropped {
		fs = append(fs, d...)
	}
	slices.SortFunc(fs, func(a, b Fault) int {
		return strings.Compare(a.Key+"\x00"+a.Reason, b.Key+"\x00"+b.Reason)
	})
	return fs
}

// load reads every function and version in two listings.
func (r *Registry) load(ctx context.Context) error {
	records, err := r.store.List(ctx, functionPrefix)
	if err != nil {
		return fmt.Errorf("listing functions: %w", err)
	}
	// Versions are listed after the records that name them: a version is written
	// first, so whatever a record names is in the second listing.
	stored, err := r.store.List(ctx, versionPrefix)
	if err != nil {
		return fmt.Errorf("listing versions: %w", err)
	}
	byKey := make(map[string][]byte, len(stored))
	for _, e := range stored {
		byKey[e.Key] = e.Value
	}
	all := make(map[function.Ref]*entry, len(records))
	for _, se := range records {
		ref, ok := refOfKey(se.Key)
		if !ok || functionKey(ref) != se.Key {
			continue // not ours to judge: nothing can ask for it by this name
		}
		e, err := assemble(ref, se, nil, func(key string) ([]byte, error) {
			if b, ok := byKey[key]; ok {
				return b, nil
			}
			return nil, state.ErrNotFound
		})
		if err != nil {
			return err
		}
		all[ref] = e
	}
	r.publish(all)
	return nil
}

// assemble makes an entry of a stored record. Versions that known already holds
// are not read again: they were verified and cannot change. It fails only when
// reading fails; what is read and wrong becomes a fault of the entry.
func assemble(ref function.Ref, se state.Entry, known *entry, get func(key string) ([]byte, error)) (*entry, error) {
	rec, err := decodeRecord(se.Key, se.Value)
	if err != nil {
		return &entry{ref: ref, revision: se.Revision, fault: err}, nil
	}
	versions := make(map[function.Digest]*function.Version, len(rec.Versions))
	var damaged map[function.Digest]error
	refuse := func(id function.Digest, err error) {
		if damaged == nil {
			damaged = map[function.Digest]error{}
		}
		damaged[id] = err
	}
	for _, id := range rec.Versions {
		if known != nil && known.versions[id] != nil {
			versions[id] = known.versions[id]
			continue
		}
		key := versionKey(ref, id)
		b, err := get(key)
		if errors.Is(err, state.ErrNotFound) {
			refuse(id, errors.New("the version is listed but not stored"))
			continue
		}
		if errors.Is(err, state.ErrCorrupt) {
			refuse(id, err)
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("reading version %s of %s: %w", id.Short(), ref, err)
		}
		v, err := decodeVersion(key, b)
		if err != nil {
			refuse(id, err)
			continue
		}
		versions[id] = v
	}
	return newEntry(ref, se.Revision, rec, versions, damaged), nil
}

// read gets a function from the store, nil when there is none, without
// publishing it.
func (r *Registry) read(ctx context.Context, ref function.Ref) (*entry, error) {
	known := r.current.Load().functions[ref]
	se, err := r.store.Get(ctx, functionKey(ref))
	if errors.Is(err, state.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading the record of %s: %w", ref, err)
	}
	if known != nil && known.revision == se.Revision && len(known.damaged) == 0 {
		return known, nil
	}
	return assemble(ref, se, known, func(key string) ([]byte, error) {
		e, err := r.store.Get(ctx, key)
		return e.Value, err
	})
}

// refresh reads a function from the store and publishes it if it is not what the
// snapshot shows. The caller holds the right to mutate.
func (r *Registry) refresh(ctx context.Context, ref function.Ref) (*entry, error) {
	e, err := r.read(ctx, ref)
	if err != nil {
		return nil, err
	}
	known := r.current.Load().functions[ref]
	switch {
	case e == known:
	case e != nil && known != nil && e.revision == known.revision && len(e.damaged) == len(known.damaged):
	default:
		r.publish(map[function.Ref]*entry{ref: e})
	}
	return e, nil
}

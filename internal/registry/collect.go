package registry

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"github.com/casemate-dev/casemate/internal/function"
	"github.com/casemate-dev/casemate/internal/state"
)

// Delete removes a function with its aliases and versions. The record goes first:
// from then on the function is gone, and what a crash leaves behind is collected.
// A function whose record is damaged can be deleted too. Errors: not_found,
// conflict, and what the store answered.
func (r *Registry) Delete(ctx context.Context, ref function.Ref, by string) error {
	if err := r.lock(ctx); err != nil {
		return err
	}
	defer r.unlock()
	for attempt := 1; ; attempt++ {
		e, err := r.mutable(ctx, ref)
		if err != nil {
			return err
		}
		err = r.store.Delete(ctx, functionKey(ref), e.revision)
		if err != nil {
			err = r.settleDelete(ctx, ref, err)
		}
		if err == nil {
			break
		}
		if !errors.Is(err, state.ErrConflict) {
			return fmt.Errorf("deleting %s: %w", ref, err)
		}
		if attempt == attempts {
			return changed(ref).Because(err)
		}
	}
	r.publish(map[function.Ref]*entry{ref: nil})
	r.log.LogAttrs(ctx, slog.LevelInfo, "function deleted", slog.String("function", ref.String()), slog.String("by", by))
	if err := r.removeVersions(context.WithoutCancel(ctx), ref); err != nil {
		r.log.LogAttrs(ctx, slog.LevelWarn, "versions of a deleted function are left for collection",
			slog.String("function", ref.String()), slog.Any("error", err))
	}
	return nil
}

// settleDelete finds out whether a deletion that failed was made all the same.
func (r *Registry) settleDelete(ctx context.Context, ref function.Ref, cause error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), settleTimeout)
	defer cancel()
	_, err := r.store.Get(ctx, functionKey(ref))
	switch {
	case errors.Is(err, state.ErrNotFound):
		return nil
	case err != nil:
		return fmt.Errorf("%w: %w", errUncertain, cause)
	}
	return cause
}

func (r *Registry) removeVersions(ctx context.Context, ref function.Ref) error {
	stored, err := r.store.List(ctx, versionsPrefix(ref))
	if err != nil {
		return fmt.Errorf("listing versions of %s: %w", ref, err)
	}
	for _, se := range stored {
		if err := r.remove(ctx, se); err != nil {
			return err
		}
	}
	return nil
}

// remove deletes what nothing points at. That it is gone already is fine.
func (r *Registry) remove(ctx context.Context, se state.Entry) error {
	err := r.store.Delete(ctx, se.Key, se.Revision)
	if err != nil && !errors.Is(err, state.ErrNotFound) {
		return fmt.Errorf("removing %s: %w", se.Key, err)
	}
	return nil
}

// discard removes versions that a committed record no longer lists. The change
// itself is made, so a failure only leaves work for the next collection.
func (r *Registry) discard(ctx context.Context, dropped map[function.Ref][]function.Digest) {
	ctx = context.WithoutCancel(ctx)
	for ref, ids := range dropped {
		for _, id := range ids {
			se, err := r.store.Get(ctx, versionKey(ref, id))
			if err == nil {
				err = r.remove(ctx, se)
			}
			if err != nil && !errors.Is(err, state.ErrNotFound) {
				r.log.LogAttrs(ctx, slog.LevelWarn, "a version no longer kept is left for collection",
					slog.String("function", ref.String()), slog.String("version", string(id)), slog.Any("error", err))
			}
		}
	}
}

// Collect removes what interrupted changes and old uploads left behind: versions
// that no record lists, and artifacts that no version of any namespace uses, both
// only after their grace. Where a stored value cannot be read, whatever it might
// refer to is kept. It is safe at any time.
func (r *Registry) Collect(ctx context.Context) error {
	if err := r.lock(ctx); err != nil {
		return err
	}
	defer r.unlock()
	used, certain, err := r.collectVersions(ctx)
	if err != nil {
		return fmt.Errorf("collecting versions: %w", err)
	}
	if !certain {
		r.log.LogAttrs(ctx, slog.LevelWarn, "artifacts not collected: a damaged version may use any of them")
		return nil
	}
	if err := r.collectArtifacts(ctx, used); err != nil {
		return fmt.Errorf("collecting artifacts: %w", err)
	}
	return nil
}

// collectVersions answers which artifacts the versions that remain use, and
// whether it could read all of them.
func (r *Registry) collectVersions(ctx context.Context) (used map[function.Digest]bool, certain bool, err error) {
	records, err := r.store.List(ctx, functionPrefix)
	if err != nil {
		return nil, false, fmt.Errorf("listing functions: %w", err)
	}
	listed := map[string]bool{}        // version keys
	unclear := map[function.Ref]bool{} // functions whose record cannot be read
	for _, se := range records {
		ref, ok := refOfKey(se.Key)
		if !ok {
			continue
		}
		rec, err := decodeRecord(se.Key, se.Value)
		if err != nil {
			unclear[ref] = true
			continue
		}
		for _, id := range rec.Versions {
			listed[versionKey(ref, id)] = true
		}
	}
	versions, err := r.store.List(ctx, versionPrefix)
	if err != nil {
		return nil, false, fmt.Errorf("listing versions: %w", err)
	}
	used, certain = map[function.Digest]bool{}, true
	for _, se := range versions {
		ref, _ := refOfKey(se.Key)
		v, err := decodeVersion(se.Key, se.Value)
		orphan := !listed[se.Key] && !unclear[ref]
		if orphan && (err != nil || r.clock().Sub(v.Created) > r.grace) {
			if err := r.remove(ctx, se); err != nil {
				return nil, false, err
			}
			continue
		}
		if err != nil {
			certain = false
			continue
		}
		used[v.Artifact] = true
	}
	return used, certain, nil
}

func (r *Registry) collectArtifacts(ctx context.Context, used map[function.Digest]bool) error {
	records, err := r.store.List(ctx, artifactPrefix)
	if err != nil {
		return fmt.Errorf("listing artifacts: %w", err)
	}
	for _, se := range records {
		d, err := function.ParseDigest("sha256:" + se.Key[len(artifactPrefix):])
		if err != nil || used[d] {
			continue
		}
		a, err := decodeArtifact(se.Key, se.Value)
		if err == nil && r.clock().Sub(a.Uploaded) <= r.grace {
			continue
		}
		// The blob goes before its record: a crash in between leaves a record that
		// leads the next collection here again, never a blob that nothing names.
		if err := r.blobs.Delete(ctx, d.Hex()); err != nil && !errors.Is(err, state.ErrNotFound) {
			return fmt.Errorf("removing the artifact %s: %w", d.Short(), err)
		}
		if err := r.remove(ctx, se); err != nil {
			return err
		}
	}
	return nil
}

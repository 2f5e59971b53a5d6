package registry

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"

	"github.com/casemate-dev/casemate/api/problem"
	"github.com/casemate-dev/casemate/internal/function"
	"github.com/casemate-dev/casemate/internal/state"
)

// attempts is how often a change that does not depend on what was there before is
// tried when other processes keep changing the same function.
const attempts = 8

// checkTargets checks the form of an alias's targets.
func checkTargets(ts []Weight) error {
	if len(ts) == 0 || len(ts) > MaxTargets {
		return problem.New(problem.BadRequest, "an alias points at 1 to %d versions, not at %d", MaxTargets, len(ts)).At("targets")
	}
	sum := 0
	seen := map[function.Digest]bool{}
	for i, t := range ts {
		field := fmt.Sprintf("targets[%d]", i)
		if t.Percent < 1 || t.Percent > 100 {
			return problem.New(problem.BadRequest, "a share is 1 to 100 percent, not %d", t.Percent).At(field + ".percent").
				Fix("Leave a version without a share out.")
		}
		if seen[t.Version] {
			return problem.New(problem.BadRequest, "the version %s is named twice", t.Version.Short()).At(field + ".version")
		}
		seen[t.Version] = true
		sum += t.Percent
	}
	if sum != 100 {
		return problem.New(problem.BadRequest, "the shares add up to %d percent, not to 100", sum).At("targets")
	}
	return nil
}

// SetAlias puts an alias in a position, making it if need be. A target's version
// may be shortened like a qualifier. With a revision other than 0 it does so only
// if the function's record still has that one. An alias that is in the position
// already is left alone. Errors: not_found, bad_request, conflict, route_taken,
// artifact_tampered, and what the store answered.
func (r *Registry) SetAlias(ctx context.Context, ref function.Ref, alias string, targets []Weight, revision uint64, by string) (Alias, error) {
	if err := checkAliasName(alias); err != nil {
		return Alias{}, err
	}
	return r.moveAlias(ctx, ref, alias, revision, WhyAlias, by, func(e *entry, _ *Alias) ([]Weight, error) {
		full := slices.Clone(targets)
		for i := range full {
			v, err := e.find(string(full[i].Version))
			if err != nil {
				return nil, err
			}
			full[i].Version = v.ID
		}
		if err := checkTargets(full); err != nil {
			return nil, err
		}
		slices.SortStableFunc(full, func(a, b Weight) int { return b.Percent - a.Percent })
		return full, nil
	})
}

// Rollback moves an alias ("" is the live one) to the version given by id or
// prefix, or, when to is empty, to the newest position in its history that differs
// from where it is and whose versions are still whole. It is itself a move in the
// history, so rolling back twice returns to where one began; to go further back,
// name the version. Errors as for SetAlias, conflict when there is no earlier
// position.
func (r *Registry) Rollback(ctx context.Context, ref function.Ref, alias, to, by string) (Alias, error) {
	alias = orLive(alias)
	return r.moveAlias(ctx, ref, alias, 0, WhyRollback, by, func(e *entry, a *Alias) ([]Weight, error) {
		if a == nil {
			return nil, noAlias(ref, alias)
		}
		if to != "" {
			v, err := e.find(to)
			if err != nil {
				return nil, err
			}
			return []Weight{{v.ID, 100}}, nil
		}
		for _, m := range a.History {
			if !slices.Equal(m.Targets, a.Targets) && e.whole(m.Targets) {
				return m.Targets, nil
			}
		}
		return nil, problem.New(problem.Conflict, "the alias %s of %s has no earlier position", alias, ref).
			Fix("Name the version to roll back to; `casemate versions` lists them.")
	})
}

// whole reports whether every version pointed at can be served.
func (e *entry) whole(ts []Weight) bool {
	for _, t := range ts {
		if e.versions[t.Version] == nil {
			return false
		}
	}
	return true
}

func noAlias(ref function.Ref, alias string) *problem.Error {
	return problem.New(problem.NotFound, "the function %s has no alias %.80q", ref, alias).At("alias")
}

// mutable reads the function anew and checks that it can be changed.
func (r *Registry) mutable(ctx context.Context, ref function.Ref) (*entry, error) {
	if !validRef(ref) {
		return nil, notFound(ref)
	}
	e, err := r.refresh(ctx, ref)
	switch {
	case err != nil:
		return nil, err
	case e == nil:
		return nil, notFound(ref)
	}
	return e, nil
}

// moveAlias lets choose pick the new position, from the function as it is in the
// store, and commits it. Without a revision to hold on to it starts over when
// another process was faster.
func (r *Registry) moveAlias(ctx context.Context, ref function.Ref, alias string, revision uint64, why, by string, choose func(*entry, *Alias) ([]Weight, error)) (Alias, error) {
	if err := r.lock(ctx); err != nil {
		return Alias{}, err
	}
	defer r.unlock()
	for attempt := 1; ; attempt++ {
		e, err := r.mutable(ctx, ref)
		if err != nil {
			return Alias{}, err
		}
		if e.fault != nil {
			return Alias{}, tampered(ref, e.fault)
		}
		if revision != 0 && revision != e.revision {
			return Alias{}, changed(ref)
		}
		var a *Alias
		if i, found := findAlias(e.rec.Aliases, alias); found {
			a = &e.rec.Aliases[i]
		} else if len(e.rec.Aliases) >= MaxAliases {
			return Alias{}, tooManyAliases(ref)
		}
		targets, err := choose(e, a)
		if err != nil {
			return Alias{}, err
		}
		if a != nil && slices.Equal(a.Targets, targets) {
			return *a, nil
		}
		if err := r.mayGoLive(e, alias, targets); err != nil {
			return Alias{}, err
		}
		rec := e.rec.clone()
		moved := *rec.move(alias, Move{Targets: targets, At: r.clock().UTC(), By: by, Why: why})
		gone := rec.trim(r.keep, maxRecord)
		err = r.replace(ctx, ref, e, rec)
		if err == nil {
			r.discard(ctx, map[function.Ref][]function.Digest{ref: gone})
			return moved, nil
		}
		if !errors.Is(err, state.ErrConflict) {
			return Alias{}, err
		}
		if revision != 0 || attempt == attempts {
			return Alias{}, changed(ref).Because(err)
		}
	}
}

func changed(ref function.Ref) *problem.Error {
	return problem.New(problem.Conflict, "%s is no longer in the state this change was made for", ref)
}

// mayGoLive checks the routes that a move of the live alias would bring.
func (r *Registry) mayGoLive(e *entry, alias string, targets []Weight) error {
	if alias != function.LiveAlias {
		return nil
	}
	v := e.versions[targets[0].Version]
	instead := map[string][]function.HTTPTrigger{e.ref.Name: v.Config.Routes()}
	if err := r.current.Load().clash(e.ref.Namespace, instead); err != nil {
		return err
	}
	return nil
}

// replace commits a new record of one function and publishes what is in force
// afterwards.
func (r *Registry) replace(ctx context.Context, ref function.Ref, old *entry, rec *record) error {
	e, err := r.commit(ctx, ref, old, rec, nil)
	if e != nil {
		r.publish(map[function.Ref]*entry{ref: e})
	}
	return err
}

// DeleteAlias removes an alias and its history. The live alias goes only with its
// function. Errors: not_found, bad_request, conflict, and what the store answered.
func (r *Registry) DeleteAlias(ctx context.Context, ref function.Ref, alias, by string) error {
	if alias == function.LiveAlias {
		return problem.New(problem.BadRequest, "the alias %s cannot be deleted", alias).At("alias").
			Fix("Delete the function, or roll the alias back.")
	}
	if err := r.lock(ctx); err != nil {
		return err
	}
	defer r.unlock()
	for attempt := 1; ; attempt++ {
		e, err := r.mutable(ctx, ref)
		if err != nil {
			return err
		}
		if e.fault != nil {
			return tampered(ref, e.fault)
		}
		i, found := findAlias(e.rec.Aliases, alias)
		if !found {
			return noAlias(ref, alias)
		}
		rec := e.rec.clone()
		rec.Aliases = slices.Delete(rec.Aliases, i, i+1)
		gone := rec.trim(r.keep, maxRecord)
		err = r.replace(ctx, ref, e, rec)
		if err == nil {
			r.log.LogAttrs(ctx, slog.LevelInfo, "alias deleted", slog.String("function", ref.String()), slog.String("alias", alias), slog.String("by", by))
			r.discard(ctx, map[function.Ref][]function.Digest{ref: gone})
			return nil
		}
		if !errors.Is(err, state.ErrConflict) {
			return err
		}
		if attempt == attempts {
			return changed(ref).Because(err)
		}
	}
}

package registry

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"

	"github.com/casemate-dev/casemate/api/problem"
	"github.com/casemate-dev/casemate/internal/function"
	"github.com/casemate-dev/casemate/internal/state"
)

// Deployed is one function after Apply.
type Deployed struct {
	Name    string
	Version function.Digest
	Changed bool
}

// ApplyError says how far a deployment of several functions came. It wraps a
// *problem.Error whose detail says the same for people.
type ApplyError struct {
	Applied   []Deployed // changed and in force
	Failed    string     // the function that stopped it
	Uncertain bool       // Failed may have been changed: the store gave no answer
	Skipped   []string   // not begun
	Err       *problem.Error
}

func (e *ApplyError) Error() string {
	return fmt.Sprintf("applying the plan to %s: %v", e.Failed, e.Err)
}

// Unwrap gives the problem.
func (e *ApplyError) Unwrap() error { return e.Err }

// errUncertain marks a write whose outcome could not be found out.
var errUncertain = errors.New("the store did not say whether the change was made")

// Apply carries out a plan for the same specs. It fails with plan_stale when the
// plan is not what planning again would give, with not_found when an artifact has
// not been uploaded and with digest_mismatch when its size is another, all before
// anything is changed. Each function changes atomically. When one fails midway,
// those before it stay changed and the error is an *ApplyError.
func (r *Registry) Apply(ctx context.Context, plan Plan, specs []Spec, by string) ([]Deployed, error) {
	if err := r.lock(ctx); err != nil {
		return nil, err
	}
	defer r.unlock()
	drafts, err := r.draft(ctx, plan.Namespace, orLive(plan.Alias), specs)
	if err != nil {
		return nil, err
	}
	if err := plan.matches(drafts); err != nil {
		return nil, err
	}
	for i := range drafts {
		if err := r.ready(ctx, &drafts[i], by); err != nil {
			return nil, err
		}
	}

	order := r.order(plan.Namespace, orLive(plan.Alias), drafts)
	changed := map[function.Ref]*entry{}
	dropped := map[function.Ref][]function.Digest{}
	var applied []Deployed
	for n, d := range order {
		e, gone, err := r.deploy(ctx, d, orLive(plan.Alias), by)
		if e != nil {
			changed[d.ref], dropped[d.ref] = e, gone
		}
		if err != nil {
			r.publish(changed)
			return nil, applyError(err, applied, order[n:])
		}
		applied = append(applied, Deployed{d.Function, d.Version, true})
	}
	// One snapshot for the whole plan: routes that move from one function to
	// another are never seen twice or not at all.
	r.publish(changed)
	r.discard(ctx, dropped)

	all := make([]Deployed, 0, len(drafts))
	for i := range drafts {
		all = append(all, Deployed{drafts[i].Function, drafts[i].Version, drafts[i].Action != ActionNone})
	}
	return all, nil
}

// ready completes the version of a draft that changes something.
func (r *Registry) ready(ctx context.Context, d *draft, by string) error {
	if d.Action == ActionNone {
		return nil
	}
	size, err := r.hold(ctx, d.version.Artifact)
	if err != nil {
		return err
	}
	if size == 0 {
		return problem.New(problem.NotFound, "the code of %s, %s, has not been uploaded", d.Function, d.version.Artifact).
			At("functions." + d.Function + ".artifact").Fix("Upload the artifact, then apply again; `casemate deploy` does both.")
	}
	if d.size != 0 && d.size != size {
		return problem.New(problem.DigestMismatch, "the code of %s has %d bytes and %d were announced", d.Function, size, d.size).
			At("functions." + d.Function + ".artifact")
	}
	d.version.Size, d.version.Created, d.version.Creator = size, r.clock().UTC(), by
	return nil
}

// order lists the drafts that change something so that, wherever a crash falls
// between two of them, as few routes as possible are claimed twice: who gives a
// route up goes before who takes it over. Only a swap in a circle has no such
// order.
func (r *Registry) order(ns, alias string, drafts []draft) []*draft {
	var left, done []*draft
	for i := range drafts {
		if drafts[i].Action != ActionNone {
			left = append(left, &drafts[i])
		}
	}
	if alias != function.LiveAlias || len(left) < 2 {
		return left
	}
	s := r.current.Load()
	instead := map[string][]function.HTTPTrigger{}
	for len(left) > 0 {
		next := 0
		for i, d := range left {
			before, known := instead[d.Function]
			instead[d.Function] = d.version.Config.Routes()
			clash := s.clash(ns, instead)
			if known {
				instead[d.Function] = before
			} else {
				delete(instead, d.Function)
			}
			if clash == nil {
				next = i
				break
			}
		}
		d := left[next]
		instead[d.Function] = d.version.Config.Routes()
		done = append(done, d)
		left = append(left[:next:next], left[next+1:]...)
	}
	return done
}

// deploy writes the version and then the record that points at it. The entry is
// what is in force afterwards, on an error too if that is known and new.
func (r *Registry) deploy(ctx context.Context, d *draft, alias, by string) (*entry, []function.Digest, error) {
	v, err := r.putVersion(ctx, d.version)
	if err != nil {
		return nil, nil, err
	}
	rec := &record{Form: storedForm, Function: d.ref}
	if d.old != nil && d.old.fault == nil {
		rec = d.old.rec.clone()
	}
	listed := false
	for _, id := range rec.Versions {
		listed = listed || id == v.ID
	}
	if !listed {
		rec.Versions = append([]function.Digest{v.ID}, rec.Versions...)
	}
	rec.move(alias, Move{Targets: []Weight{{v.ID, 100}}, At: r.clock().UTC(), By: by, Why: WhyDeploy})
	gone := rec.trim(r.keep, maxRecord)
	e, err := r.commit(ctx, d.ref, d.old, rec, v)
	return e, gone, err
}

// putVersion stores a version unless it is there. A stored one that is not what
// its key says is replaced: deploying again is how a damaged version is repaired.
func (r *Registry) putVersion(ctx context.Context, v *function.Version) (*function.Version, error) {
	key := versionKey(v.Ref, v.ID)
	b, err := encodeVersion(v)
	if err != nil {
		return nil, err
	}
	_, err = r.store.Create(ctx, key, b)
	if err == nil {
		return v, nil
	}
	if !errors.Is(err, state.ErrConflict) {
		return nil, fmt.Errorf("storing version %s of %s: %w", v.ID.Short(), v.Ref, err)
	}
	se, err := r.store.Get(ctx, key)
	if err != nil {
		return nil, fmt.Errorf("reading version %s of %s: %w", v.ID.Short(), v.Ref, err)
	}
	there, reason := decodeVersion(key, se.Value)
	if reason == nil {
		return there, nil
	}
	r.log.LogAttrs(ctx, slog.LevelWarn, "damaged version replaced by a deployment of the same",
		slog.String("key", key), slog.Any("reason", reason))
	if _, err := r.store.Update(ctx, key, b, se.Revision); err != nil {
		return nil, fmt.Errorf("repairing version %s of %s: %w", v.ID.Short(), v.Ref, err)
	}
	return v, nil
}

// commit writes a function's record over the one in old, which is nil when there
// is none, and gives the new entry. It does not publish it. fresh is a version
// that the record may list and old may not hold; it may be nil.
//
// When the write failed but somebody's record is there, the entry is of that one
// and the error says why it is not ours.
func (r *Registry) commit(ctx context.Context, ref function.Ref, old *entry, rec *record, fresh *function.Version) (*entry, error) {
	b, err := encodeRecord(rec)
	if err != nil {
		return nil, err
	}
	key := functionKey(ref)
	var revision uint64
	if old == nil {
		revision, err = r.store.Create(ctx, key, b)
	} else {
		revision, err = r.store.Update(ctx, key, b, old.revision)
	}
	if err != nil {
		var there *entry
		if revision, there, err = r.settle(ctx, ref, b, err); err != nil {
			return there, err
		}
	}
	versions := make(map[function.Digest]*function.Version, len(rec.Versions))
	damaged := map[function.Digest]error{}
	for _, id := range rec.Versions {
		switch {
		case fresh != nil && fresh.ID == id:
			versions[id] = fresh
		case old != nil && old.versions[id] != nil:
			versions[id] = old.versions[id]
		case old != nil && old.damaged[id] != nil:
			damaged[id] = old.damaged[id]
		}
	}
	return newEntry(ref, revision, rec, versions, damaged), nil
}

// settle finds out how a write that failed has ended. The store may have made it
// and lost the answer: if what is there now is what was to be written, it is done.
func (r *Registry) settle(ctx context.Context, ref function.Ref, want []byte, cause error) (uint64, *entry, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), settleTimeout)
	defer cancel()
	se, err := r.store.Get(ctx, functionKey(ref))
	switch {
	case errors.Is(err, state.ErrNotFound):
		return 0, nil, fmt.Errorf("storing the record of %s: %w", ref, cause)
	case err != nil:
		return 0, nil, fmt.Errorf("storing the record of %s: %w: %w", ref, errUncertain, cause)
	case bytes.Equal(se.Value, want):
		return se.Revision, nil, nil
	}
	there, err := r.read(ctx, ref)
	if err != nil {
		there = nil // the next change reads it again
	}
	return 0, there, fmt.Errorf("storing the record of %s: %w", ref, cause)
}

func applyError(cause error, applied []Deployed, rest []*draft) error {
	e := &ApplyError{Applied: applied, Failed: rest[0].Function, Uncertain: errors.Is(cause, errUncertain)}
	for _, d := range rest[1:] {
		e.Skipped = append(e.Skipped, d.Function)
	}
	said := "nothing was changed"
	var names []string
	for _, d := range applied {
		names = append(names, d.Name)
	}
	if len(names) > 0 {
		said = "already applied: " + strings.Join(names, ", ")
	}
	if len(e.Skipped) > 0 {
		said += "; not begun: " + strings.Join(e.Skipped, ", ")
	}
	fix := "Make a new plan: what is applied already will be left as it is."
	switch {
	case errors.Is(cause, state.ErrConflict):
		e.Err = problem.New(problem.PlanStale, "%s was changed at the same moment; %s", e.Failed, said)
	case e.Uncertain:
		e.Err = problem.New(problem.Internal, "it is not known whether %s was changed; %s", e.Failed, strings.Replace(said, "nothing", "nothing else", 1))
	default:
		e.Err = problem.New(problem.Internal, "%s could not be stored; %s", e.Failed, said)
	}
	e.Err = e.Err.Fix("%s", fix).Because(cause)
	return e
}

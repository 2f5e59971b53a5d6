package control

import (
	"context"
	"fmt"
	"slices"

	"github.com/casemate-dev/casemate/api/problem"
	"github.com/casemate-dev/casemate/internal/function"
	"github.com/casemate-dev/casemate/internal/registry"
)

// This file keeps operators from having the node use for them what they may not use
// themselves: whoever puts triggers in force, by a deployment, by moving an alias or by
// rolling back, must be allowed what they do. Config.CheckTriggers has the list of that.

// checkTriggers fails with a *problem.Error whose field begins with at.
func (h *Handler) checkTriggers(ctx context.Context, x *exchange, ref function.Ref, ts []function.Trigger, at string) error {
	if len(ts) == 0 {
		return nil
	}
	if h.cfg.CheckTriggers == nil {
		return problem.New(problem.NotImplemented, "this node keeps no events, so it has no triggers").At(at + "triggers")
	}
	p := h.cfg.CheckTriggers(ctx, x.who, ref, ts)
	if p == nil {
		return nil
	}
	e := *p
	e.Field = at + e.Field
	return &e
}

func (h *Handler) checkSpecs(ctx context.Context, x *exchange, ns string, specs []registry.Spec) error {
	for _, s := range specs {
		if err := h.checkTriggers(ctx, x, function.Ref{Namespace: ns, Name: s.Name}, s.Config.Triggers, "functions."+s.Name+"."); err != nil {
			return err
		}
	}
	return nil
}

// rollback moves an alias to exactly what was checked: where it would go is found out
// here, since between the registry's finding out and our checking somebody could move it.
func (h *Handler) rollback(ctx context.Context, x *exchange, in *rollbackInput) (registry.Alias, error) {
	ref, by := in.ref(), x.who.String()
	if in.Body.To != "" {
		v, err := h.cfg.Registry.Version(ref, in.Body.To)
		if err != nil {
			return registry.Alias{}, err
		}
		if err := h.checkTriggers(ctx, x, ref, v.Config.Triggers, "version."); err != nil {
			return registry.Alias{}, err
		}
		return h.cfg.Registry.Rollback(ctx, ref, in.Body.Alias, string(v.ID), by)
	}
	f, err := h.cfg.Registry.Function(ref)
	if err != nil {
		return registry.Alias{}, err
	}
	targets, err := h.before(&f, in.Body.Alias)
	if err != nil {
		return registry.Alias{}, err
	}
	for _, t := range targets {
		v, err := h.cfg.Registry.Version(ref, string(t.Version))
		if err != nil {
			return registry.Alias{}, err
		}
		if err := h.checkTriggers(ctx, x, ref, v.Config.Triggers, "version."); err != nil {
			return registry.Alias{}, err
		}
	}
	alias := in.Body.Alias
	if alias == "" {
		alias = function.LiveAlias
	}
	if len(targets) == 1 {
		return h.cfg.Registry.Rollback(ctx, ref, alias, string(targets[0].Version), by)
	}
	// Several versions cannot be named there, so this move reads "alias" in the history.
	return h.cfg.Registry.SetAlias(ctx, ref, alias, targets, f.Revision, by)
}

// before gives the newest position in an alias's history that differs from where it is
// and whose versions are whole, as registry.Registry.Rollback finds it.
func (h *Handler) before(f *registry.Function, name string) ([]registry.Weight, error) {
	if name == "" {
		name = function.LiveAlias
	}
	for _, a := range f.Aliases {
		if a.Name != name {
			continue
		}
		for _, m := range a.History {
			if !slices.Equal(m.Targets, a.Targets) && h.whole(f.Ref, m.Targets) {
				return m.Targets, nil
			}
		}
		return nil, problem.New(problem.Conflict, "the alias %s of %s has no earlier position", name, f.Ref).
			Fix("Name the version to roll back to; `casemate versions` lists them.")
	}
	return nil, problem.New(problem.NotFound, "the function %s has no alias %.80q", f.Ref, name).At("alias")
}

func (h *Handler) whole(ref function.Ref, ts []registry.Weight) bool {
	for _, t := range ts {
		if _, err := h.cfg.Registry.Version(ref, string(t.Version)); err != nil {
			return false
		}
	}
	return true
}

// qualifier gives the alias or the whole version id that somebody means.
func (h *Handler) qualifier(ref function.Ref, to string) (string, error) {
	if to == "" {
		return "", nil
	}
	f, err := h.cfg.Registry.Function(ref)
	if err != nil {
		return "", err
	}
	for _, a := range f.Aliases {
		if a.Name == to {
			return to, nil
		}
	}
	v, err := h.cfg.Registry.Version(ref, to)
	if err != nil {
		e := *problem.From(err)
		return "", e.At("to").Fix("%s", fmt.Sprintf("Name an alias of %s or one of its versions; `casemate versions %s` lists them.", ref, ref.Name))
	}
	return string(v.ID), nil
}

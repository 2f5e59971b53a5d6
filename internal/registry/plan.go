package registry

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/casemate-dev/casemate/api/problem"
	"github.com/casemate-dev/casemate/internal/function"
)

// Spec asks for a function to have this code and configuration. The configuration
// is complete; semantic rules beyond routes are the caller's to check. Size is
// that of the code; 0 means: as it was uploaded.
type Spec struct {
	Name     string
	Artifact function.Digest
	Size     int64
	Config   function.Config
}

// Action is what a plan does to a function.
type Action string

// The actions.
const (
	ActionCreate Action = "create"
	ActionUpdate Action = "update"
	ActionNone   Action = "none"
)

// Change is what a plan does to one function.
type Change struct {
	Function string
	Action   Action
	Version  function.Digest // that the alias will point at
	Current  function.Digest // with the largest share of the alias now; empty: none
	Revision uint64          // of the function's record; 0: there is none
	Diff     []Delta
	Warnings []string
}

// Plan is what a deployment would change, in the order of its specs.
type Plan struct {
	Namespace string
	Alias     string
	Changes   []Change
}

// draft is a change with all that carrying it out takes.
type draft struct {
	Change
	ref     function.Ref
	old     *entry            // nil when the function is new
	version *function.Version // without Size, Created and Creator
	size    int64             // announced, or 0
}

// Plan says what applying the specs would change. alias is the one to move; ""
// is the live one. The artifacts need not be uploaded yet. Errors are
// bad_request, invalid_manifest, route_taken, and what the store answered.
func (r *Registry) Plan(ctx context.Context, ns, alias string, specs []Spec) (Plan, error) {
	if err := r.lock(ctx); err != nil {
		return Plan{}, err
	}
	defer r.unlock()
	alias = orLive(alias)
	drafts, err := r.draft(ctx, ns, alias, specs)
	if err != nil {
		return Plan{}, err
	}
	p := Plan{Namespace: ns, Alias: alias}
	for _, d := range drafts {
		p.Changes = append(p.Changes, d.Change)
	}
	return p, nil
}

func orLive(alias string) string {
	if alias == "" {
		return function.LiveAlias
	}
	return alias
}

func (r *Registry) draft(ctx context.Context, ns, alias string, specs []Spec) ([]draft, error) {
	if !function.ValidName(ns) {
		return nil, badName("namespace", ns).At("namespace")
	}
	if err := checkAliasName(alias); err != nil {
		return nil, err
	}
	if len(specs) == 0 || len(specs) > MaxSpecs {
		return nil, problem.New(problem.BadRequest, "the plan names %d functions; it takes 1 to %d", len(specs), MaxSpecs).At("functions")
	}
	drafts := make([]draft, 0, len(specs))
	seen := map[string]bool{}
	for i, s := range specs {
		field := fmt.Sprintf("functions[%d]", i)
		if !function.ValidName(s.Name) {
			return nil, badName("function", s.Name).At(field + ".name")
		}
		if seen[s.Name] {
			return nil, problem.New(problem.BadRequest, "the function %s is named twice", s.Name).At(field + ".name")
		}
		seen[s.Name] = true
		d, err := r.draftOne(ctx, function.Ref{Namespace: ns, Name: s.Name}, alias, s, field)
		if err != nil {
			return nil, err
		}
		drafts = append(drafts, d)
	}
	if alias == function.LiveAlias {
		instead := map[string][]function.HTTPTrigger{}
		for _, d := range drafts {
			instead[d.ref.Name] = d.version.Config.Routes()
		}
		if err := r.current.Load().clash(ns, instead); err != nil {
			return nil, err
		}
	}
	return drafts, nil
}

func (r *Registry) draftOne(ctx context.Context, ref function.Ref, alias string, s Spec, field string) (draft, error) {
	if _, err := function.ParseDigest(string(s.Artifact)); err != nil {
		return draft{}, problem.New(problem.BadRequest, "the artifact's digest is malformed").At(field + ".artifact").Because(err)
	}
	if s.Size < 0 || s.Size > MaxArtifact {
		return draft{}, problem.New(problem.BodyTooLarge, "the artifact has %d bytes and the most is %d", s.Size, MaxArtifact).At(field + ".artifact")
	}
	id, err := function.VersionID(s.Artifact, s.Config)
	if err != nil {
		return draft{}, problem.New(problem.InvalidManifest, "the configuration cannot be stored").At(field + ".config").Because(err)
	}
	// Taking the configuration through its stored form makes a private copy and
	// finds what would not come back as it was, such as text that is not UTF-8.
	v := &function.Version{Ref: ref, ID: id, Artifact: s.Artifact, Size: 1, Config: s.Config}
	b, err := encodeVersion(v)
	if len(b) > maxVersion {
		return draft{}, problem.New(problem.InvalidManifest, "the configuration takes %d bytes and the most is %d", len(b), maxVersion).
			At(field + ".config").Fix("Shorten the environment and the schemas of triggers: large data belongs into the code or a store.")
	}
	if err == nil {
		v, err = decodeVersion(versionKey(ref, id), b)
	}
	if err != nil {
		return draft{}, problem.New(problem.InvalidManifest, "the configuration cannot be stored as it is").At(field + ".config").
			Fix("Look for text that is not valid UTF-8.").Because(err)
	}
	if err := checkTriggers(v.Config.Triggers, field); err != nil {
		return draft{}, err
	}
	if err := checkRoutes(ref, v.Config.Routes(), field); err != nil {
		return draft{}, err
	}
	old, err := r.refresh(ctx, ref)
	if err != nil {
		return draft{}, err
	}
	d := draft{ref: ref, old: old, version: v, size: s.Size, Change: Change{Function: ref.Name, Action: ActionCreate, Version: id}}
	if old == nil {
		d.Diff, d.Warnings = diff(nil, v), warnings(nil, &v.Config)
		return d, nil
	}
	d.Revision, d.Action = old.revision, ActionUpdate
	if old.fault != nil {
		d.Diff = diff(nil, v)
		d.Warnings = append(warnings(nil, &v.Config), "the stored record is damaged: its aliases and history are replaced")
		return d, nil
	}
	return d, d.compare(alias)
}

// compare fills in what differs from where the alias points now.
func (d *draft) compare(alias string) error {
	old := d.old
	i, found := findAlias(old.rec.Aliases, alias)
	if !found {
		if len(old.rec.Aliases) >= MaxAliases {
			return tooManyAliases(d.ref)
		}
		d.Diff, d.Warnings = diff(nil, d.version), warnings(nil, &d.version.Config)
		return nil
	}
	targets := old.rec.Aliases[i].Targets
	d.Current = targets[0].Version
	now := old.primary(alias)
	if now == nil {
		d.Diff = diff(nil, d.version)
		d.Warnings = append(warnings(nil, &d.version.Config), "the stored version "+d.Current.Short()+" is damaged and is replaced")
		return nil
	}
	d.Diff, d.Warnings = diff(now, d.version), warnings(&now.Config, &d.version.Config)
	switch {
	case len(targets) > 1:
		d.Diff = append(d.Diff, Delta{"weights", weightsText(targets), weightsText([]Weight{{d.Version, 100}})})
	case d.Current == d.Version:
		d.Action = ActionNone
	}
	return nil
}

func weightsText(ws []Weight) string {
	var parts []string
	for _, w := range ws {
		parts = append(parts, fmt.Sprintf("%s %d%%", w.Version.Short(), w.Percent))
	}
	return strings.Join(parts, ", ")
}

func badName(what, name string) *problem.Error {
	return problem.New(problem.BadRequest, "%.80q cannot name a %s", name, what).
		Fix("Use 1 to 63 lower-case letters, digits and hyphens, beginning with a letter and not ending with a hyphen.")
}

func tooManyAliases(ref function.Ref) *problem.Error {
	return problem.New(problem.BadRequest, "%s has %d aliases, the most there can be", ref, MaxAliases).At("alias").Fix("Delete one that is not needed.")
}

// checkAliasName also refuses what could be taken for a version.
func checkAliasName(name string) error {
	if !function.ValidName(name) {
		return badName("alias", name).At("alias")
	}
	if len(name) >= MinPrefix && hexPrefix(name) {
		return problem.New(problem.BadRequest, "the alias %s could be taken for the digits of a version", name).At("alias").
			Fix("Use a letter beyond f, or fewer than %d characters.", MinPrefix)
	}
	return nil
}

// same reports whether carrying out d is carrying out c.
func (d *draft) same(c *Change) bool {
	return d.Function == c.Function && d.Action == c.Action && d.Version == c.Version && d.Current == c.Current && d.Revision == c.Revision
}

// matches checks that the drafts, made now, are the plan, made then.
func (p *Plan) matches(drafts []draft) error {
	if len(p.Changes) != len(drafts) {
		return problem.New(problem.PlanStale, "the plan has %d changes and %d functions were given", len(p.Changes), len(drafts))
	}
	for i := range drafts {
		d := &drafts[i]
		j := slices.IndexFunc(p.Changes, func(c Change) bool { return c.Function == d.Function })
		switch {
		case j < 0:
			return problem.New(problem.PlanStale, "the function %s is not in the plan", d.Function)
		case p.Changes[j].Version != d.Version:
			return problem.New(problem.PlanStale, "the plan was made for another build or configuration of %s", d.Function)
		case !d.same(&p.Changes[j]):
			return problem.New(problem.PlanStale, "%s was changed after the plan was made", d.ref)
		}
	}
	return nil
}

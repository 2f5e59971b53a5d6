package registry

import (
	"slices"
	"sort"
	"strings"

	"github.com/casemate-dev/casemate/api/problem"
	"github.com/casemate-dev/casemate/internal/function"
)

// MinPrefix is the shortest part of a version's hex digits that may name it.
const MinPrefix = 6

// Function is a function as it stands. Live is the version with the largest share
// of the live alias, nil when there is none.
type Function struct {
	function.Ref
	Revision uint64
	Aliases  []Alias // by name
	Live     *function.Version
}

// Resolve finds the version that answers a call. The qualifier is empty for the
// live alias, an alias, or a version's id or at least MinPrefix of its first hex
// digits. roll(n) gives a number in [0, n); it is asked only when an alias is
// split. alias is empty when a version was named. Errors are *problem.Error:
// not_found, bad_request for a prefix that fits several versions, and
// artifact_tampered when what is stored is not what was deployed.
func (r *Registry) Resolve(ref function.Ref, qualifier string, roll func(n int) int) (v *function.Version, alias string, err error) {
	e := r.current.Load().functions[ref]
	if e == nil {
		return nil, "", notFound(ref)
	}
	if e.fault != nil {
		return nil, "", tampered(ref, e.fault)
	}
	p := e.live
	if qualifier != "" {
		p = e.aliases[qualifier]
	}
	if p == nil {
		if qualifier == "" {
			return nil, "", problem.New(problem.NotFound, "the function %s has no live version", ref).
				Fix("Deploy it, or name an alias or a version.")
		}
		v, err := e.find(qualifier)
		return v, "", err
	}
	t := &p.targets[0]
	if len(p.targets) > 1 {
		n := roll(100)
		for i := range p.targets {
			t = &p.targets[i]
			if n < t.upTo {
				break
			}
		}
	}
	if t.version == nil {
		// The share of a refused version is not given to another one: which code
		// answers is the operator's decision.
		return nil, "", tampered(ref, e.damaged[t.id])
	}
	return t.version, p.name, nil
}

// find looks a version up by its id, with or without its algorithm, or by a
// prefix of its hex digits.
func (e *entry) find(id string) (*function.Version, error) {
	hex := strings.TrimPrefix(id, "sha256:")
	if !hexPrefix(hex) || len(hex) < MinPrefix || len(hex) > 64 {
		return nil, problem.New(problem.NotFound, "the function %s has no alias or version %.80q", e.ref, id).
			Fix("Name an alias, or at least %d hex digits of a version; `casemate versions` lists them.", MinPrefix)
	}
	i := sort.Search(len(e.byID), func(i int) bool { return e.byID[i].ID.Hex() >= hex })
	if i == len(e.byID) || !strings.HasPrefix(e.byID[i].ID.Hex(), hex) {
		for d, why := range e.damaged {
			if strings.HasPrefix(d.Hex(), hex) {
				return nil, tampered(e.ref, why)
			}
		}
		return nil, problem.New(problem.NotFound, "the function %s has no version %s", e.ref, hex).
			Fix("`casemate versions` lists the versions there are.")
	}
	if i+1 < len(e.byID) && strings.HasPrefix(e.byID[i+1].ID.Hex(), hex) {
		return nil, problem.New(problem.BadRequest, "%s fits several versions of %s", hex, e.ref).Fix("Give more digits.")
	}
	return e.byID[i], nil
}

func hexPrefix(s string) bool {
	for i := range len(s) {
		if c := s[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return s != ""
}

func notFound(ref function.Ref) *problem.Error {
	return problem.New(problem.NotFound, "there is no function %.130q", ref.String())
}

func tampered(ref function.Ref, why error) *problem.Error {
	return problem.New(problem.ArtifactTampered, "what is stored of %s is not what was deployed", ref).Because(why)
}

// known finds a function that can be looked into.
func (r *Registry) known(ref function.Ref) (*entry, error) {
	e := r.current.Load().functions[ref]
	if e == nil {
		return nil, notFound(ref)
	}
	if e.fault != nil {
		return nil, tampered(ref, e.fault)
	}
	return e, nil
}

func (e *entry) view() Function {
	f := Function{Ref: e.ref, Revision: e.revision, Live: e.primary(function.LiveAlias)}
	if e.rec != nil {
		f.Aliases = e.rec.Aliases
	}
	return f
}

// Function describes one function.
func (r *Registry) Function(ref function.Ref) (Function, error) {
	e, err := r.known(ref)
	if err != nil {
		return Function{}, err
	}
	return e.view(), nil
}

// Functions lists the functions of a namespace by name, and with "" those of
// every namespace. One whose record is refused is listed without aliases, so
// that it can be seen and deleted.
func (r *Registry) Functions(ns string) []Function {
	s := r.current.Load()
	var fs []Function
	for _, e := range s.functions {
		if ns == "" || e.ref.Namespace == ns {
			fs = append(fs, e.view())
		}
	}
	slices.SortFunc(fs, func(a, b Function) int {
		if c := strings.Compare(a.Namespace, b.Namespace); c != 0 {
			return c
		}
		return strings.Compare(a.Name, b.Name)
	})
	return fs
}

// Len is how many functions there are, refused ones included.
func (r *Registry) Len() int { return len(r.current.Load().functions) }

// Versions lists the versions of a function, the newest first. Refused ones are
// left out; Faults names them.
func (r *Registry) Versions(ref function.Ref) ([]*function.Version, error) {
	e, err := r.known(ref)
	if err != nil {
		return nil, err
	}
	vs := make([]*function.Version, 0, len(e.versions))
	for _, id := range e.rec.Versions {
		if v := e.versions[id]; v != nil {
			vs = append(vs, v)
		}
	}
	return vs, nil
}

// Version finds a version by its id or by at least MinPrefix of its hex digits.
func (r *Registry) Version(ref function.Ref, id string) (*function.Version, error) {
	e, err := r.known(ref)
	if err != nil {
		return nil, err
	}
	return e.find(id)
}

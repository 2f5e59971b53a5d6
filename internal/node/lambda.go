package node

import (
	"github.com/casemate-dev/casemate/api/problem"
	"github.com/casemate-dev/casemate/internal/function"
	"github.com/casemate-dev/casemate/internal/gateway"
	"github.com/casemate-dev/casemate/internal/registry"
)

// lambdaFunctions shows the registry to the Lambda API (gateway.Functions).
type lambdaFunctions struct{ *registry.Registry }

// Refs lists every function of every namespace.
func (l lambdaFunctions) Refs() []function.Ref {
	fs := l.Functions("")
	refs := make([]function.Ref, 0, len(fs))
	for i := range fs {
		refs = append(refs, fs[i].Ref)
	}
	return refs
}

// Alias gives the shares of an alias, the largest first.
func (l lambdaFunctions) Alias(ref function.Ref, name string) ([]gateway.Share, error) {
	f, err := l.Function(ref)
	if err != nil {
		return nil, err
	}
	for _, a := range f.Aliases {
		if a.Name != name {
			continue
		}
		shares := make([]gateway.Share, 0, len(a.Targets))
		for _, t := range a.Targets {
			shares = append(shares, gateway.Share{Version: t.Version, Percent: t.Percent})
		}
		return shares, nil
	}
	return nil, problem.New(problem.NotFound, "the function %s has no alias %.80q", ref, name)
}

package node

import (
	"context"

	"github.com/casemate-dev/casemate/internal/function"
	"github.com/casemate-dev/casemate/internal/sandbox"
)

// tiers sends each version to the Runner that runs its kind of code. It is a
// sandbox.Runner itself.
type tiers struct {
	wasm   sandbox.Runner
	native sandbox.Runner // nil: refused, for the reason
	reason string
}

func (t *tiers) of(v *function.Version) (sandbox.Runner, error) {
	switch {
	case !v.Config.Runtime.Native():
		return t.wasm, nil
	case t.native == nil:
		return nil, &sandbox.Error{Kind: sandbox.Refused, Public: "this node runs no native functions: " + t.reason}
	default:
		return t.native, nil
	}
}

// Prepare implements sandbox.Runner.
func (t *tiers) Prepare(ctx context.Context, v *function.Version) error {
	r, err := t.of(v)
	if err != nil {
		return err
	}
	return r.Prepare(ctx, v)
}

// Invoke implements sandbox.Runner.
func (t *tiers) Invoke(ctx context.Context, inv *sandbox.Invocation) (sandbox.Result, error) {
	r, err := t.of(inv.Version)
	if err != nil {
		return sandbox.Result{}, err
	}
	return r.Invoke(ctx, inv)
}

// Retire implements sandbox.Runner. Nobody says here of which kind the version is; a
// Runner that never had it does nothing.
func (t *tiers) Retire(namespace string, id function.Digest) {
	t.wasm.Retire(namespace, id)
	if t.native != nil {
		t.native.Retire(namespace, id)
	}
}

// Close does nothing: the node ends each tier in the order in which it began.
func (t *tiers) Close() error { return nil }

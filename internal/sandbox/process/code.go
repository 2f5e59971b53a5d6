package process

import (
	"context"
	"fmt"
	"io"
	"log/slog"

	"github.com/casemate-dev/casemate/internal/function"
	"github.com/casemate-dev/casemate/internal/sandbox"
	"github.com/casemate-dev/casemate/internal/sandbox/wire"
)

// Code keeps compiled code. It is executed as it is, so Get must give exactly what was
// put under that key, or nothing. The methods may be called from many goroutines.
type Code interface {
	Get(key function.Digest) (code []byte, ok bool)
	Put(key function.Digest, code []byte) error
	Delete(key function.Digest)
}

// Fetcher is a Code that can write code where it is wanted. What it wrote is whole, and
// what was put under that key, when found is true and err nil, and must not be used
// otherwise. It writes from several goroutines at once. err is what room or the writing
// failed with.
type Fetcher interface {
	Fetch(key function.Digest, room func(size int64) (io.WriterAt, error)) (found bool, err error)
}

// fetch writes code that the store has to where room says.
func fetch(c Code, key function.Digest, room func(size int64) (io.WriterAt, error)) (found bool, err error) {
	if f, ok := c.(Fetcher); ok {
		return f.Fetch(key, room)
	}
	code, ok := c.Get(key)
	if !ok {
		return false, nil
	}
	to, err := room(int64(len(code)))
	if err == nil {
		_, err = to.WriteAt(code, 0)
	}
	return true, err
}

// module is what can be compiled.
type module struct {
	namespace string // on whose behalf, "" for the node's own
	name      string // for the log
	digest    function.Digest
	read      func(context.Context) ([]byte, *sandbox.Error) // gives bytes that match the digest
}

// codeKey names the compiled code of a module: what it was made from, and by what. A
// key never meets that of another release or another processor.
func (r *Runner) codeKey(digest function.Digest) function.Digest {
	return function.DigestOf([]byte("casemate code\n" + string(digest) + "\n" + r.codeID))
}

// codeIsStale forgets the code of a module, so that it is made anew.
func (r *Runner) codeIsStale(m module) {
	r.logger.Info("compiled code is made anew", slog.String("module", m.name), slog.String("digest", string(m.digest)))
	r.code.Delete(r.codeKey(m.digest))
}

// moduleOf describes the module of a version.
func (r *Runner) moduleOf(v *function.Version) module {
	return module{
		namespace: v.Namespace, name: v.String(), digest: v.Artifact,
		read: func(ctx context.Context) ([]byte, *sandbox.Error) { return r.artifact(ctx, v) },
	}
}

// artifact reads what was deployed and verifies it.
func (r *Runner) artifact(ctx context.Context, v *function.Version) ([]byte, *sandbox.Error) {
	b, err := r.artifacts.Artifact(ctx, v.Artifact)
	if err != nil {
		return nil, &sandbox.Error{Kind: sandbox.Unavailable, Public: "the function's code could not be read; try again", Cause: err}
	}
	if got := function.DigestOf(b); got != v.Artifact {
		r.reportTampered(v, "reading it from the store", string(got))
		return nil, tampered(fmt.Errorf("want %s, got %s", v.Artifact, got))
	}
	if len(b) > wire.MaxCode {
		return nil, &sandbox.Error{Kind: sandbox.BadModule, Public: fmt.Sprintf("the function's code exceeds %d MiB", wire.MaxCode>>20)}
	}
	return b, nil
}

func tampered(cause error) *sandbox.Error {
	return &sandbox.Error{
		Kind: sandbox.Tampered, Public: "the stored code does not match its digest; deploy the function again", Cause: cause,
	}
}

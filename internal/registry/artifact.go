package registry

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"log/slog"
	"net/http"
	"time"

	"github.com/casemate-dev/casemate/api/problem"
	"github.com/casemate-dev/casemate/internal/function"
	"github.com/casemate-dev/casemate/internal/state"
)

// artifactRecord says that a blob is being or has been uploaded. It is written
// before the blob, so that no blob is ever without one and collection can find
// every blob by listing records.
type artifactRecord struct {
	Form     int             `json:"form"`
	Digest   function.Digest `json:"digest"`
	Size     int64           `json:"size"` // 0 until an upload has been verified
	Uploaded time.Time       `json:"uploaded"`
}

func artifactKey(d function.Digest) string { return artifactPrefix + d.Hex() }

func decodeArtifact(key string, b []byte) (artifactRecord, error) {
	var a artifactRecord
	if err := decode(b, &a); err != nil {
		return a, fmt.Errorf("decoding the artifact's record: %v", err)
	}
	if a.Form != storedForm || artifactKey(a.Digest) != key || a.Size < 0 || a.Size > MaxArtifact {
		return a, errors.New("the artifact's record does not fit its key")
	}
	return a, nil
}

// PutArtifact stores the code that d names, reading exactly size bytes from rd.
// Nothing becomes visible unless both are right. Errors: bad_request,
// body_too_large, digest_mismatch, and what the store answered.
func (r *Registry) PutArtifact(ctx context.Context, d function.Digest, size int64, rd io.Reader) error {
	if _, err := function.ParseDigest(string(d)); err != nil {
		return problem.New(problem.BadRequest, "the artifact's digest is malformed").At("digest").
			Fix("Send sha256: and 64 lower-case hex digits.").Because(err)
	}
	if size < 1 {
		return problem.New(problem.BadRequest, "the artifact's size is %d bytes", size).At("size").
			Fix("Send the length of the code; an artifact cannot be empty.")
	}
	if size > MaxArtifact {
		return problem.New(problem.BodyTooLarge, "the artifact has %d bytes and the most is %d", size, MaxArtifact).At("size").
			Fix("Build a smaller module: strip symbols, or optimise for size.")
	}
	// Stamped first: from here on the blob is too young to be collected. The size
	// stays what it was, since this upload may yet turn out to be something else.
	if err := r.stamp(ctx, d, 0); err != nil {
		return err
	}
	v := &verifier{from: rd, hash: sha256.New(), size: size, want: d.Hex()}
	err := r.blobs.Put(ctx, d.Hex(), v)
	if err == nil && !v.verified {
		// The store did not read to the end, or did not heed the error it met there,
		// and has made something visible that nobody verified.
		if derr := r.blobs.Delete(context.WithoutCancel(ctx), d.Hex()); derr != nil && !errors.Is(derr, state.ErrNotFound) {
			r.log.LogAttrs(ctx, slog.LevelError, "unverified artifact not removed", slog.String("artifact", string(d)), slog.Any("error", derr))
		}
		err = problem.New(problem.DigestMismatch, "the artifact was not read to its end")
	}
	switch {
	case v.refused != nil:
		return v.refused
	case err != nil:
		return fmt.Errorf("storing the artifact %s: %w", d.Short(), err)
	}
	return r.stamp(ctx, d, size)
}

// stamp records that an artifact was uploaded now and, when size is not 0, that
// it has been verified to have that size.
func (r *Registry) stamp(ctx context.Context, d function.Digest, size int64) error {
	if err := r.lock(ctx); err != nil {
		return err
	}
	defer r.unlock()
	for {
		a, revision, err := r.readArtifact(ctx, d)
		if err != nil {
			return err
		}
		if size > 0 {
			a.Size = size
		}
		err = r.writeArtifact(ctx, a, revision)
		if !errors.Is(err, state.ErrConflict) {
			return err
		}
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("recording the artifact %s: %w", d.Short(), err)
		}
	}
}

// readArtifact reads an artifact's record. One that is absent or unreadable comes
// back fresh, without a size, to be written over revision.
func (r *Registry) readArtifact(ctx context.Context, d function.Digest) (a artifactRecord, revision uint64, err error) {
	fresh := artifactRecord{Form: storedForm, Digest: d}
	se, err := r.store.Get(ctx, artifactKey(d))
	if errors.Is(err, state.ErrNotFound) {
		return fresh, 0, nil
	}
	if err != nil {
		return fresh, 0, fmt.Errorf("reading the record of artifact %s: %w", d.Short(), err)
	}
	a, err = decodeArtifact(se.Key, se.Value)
	if err != nil {
		return fresh, se.Revision, nil // uploading again repairs it
	}
	return a, se.Revision, nil
}

func (r *Registry) writeArtifact(ctx context.Context, a artifactRecord, revision uint64) error {
	a.Uploaded = r.clock().UTC()
	b, err := json.Marshal(a)
	if err != nil {
		return fmt.Errorf("encoding the record of artifact %s: %v", a.Digest.Short(), err)
	}
	if revision == 0 {
		_, err = r.store.Create(ctx, artifactKey(a.Digest), b)
	} else {
		_, err = r.store.Update(ctx, artifactKey(a.Digest), b, revision)
	}
	if err != nil {
		return fmt.Errorf("recording the artifact %s: %w", a.Digest.Short(), err)
	}
	return nil
}

// HasArtifact reports whether the code is stored whole. Saying yes to somebody
// means that they need not upload it, so an artifact near the end of its grace
// gets a new one.
func (r *Registry) HasArtifact(ctx context.Context, d function.Digest) (bool, error) {
	if _, err := function.ParseDigest(string(d)); err != nil {
		return false, problem.New(problem.BadRequest, "the artifact's digest is malformed").At("digest").Because(err)
	}
	if err := r.lock(ctx); err != nil {
		return false, err
	}
	defer r.unlock()
	size, err := r.hold(ctx, d)
	return size > 0, err
}

// hold answers the size of an artifact that is stored whole, 0 for one that is
// not, and sees to it that it is kept for a while. The caller holds the right to
// mutate.
func (r *Registry) hold(ctx context.Context, d function.Digest) (int64, error) {
	for {
		a, revision, err := r.readArtifact(ctx, d)
		if err != nil || a.Size == 0 {
			return 0, err
		}
		has, err := r.blobs.Has(ctx, d.Hex())
		if err != nil {
			return 0, fmt.Errorf("looking for the artifact %s: %w", d.Short(), err)
		}
		if !has {
			return 0, nil
		}
		if r.clock().Sub(a.Uploaded) <= r.grace/2 {
			return a.Size, nil
		}
		err = r.writeArtifact(ctx, a, revision)
		if err == nil {
			return a.Size, nil
		}
		// On a conflict somebody else touched it just now, or is collecting it: look
		// again.
		if !errors.Is(err, state.ErrConflict) || ctx.Err() != nil {
			return 0, err
		}
	}
}

// Artifact reads code as it is stored. Whoever runs it verifies it against d at
// the place where it is loaded. It fails with state.ErrNotFound, or with what the
// store answered.
func (r *Registry) Artifact(ctx context.Context, d function.Digest) ([]byte, error) {
	if _, err := function.ParseDigest(string(d)); err != nil {
		return nil, err
	}
	b, err := r.blobs.Get(ctx, d.Hex())
	if err != nil {
		return nil, fmt.Errorf("reading the artifact %s: %w", d.Short(), err)
	}
	return b, nil
}

// verifier passes bytes on and turns the end of the input into an error unless
// their number and digest are the promised ones.
type verifier struct {
	from     io.Reader
	hash     hash.Hash
	size     int64
	read     int64
	want     string // hex
	refused  error
	verified bool
}

func (v *verifier) Read(p []byte) (int, error) {
	if v.refused != nil {
		return 0, v.refused
	}
	n, err := v.from.Read(p)
	v.read += int64(n)
	_, _ = v.hash.Write(p[:n]) // never fails (hash.Hash)
	if v.read > v.size {
		v.refused = problem.New(problem.DigestMismatch, "the artifact is longer than the %d bytes announced", v.size).At("size")
		return 0, v.refused
	}
	switch {
	case err == nil:
		return n, nil
	case !errors.Is(err, io.EOF):
		v.refused = unreadable(err)
	case v.read < v.size:
		v.refused = problem.New(problem.DigestMismatch, "the artifact ended after %d of the %d bytes announced", v.read, v.size).At("size")
	default:
		if got := hex.EncodeToString(v.hash.Sum(nil)); got != v.want {
			v.refused = problem.New(problem.DigestMismatch, "the artifact's content digests to sha256:%s", got).At("digest")
			break
		}
		v.verified = true
		return n, io.EOF
	}
	return 0, v.refused
}

func unreadable(err error) error {
	if tooLarge := new(http.MaxBytesError); errors.As(err, &tooLarge) {
		return problem.New(problem.BodyTooLarge, "the artifact is larger than the %d bytes taken here", tooLarge.Limit).Because(err)
	}
	return problem.New(problem.BadRequest, "the upload broke off").Fix("Upload the artifact again.").Because(err)
}

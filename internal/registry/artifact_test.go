package registry

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/casemate-dev/casemate/api/problem"
	"github.com/casemate-dev/casemate/internal/function"
	"github.com/casemate-dev/casemate/internal/state"
)

func TestPutArtifactBelievesNothing(t *testing.T) {
	t.Parallel()
	code := []byte("the code itself")
	d := function.DigestOf(code)
	size := int64(len(code))
	other := function.DigestOf([]byte("something else!"))
	limited := func(n int64) io.Reader {
		return http.MaxBytesReader(httptest.NewRecorder(), io.NopCloser(bytes.NewReader(code)), n)
	}
	for name, c := range map[string]struct {
		digest function.Digest
		size   int64
		from   io.Reader
		code   problem.Code
	}{
		"wrong digest":            {other, size, bytes.NewReader(code), problem.DigestMismatch},
		"one byte flipped":        {d, size, strings.NewReader("the code itselg"), problem.DigestMismatch},
		"short":                   {d, size, bytes.NewReader(code[:5]), problem.DigestMismatch},
		"empty":                   {d, size, bytes.NewReader(nil), problem.DigestMismatch},
		"long":                    {d, size, io.MultiReader(bytes.NewReader(code), strings.NewReader("x")), problem.DigestMismatch},
		"endless":                 {d, size, endless{}, problem.DigestMismatch},
		"announced too small":     {d, size - 1, bytes.NewReader(code), problem.DigestMismatch},
		"announced too large":     {d, size + 1, bytes.NewReader(code), problem.DigestMismatch},
		"announced as nothing":    {d, 0, bytes.NewReader(code), problem.BadRequest},
		"announced as negative":   {d, -1, bytes.NewReader(code), problem.BadRequest},
		"over the cap":            {d, MaxArtifact + 1, bytes.NewReader(code), problem.BodyTooLarge},
		"malformed digest":        {"sha256:../../etc", size, bytes.NewReader(code), problem.BadRequest},
		"other algorithm":         {function.Digest("md5:" + d.Hex()), size, bytes.NewReader(code), problem.BadRequest},
		"broken off":              {d, size, iotest.TimeoutReader(iotest.OneByteReader(bytes.NewReader(code))), problem.BadRequest},
		"cut by the door's limit": {d, size, limited(3), problem.BodyTooLarge},
	} {
		b := newBench(t)
		err := b.PutArtifact(ctx, c.digest, c.size, c.from)
		if !problem.HasCode(err, c.code) {
			t.Errorf("%s: got %v, want %s", name, err, c.code)
		}
		if len(b.blobs.blobs) != 0 {
			t.Errorf("%s: something was stored", name)
		}
		if has, err := b.HasArtifact(ctx, d); has || err != nil {
			t.Errorf("%s: has %v, error %v", name, has, err)
		}
		// What was refused does not stand in the way of the right one.
		if err := b.PutArtifact(ctx, d, size, iotest.DataErrReader(bytes.NewReader(code))); err != nil {
			t.Errorf("%s, then the right one: %v", name, err)
		}
		got, err := b.Artifact(ctx, d)
		if has, herr := b.HasArtifact(ctx, d); !has || herr != nil || err != nil || !bytes.Equal(got, code) {
			t.Errorf("%s, then the right one: %v %v, %q %v", name, has, herr, got, err)
		}
	}
}

type endless struct{}

func (endless) Read(p []byte) (int, error) { return len(p), nil }

// An upload under the digest of code that is deployed must not be able to change
// or spoil it.
func TestBadUploadLeavesTheGoodOneAlone(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	d := b.upload("one")
	if err := b.PutArtifact(ctx, d, 5, strings.NewReader("other")); err == nil {
		t.Fatal("taken")
	}
	if got, err := b.Artifact(ctx, d); err != nil || string(got) != "one" {
		t.Errorf("%q, %v", got, err)
	}
	if _, err := b.tryDeploy("default", "", spec("hello", "one")); err != nil {
		t.Errorf("the size on record was spoilt: %v", err)
	}
}

// A store that stops early or ignores its reader's error must not leave behind
// what nobody verified.
func TestCarelessStoreKeepsNothingUnverified(t *testing.T) {
	t.Parallel()
	d := function.DigestOf([]byte("code"))
	b := newBench(t)
	b.blobs.short = 2
	wantCode(t, b.PutArtifact(ctx, d, 4, strings.NewReader("code")), problem.DigestMismatch)
	b.blobs.short, b.blobs.deaf = 0, true
	wantCode(t, b.PutArtifact(ctx, d, 4, strings.NewReader("evil")), problem.DigestMismatch)
	if len(b.blobs.blobs) != 0 {
		t.Errorf("stored %q", b.blobs.blobs)
	}
}

func TestArtifactErrorsCanBeMatched(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	if _, err := b.Artifact(ctx, function.DigestOf([]byte("x"))); !errors.Is(err, state.ErrNotFound) {
		t.Errorf("error %v", err)
	}
	if _, err := b.Artifact(ctx, "sha256:.."); err == nil {
		t.Error("malformed digest taken")
	}
	_, err := b.HasArtifact(ctx, "sha256:..")
	wantCode(t, err, problem.BadRequest)
	b.inject(1, failBefore)
	if err := b.PutArtifact(ctx, function.DigestOf([]byte("x")), 1, strings.NewReader("x")); !errors.Is(err, errInjected) {
		t.Errorf("error %v", err)
	}
}

func TestCollectKeepsWhatIsNeeded(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	has := func(code string) bool { _, ok := b.blobs.blobs[function.DigestOf([]byte(code)).Hex()]; return ok }
	collect := func() {
		t.Helper()
		if err := b.Collect(ctx); err != nil {
			t.Fatal(err)
		}
	}
	b.deploy("default", "hello", "used")
	b.deploy("default", "hello", "only history points here")
	b.deploy("default", "hello", "used")
	b.deploy("default", "gone", "shared")
	b.deploy("other", "kept", "shared")
	b.deploy("default", "gone", "alone")
	b.upload("waiting for its deployment")
	if err := b.Delete(ctx, ref("default", "gone"), "x"); err != nil {
		t.Fatal(err)
	}
	collect()
	for _, code := range []string{"used", "only history points here", "shared", "alone", "waiting for its deployment"} {
		if !has(code) {
			t.Errorf("%q was collected within its grace", code)
		}
	}
	b.clock.advance(DefaultGrace - time.Minute)
	if ok, err := b.HasArtifact(ctx, function.DigestOf([]byte("waiting for its deployment"))); !ok || err != nil {
		t.Fatal(ok, err) // who is told so relies on it
	}
	b.clock.advance(2 * time.Minute)
	b.reopen() // collects too
	for code, want := range map[string]bool{
		"used": true, "only history points here": true, "shared": true, "alone": false, "waiting for its deployment": true,
	} {
		if has(code) != want {
			t.Errorf("%q is kept: %v, want %v", code, !want, want)
		}
	}
	b.deploy("default", "late", "waiting for its deployment")
	b.clock.advance(2 * DefaultGrace)
	collect()
	if !has("waiting for its deployment") {
		t.Error("deployed code was collected")
	}
	if n := len(b.store.keys("artifact.")); n != 4 {
		t.Errorf("%d artifact records", n)
	}
}

func TestCollectRemovesVersionsOfAnUnfinishedDeployment(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	v1 := b.deploy("default", "hello", "one")
	b.upload("two")
	s := spec("hello", "two")
	p, err := b.Plan(ctx, "default", "", []Spec{s})
	if err != nil {
		t.Fatal(err)
	}
	b.inject(1, crashBefore)
	b.faults.only = "update"
	if _, err := b.Apply(ctx, p, []Spec{s}, "x"); err == nil {
		t.Fatal("nothing failed")
	}
	b.reopen()
	if n := len(b.store.keys("version.")); n != 2 {
		t.Fatalf("%d versions stored", n)
	}
	// It is stored and does not exist: nothing lists it.
	_, _, err = b.Resolve(ref("default", "hello"), p.Changes[0].Version.Hex(), noRoll)
	wantCode(t, err, problem.NotFound)
	b.clock.advance(2 * DefaultGrace)
	b.reopen()
	if n := len(b.store.keys("version.")); n != 1 {
		t.Errorf("%d versions stored", n)
	}
	b.wantLive(ref("default", "hello"), v1)
}

// A failed collection must not keep a node from starting.
func TestOpenSurvivesAFailedCollection(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	v := b.deploy("default", "hello", "one")
	b.inject(3, crashBefore) // the two listings of loading succeed
	r, err := Open(ctx, b.config())
	if err != nil {
		t.Fatal(err)
	}
	b.Registry = r
	b.wantLive(ref("default", "hello"), v)
	b.inject(1, crashBefore)
	if _, err := Open(ctx, b.config()); !errors.Is(err, errInjected) {
		t.Errorf("opened on a store that does not answer: %v", err)
	}
}

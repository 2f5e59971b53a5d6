package gateway

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/casemate-dev/casemate/api/problem"
	"github.com/casemate-dev/casemate/internal/function"
	"github.com/casemate-dev/casemate/internal/identity"
	"github.com/casemate-dev/casemate/internal/state"
)

// keyStore keeps key records in memory.
type keyStore struct {
	mu      sync.Mutex
	entries map[string]state.Entry
	writes  uint64
}

func (s *keyStore) Get(_ context.Context, key string) (state.Entry, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e, ok := s.entries[key]
	if !ok {
		return e, state.ErrNotFound
	}
	return e, nil
}

func (s *keyStore) Create(ctx context.Context, key string, value []byte) (uint64, error) {
	return s.Update(ctx, key, value, 0)
}

func (s *keyStore) Update(_ context.Context, key string, value []byte, revision uint64) (uint64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.entries[key].Revision != revision {
		return 0, state.ErrConflict
	}
	s.writes++
	s.entries[key] = state.Entry{Key: key, Value: slices.Clone(value), Revision: s.writes}
	return s.writes, nil
}

func (s *keyStore) List(context.Context, string) ([]state.Entry, error) { return nil, nil }

// plainSealer seals nothing: what is tested here is the door.
type plainSealer struct{}

func (plainSealer) Seal(context string, plain []byte) ([]byte, error) {
	return append([]byte(context+"|"), plain...), nil
}

func (plainSealer) Open(context string, sealed []byte) ([]byte, error) {
	return []byte(strings.TrimPrefix(string(sealed), context+"|")), nil
}

// deployed is what the fake registry holds.
type deployed map[function.Ref][]*function.Version

func versionOf(ref function.Ref, n int) *function.Version {
	return &function.Version{
		Ref: ref, ID: function.DigestOf([]byte(fmt.Sprint(ref, n))), Artifact: function.DigestOf([]byte{byte(n)}), Size: 1234,
		Config: function.Config{
			Runtime: function.RuntimeNodeJS, Handler: "index.handler", Environment: map[string]string{"PRIVATE": planted},
			Limits: function.Limits{Memory: 256 << 20, Timeout: 2500 * time.Millisecond},
		},
		Created: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC),
	}
}

func (d deployed) Resolve(ref function.Ref, qualifier string, _ func(int) int) (*function.Version, string, error) {
	vs := d[ref]
	switch {
	case len(vs) == 0:
		return nil, "", problem.New(problem.NotFound, "there is no function %s", ref)
	case qualifier == "" || qualifier == "live":
		return vs[0], "live", nil
	}
	for _, v := range vs {
		if len(qualifier) >= 6 && strings.HasPrefix(v.ID.Hex(), qualifier) {
			return v, "", nil
		}
	}
	return nil, "", problem.New(problem.NotFound, "the function %s has no alias or version %s", ref, qualifier)
}

func (d deployed) Versions(ref function.Ref) ([]*function.Version, error) {
	if len(d[ref]) == 0 {
		return nil, problem.New(problem.NotFound, "there is no function %s", ref)
	}
	return d[ref], nil
}

func (d deployed) Refs() []function.Ref {
	var refs []function.Ref
	for ref := range d {
		refs = append(refs, ref)
	}
	return refs
}

func (d deployed) Alias(ref function.Ref, name string) ([]Share, error) {
	if len(d[ref]) < 2 || name != "live" {
		return nil, problem.New(problem.NotFound, "the function %s has no alias %s", ref, name)
	}
	return []Share{{d[ref][0].ID, 90}, {d[ref][1].ID, 10}}, nil
}

// accessKey is one that the world knows.
type accessKey struct{ id, secret, keyID string }

// lambdaWorld is a world that serves the Lambda API.
type lambdaWorld struct {
	*world
	identities *identity.Keys
	functions  deployed
	full       accessKey // may invoke and read all
	hello      accessKey // may invoke and read default/hello
	looking    accessKey // may read all
}

func newLambdaWorld(t testing.TB) *lambdaWorld {
	t.Helper()
	keys, err := identity.OpenKeys(t.Context(), &keyStore{entries: map[string]state.Entry{}}, plainSealer{}, time.Now, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	w := &lambdaWorld{world: newWorld(t, Limits{}), identities: keys, functions: deployed{}}
	for ns, names := range map[string][]string{"default": {"hello", "orders"}, "shop": {"cart"}} {
		for _, name := range names {
			ref := function.Ref{Namespace: ns, Name: name}
			w.functions[ref] = []*function.Version{versionOf(ref, 3), versionOf(ref, 2), versionOf(ref, 1)}
		}
	}
	w.lambda = &Lambda{Keys: keys, Functions: w.functions}
	w.full = w.newKey(t, "invoke:*/*", "read:*/*")
	w.hello = w.newKey(t, "invoke:default/hello", "read:default/hello")
	w.looking = w.newKey(t, "read:*/*")
	w.serve(t)
	return w
}

func (w *lambdaWorld) newKey(t testing.TB, scopes ...string) accessKey {
	t.Helper()
	n := identity.NewKey{Kind: identity.KindAWS, Name: "test"}
	for _, s := range scopes {
		scope, err := identity.ParseScope(s)
		if err != nil {
			t.Fatal(err)
		}
		n.Scopes = append(n.Scopes, scope)
	}
	secret, key, err := w.identities.Create(t.Context(), n)
	if err != nil {
		t.Fatal(err)
	}
	return accessKey{key.AccessKeyID(), secret, key.ID}
}

// signed makes a request that is signed as AWS documents it, apart from what the
// product does. Its path must need no encoding but that of a colon.
func (w *lambdaWorld) signed(t testing.TB, key accessKey, method, target, body string, fields ...string) *http.Request {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, "https://"+w.addr+target, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	at := time.Now().UTC().Format("20060102T150405Z")
	r.Header.Set("X-Amz-Date", at)
	for _, f := range fields {
		name, value, _ := strings.Cut(f, ": ")
		r.Header.Add(name, value)
	}
	names := []string{"host"}
	for name := range r.Header {
		names = append(names, strings.ToLower(name))
	}
	slices.Sort(names)
	path, query, _ := strings.Cut(target, "?")
	canonical := method + "\n" + strings.NewReplacer("%", "%25", ":", "%3A", "$", "%24").Replace(path) + "\n" + query + "\n"
	for _, name := range names {
		value := strings.Join(r.Header[http.CanonicalHeaderKey(name)], ",")
		if name == "host" {
			value = w.addr
		}
		canonical += name + ":" + value + "\n"
	}
	hash := func(s string) string { sum := sha256.Sum256([]byte(s)); return hex.EncodeToString(sum[:]) }
	mac := func(key []byte, s string) []byte {
		h := hmac.New(sha256.New, key)
		_, _ = io.WriteString(h, s)
		return h.Sum(nil)
	}
	canonical += "\n" + strings.Join(names, ";") + "\n" + hash(body)
	scope := at[:8] + "/us-east-1/lambda/aws4_request"
	derived := []byte("AWS4" + key.secret)
	for part := range strings.SplitSeq(scope, "/") {
		derived = mac(derived, part)
	}
	r.Header.Set("Authorization", fmt.Sprintf("AWS4-HMAC-SHA256 Credential=%s/%s, SignedHeaders=%s, Signature=%x",
		key.id, scope, strings.Join(names, ";"), mac(derived, "AWS4-HMAC-SHA256\n"+at+"\n"+scope+"\n"+hash(canonical))))
	return r
}

// ask signs and sends.
func (w *lambdaWorld) ask(t testing.TB, key accessKey, method, target, body string, fields ...string) answer {
	t.Helper()
	return w.send(t, w.signed(t, key, method, target, body, fields...))
}

func (w *lambdaWorld) send(t testing.TB, r *http.Request) answer {
	t.Helper()
	resp, err := w.client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	return collect(t, resp)
}

// wantAWS checks an error in the form of AWS.
func (a answer) wantAWS(t testing.TB, status int, name string) {
	t.Helper()
	if a.status != status || a.header.Get("X-Amzn-ErrorType") != name || a.header.Get("X-Amzn-RequestId") == "" ||
		a.header.Get("Content-Type") != "application/json" || !strings.Contains(a.body, `"Message":"`) {
		t.Errorf("want %d %s, got %d\n%s", status, name, a.status, a.text)
	}
	if strings.Contains(a.text, "planted") {
		t.Errorf("leaks: %s", a.text)
	}
}

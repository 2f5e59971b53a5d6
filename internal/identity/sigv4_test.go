package identity

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/casemate-dev/casemate/internal/function"
)

// oneBody stands for any.
const oneBody = `{"n":1}`

// signer signs as a client of AWS would, with what a test bends.
type signer struct {
	accessKey, secret string
	algorithm         string
	at                time.Time
	day               string
	region, service   string
	signed            []string
	method, target    string
	host              string
	header            http.Header
	body              string
}

func newSigner(b *keyBench, secret string, key *Key) *signer {
	now := b.clock.Now()
	return &signer{
		accessKey: key.AccessKeyID(), secret: secret, algorithm: sigAlgorithm,
		at: now, day: now.Format(sigDateForm), region: "eu-central-1", service: sigService, signed: []string{"host", "x-amz-date"},
		method: "POST", target: "/2015-03-31/functions/hello/invocations?Qualifier=live", host: "node.example:8443",
		header: http.Header{}, body: oneBody,
	}
}

// claim has the request name the digest of its body.
func (s *signer) claim() {
	s.header.Set("X-Amz-Content-Sha256", fmt.Sprintf("%x", sha256.Sum256([]byte(s.body))))
	s.signed = []string{"host", "x-amz-content-sha256", "x-amz-date"}
}

// request gives what is sent.
func (s *signer) request(t testing.TB) *SignedRequest {
	t.Helper()
	h := s.header.Clone()
	h.Set("X-Amz-Date", s.at.UTC().Format(sigTimeForm))
	r := &SignedRequest{Method: s.method, Target: s.target, Host: s.host, Header: h}
	head, err := canonicalHead(r, s.signed)
	if err != nil {
		t.Fatal(err)
	}
	sig := &Signature{
		head: head, day: s.day, region: s.region, service: s.service, date: h.Get("X-Amz-Date"),
		scope: s.day + "/" + s.region + "/" + s.service + "/" + sigTerminator,
	}
	sum := sha256.Sum256([]byte(s.body))
	h.Set("Authorization", fmt.Sprintf("%s Credential=%s/%s, SignedHeaders=%s, Signature=%x", s.algorithm, s.accessKey, sig.scope,
		strings.Join(s.signed, ";"), sig.sign([]byte(s.secret), hex.EncodeToString(sum[:]))))
	return r
}

// check runs both halves.
func (b *keyBench) check(r *SignedRequest, body string) (Principal, error) {
	s, err := b.Signed(r)
	if err != nil {
		return Principal{}, err
	}
	return s.Verify([]byte(body))
}

func (b *keyBench) accessKey() (string, Key) {
	b.t.Helper()
	secret, key, err := b.Create(context.Background(), NewKey{Kind: KindAWS, Name: "test", Scopes: []Scope{{Invoke, "*", "*"}}, Creator: "node"})
	if err != nil {
		b.t.Fatal(err)
	}
	return secret, key
}

func TestAccessKeyHasTheFormOfAWSAndIsOurs(t *testing.T) {
	t.Parallel()
	b := newKeyBench(t)
	secret, key := b.accessKey()
	id := key.AccessKeyID()
	if len(id) != 20 || !strings.HasPrefix(id, "CASE") || id != strings.ToUpper(id) || len(secret) != 40 || !strings.HasPrefix(secret, "cm_awssigv4_") {
		t.Errorf("id %q, secret of %d characters", id, len(secret))
	}
	if accessKeyOwner(id) != key.ID || accessKeyOwner(strings.ToLower(id)) != "" || accessKeyOwner("AKIA"+id[4:]) != "" || accessKeyOwner("CASE") != "" {
		t.Error("the id is read in more than one way")
	}
	_, bearer := b.create("admin")
	if bearer.AccessKeyID() != "" || bearer.Kind != KindBearer || key.Kind != KindAWS {
		t.Error("kinds are confused")
	}
	for _, stored := range b.store.entries {
		if bytes.Contains(stored.Value, []byte(secret)) || bytes.Contains(stored.Value, []byte(secret[len(awsSecretPrefix):])) {
			t.Error("the secret is stored in the clear")
		}
	}
	for _, shown := range []string{fmt.Sprintf("%+v", b.Keys), fmt.Sprintf("%#v", *(*b.index.Load())[key.ID]), fmt.Sprintf("%+v", key)} {
		if strings.Contains(shown, secret) || strings.Contains(shown, "sealed") {
			t.Errorf("shown: %s", shown)
		}
	}
	for _, scope := range []Scope{{FetchData, "*", "*"}, {StoreData, "shop", "photos"}, {Read, "*", "*"}} {
		if _, _, err := b.Create(context.Background(), NewKey{Kind: KindAWS, Scopes: []Scope{scope}}); err != nil {
			t.Errorf("%s: %v", scope, err)
		}
	}
	for _, scope := range []Scope{{Deploy, "*", "*"}, {Publish, "*", "*"}, {Connect, "*", "*"}, {Admin, "*", "*"}} {
		var fe *FieldError
		if _, _, err := b.Create(context.Background(), NewKey{Kind: KindAWS, Scopes: []Scope{scope}}); !errors.As(err, &fe) || fe.Field != "scopes" {
			t.Errorf("%s: %v", scope, err)
		}
	}
}

func TestAccessKeySignsAfterARestartAndNotAfterItsEnd(t *testing.T) {
	t.Parallel()
	b := newKeyBench(t)
	secret, key := b.accessKey()
	for range 2 {
		p, err := b.check(newSigner(b, secret, &key).request(t), oneBody)
		if err != nil || p.String() != "key:"+key.ID || len(p.Scopes) != 1 {
			t.Fatalf("%v, %v", p, err)
		}
		b.reopen()
	}
	if err := b.Revoke(context.Background(), key.ID, "x"); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if _, err := b.Signed(newSigner(b, secret, &key).request(t)); !errors.Is(err, ErrRevoked) {
			t.Errorf("revoked: %v", err)
		}
		b.reopen()
	}
	secret, key, err := b.Create(context.Background(), NewKey{Kind: KindAWS, Scopes: []Scope{{Invoke, "*", "*"}}, Expires: b.clock.Now().Add(time.Minute)})
	if err != nil {
		t.Fatal(err)
	}
	b.clock.advance(time.Minute)
	if _, err := b.Signed(newSigner(b, secret, &key).request(t)); !errors.Is(err, ErrExpired) {
		t.Errorf("expired: %v", err)
	}
}

// A secret that is sent, and a bearer key that signs, are worth nothing.
func TestKindsOfKeysAreNotExchanged(t *testing.T) {
	t.Parallel()
	b := newKeyBench(t)
	secret, _ := b.accessKey()
	b.refused(secret, ErrInvalid)
	bearer, key := b.create("admin")
	s := newSigner(b, bearer, &key)
	s.accessKey = accessKeyPrefix + strings.ToUpper(key.ID)
	if _, err := b.check(s.request(t), oneBody); !errors.Is(err, ErrInvalid) {
		t.Errorf("a bearer key signed: %v", err)
	}
	// What the stand-in for unknown keys signs with, should it become known.
	known, err := b.secretOf(b.nobody)
	if err != nil {
		t.Fatal(err)
	}
	s.secret, s.accessKey = string(known), "CASEAAAAAAAAAAAAAAAA"
	s.claim()
	if _, err := b.check(s.request(t), oneBody); !errors.Is(err, ErrInvalid) {
		t.Errorf("nobody signed: %v", err)
	}
}

// The kind counts, not what else a record holds.
func TestKindOfAKeyDecidesHowItIsPresented(t *testing.T) {
	t.Parallel()
	b := newKeyBench(t)
	secret, key := b.accessKey()
	bearer, other := b.create("admin")
	index := *b.index.Load()
	signing, sent := *index[key.ID], *index[other.ID]
	signing.key.Kind, sent.key.Kind = KindBearer, KindAWS
	b.put(&signing)
	b.put(&sent)
	b.refused(bearer, ErrInvalid)
	if _, err := b.check(newSigner(b, secret, &key).request(t), oneBody); !errors.Is(err, ErrInvalid) {
		t.Errorf("got %v", err)
	}
}

func TestSignatureEndsWithItsKey(t *testing.T) {
	t.Parallel()
	for _, claim := range []bool{false, true} {
		b := newKeyBench(t)
		secret, key, err := b.Create(context.Background(), NewKey{Kind: KindAWS, Scopes: []Scope{{Invoke, "*", "*"}}, Expires: b.clock.Now().Add(time.Minute)})
		if err != nil {
			t.Fatal(err)
		}
		s := newSigner(b, secret, &key)
		if claim {
			s.claim()
		}
		sig, err := b.Signed(s.request(t))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := sig.Verify([]byte(oneBody + "x")); !errors.Is(err, ErrInvalid) {
			t.Errorf("another body: %v", err)
		}
		b.clock.advance(time.Minute)
		if _, err := sig.Verify([]byte(oneBody)); !errors.Is(err, ErrExpired) {
			t.Errorf("expired meanwhile: %v", err)
		}
	}
}

func TestSealedSecretOpensForItsOwnKeyOnly(t *testing.T) {
	t.Parallel()
	b := newKeyBench(t)
	_, one := b.accessKey()
	secret, two := b.accessKey()
	// Somebody who can write the store gives key one the secret of key two.
	var from, to keyRecord
	if json.Unmarshal(b.store.entries["key."+two.ID].Value, &from) != nil || json.Unmarshal(b.store.entries["key."+one.ID].Value, &to) != nil {
		t.Fatal("records do not decode")
	}
	to.Sealed = from.Sealed
	e := b.store.entries["key."+one.ID]
	e.Value, _ = json.Marshal(to)
	b.store.entries["key."+one.ID] = e
	b.reopen()
	if fs := b.Faults(); len(fs) != 1 || fs[0].Key != "key."+one.ID {
		t.Errorf("faults %v", fs)
	}
	if _, err := b.check(newSigner(b, secret, &one).request(t), oneBody); !errors.Is(err, ErrInvalid) {
		t.Errorf("got %v", err)
	}
	if _, err := b.check(newSigner(b, secret, &two).request(t), oneBody); err != nil {
		t.Errorf("the other key: %v", err)
	}
}

// countingSealer counts what is unsealed.
type countingSealer struct {
	Sealer
	opened []string
}

func (c *countingSealer) Open(context string, sealed []byte) ([]byte, error) {
	c.opened = append(c.opened, context)
	return c.Sealer.Open(context, sealed)
}

func TestUnknownAccessKeyCostsTheWorkOfAKnownOne(t *testing.T) {
	t.Parallel()
	b := newKeyBench(t)
	counting := &countingSealer{Sealer: b.seal}
	b.seal = counting
	b.reopen()
	secret, key := b.accessKey()
	wrong := newSigner(b, secret, &key)
	wrong.secret = "guess"
	unknown := newSigner(b, secret, &key)
	unknown.accessKey = "CASEAAAAAAAAAAAAAAAA"
	counting.opened = nil
	_, errWrong := b.check(wrong.request(t), oneBody)
	known := len(counting.opened)
	_, errUnknown := b.check(unknown.request(t), oneBody)
	if !errors.Is(errWrong, ErrInvalid) || !errors.Is(errUnknown, ErrInvalid) || errWrong.Error() != errUnknown.Error() {
		t.Errorf("told apart: %v, %v", errWrong, errUnknown)
	}
	if known != 1 || len(counting.opened) != 2 {
		t.Errorf("unsealed %q", counting.opened)
	}
}

// TestSigningKeyIsThatOfTheSecret derives it a second time, from the specification: a chain
// of HMACs over day, region, service and aws4_request.
func TestSigningKeyIsThatOfTheSecret(t *testing.T) {
	t.Parallel()
	b := newKeyBench(t)
	secret, key := b.accessKey()
	derive := func(secret string, parts ...string) []byte {
		k := []byte("AWS4" + secret)
		for _, p := range append(parts, "aws4_request") {
			h := hmac.New(sha256.New, k)
			h.Write([]byte(p))
			k = h.Sum(nil)
		}
		return k
	}
	for _, parts := range [][]string{{"20260301", "us-east-1", "s3"}, {"20260302", "eu-central-1", "s3"}, {"20260301", "us-east-1", "lambda"}} {
		got, p, ok := b.SigningKey(key.AccessKeyID(), parts[0], parts[1], parts[2])
		if !ok || p.String() != "key:"+key.ID || !bytes.Equal(got, derive(secret, parts...)) {
			t.Errorf("%v: %v %v, another key", parts, p, ok)
		}
	}
}

// TestSigningKeyOfNobody: of a key that is unknown, of another kind or has ended, whoever
// asks gets a key that signs nothing, the same work was done, and nobody is named.
func TestSigningKeyOfNobody(t *testing.T) {
	t.Parallel()
	b := newKeyBench(t)
	counting := &countingSealer{Sealer: b.seal}
	b.seal = counting
	b.reopen()
	ask := func(id string) (string, Principal, bool) {
		counting.opened = nil
		k, p, ok := b.SigningKey(id, "20260301", "us-east-1", "s3")
		if len(counting.opened) != 1 || len(k) != sha256.Size {
			t.Errorf("%s: unsealed %q, a key of %d bytes", id, counting.opened, len(k))
		}
		return string(k), p, ok
	}
	_, good := b.accessKey()
	_, revoked := b.accessKey()
	_, expired, err := b.Create(context.Background(), NewKey{Kind: KindAWS, Scopes: []Scope{{StoreData, "*", "*"}}, Expires: b.clock.Now().Add(time.Minute)})
	if err != nil {
		t.Fatal(err)
	}
	before := map[string]string{}
	for _, k := range []Key{good, revoked, expired} {
		text, p, ok := ask(k.AccessKeyID())
		if !ok || p.ID != k.ID {
			t.Fatalf("%s: %v %v", k.ID, p, ok)
		}
		before[k.AccessKeyID()] = text
	}
	if err := b.Revoke(context.Background(), revoked.ID, "x"); err != nil {
		t.Fatal(err)
	}
	b.clock.advance(time.Minute)
	_, bearer := b.create("admin")
	nobody, _, _ := ask("CASEAAAAAAAAAAAAAAAA")
	for what, id := range map[string]string{
		"revoked": revoked.AccessKeyID(), "expired": expired.AccessKeyID(), "bearer": accessKeyPrefix + strings.ToUpper(bearer.ID),
		"unknown": "CASEBBBBBBBBBBBBBBBB", "empty": "", "Amazon's": "AKIAIOSFODNN7EXAMPLE", "lower case": strings.ToLower(good.AccessKeyID()),
	} {
		key, p, ok := ask(id)
		if ok || p.Kind != "" || p.Scopes != nil || p.May(Read, function.Ref{Namespace: "a", Name: "b"}) {
			t.Errorf("%s: %v %v", what, p, ok)
		}
		if key != nobody || key == before[id] {
			t.Errorf("%s: a key of its own", what)
		}
	}
	if key, _, ok := ask(good.AccessKeyID()); !ok || key != before[good.AccessKeyID()] || key == nobody {
		t.Error("the good key is not what it was")
	}
	// A secret that does not open, which nothing but a defect could bring about.
	broken := *(*b.index.Load())[good.ID]
	broken.sealed = []byte("garbage")
	b.put(&broken)
	if key, p, ok := ask(good.AccessKeyID()); ok || p.Kind != "" || key == before[good.AccessKeyID()] {
		t.Error("a key whose secret is broken is somebody's")
	}
	if again, _, _ := ask("CASEAAAAAAAAAAAAAAAA"); again != nobody {
		t.Error("nobody's key changed")
	}
}

// Everything that may be wrong with a signature that its key's holder did not make
// for just this request. Each case bends one thing.
func TestForgedSignatures(t *testing.T) {
	t.Parallel()
	type attack struct {
		name string
		sign func(s *signer)        // before it is signed
		sent func(r *SignedRequest) // after
		body string
		want SignatureFault // ErrInvalid when empty
	}
	field := func(name, value string) func(*SignedRequest) {
		return func(r *SignedRequest) { r.Header.Set(name, value) }
	}
	inAuth := func(old, to string) func(*SignedRequest) {
		return func(r *SignedRequest) {
			v := r.Header.Get("Authorization")
			if !strings.Contains(v, old) {
				panic("the header does not hold " + old)
			}
			r.Header.Set("Authorization", strings.Replace(v, old, to, 1))
		}
	}
	attacks := []attack{
		{name: "wrong secret", sign: func(s *signer) { s.secret = s.secret[:39] + "x" }},
		{name: "empty secret", sign: func(s *signer) { s.secret = "" }},
		{name: "unknown key", sign: func(s *signer) { s.accessKey = "CASEAAAAAAAAAAAAAAAA" }},
		{name: "no key", sign: func(s *signer) { s.accessKey = "" }},
		{name: "Amazon's key", sign: func(s *signer) { s.accessKey = "AKIAIOSFODNN7EXAMPLE" }},
		{name: "key in lower case", sign: func(s *signer) { s.accessKey = strings.ToLower(s.accessKey) }},
		{name: "body swapped", body: `{"n":2}`},
		{name: "body added to", body: oneBody + " "},
		{name: "body removed", body: "-"},
		{name: "method swapped", sent: func(r *SignedRequest) { r.Method = "GET" }},
		{name: "path swapped", sent: func(r *SignedRequest) { r.Target = strings.Replace(r.Target, "hello", "other", 1) }},
		{name: "path spelled otherwise", sent: func(r *SignedRequest) { r.Target = strings.Replace(r.Target, "hello", "hell%6f", 1) }},
		{name: "path with an escape in lower case", sent: func(r *SignedRequest) { r.Target = strings.Replace(r.Target, "hello", "hell%6F", 1) }},
		{name: "qualifier swapped", sent: func(r *SignedRequest) { r.Target = strings.Replace(r.Target, "=live", "=beta", 1) }},
		{name: "qualifier added", sent: func(r *SignedRequest) { r.Target += "&Qualifier=beta" }},
		{name: "query removed", sent: func(r *SignedRequest) { r.Target, _, _ = strings.Cut(r.Target, "?") }},
		{name: "query moved into the path", sent: func(r *SignedRequest) { r.Target = strings.Replace(r.Target, "?", "%3F", 1) }},
		{name: "host swapped", sent: func(r *SignedRequest) { r.Host = "other.example" }},
		{name: "date swapped", sent: field("X-Amz-Date", "20260301T120001Z")},
		{name: "region swapped", sent: inAuth("eu-central-1", "us-east-1")},
		{name: "signature of zeros", sent: func(r *SignedRequest) {
			v := r.Header.Get("Authorization")
			r.Header.Set("Authorization", v[:len(v)-64]+strings.Repeat("0", 64))
		}},
		{name: "signed header changed", sign: func(s *signer) {
			s.header.Set("X-Amz-Invocation-Type", "DryRun")
			s.signed = append(s.signed, "x-amz-invocation-type")
		}, sent: field("X-Amz-Invocation-Type", "RequestResponse")},
		{name: "signed header doubled", sign: func(s *signer) {
			s.header.Set("Content-Type", "a")
			s.signed = append([]string{"content-type"}, s.signed...)
		}, sent: func(r *SignedRequest) { r.Header.Add("Content-Type", "b") }},
		{name: "claimed digest of another body", sign: func(s *signer) {
			s.body = "other"
			s.claim()
		}},
		{name: "claimed digest unlike the signed one", sign: func(s *signer) {
			s.header.Set("X-Amz-Content-Sha256", fmt.Sprintf("%x", sha256.Sum256([]byte("other"))))
			s.signed = []string{"host", "x-amz-content-sha256", "x-amz-date"}
		}},

		{name: "not signed", sent: func(r *SignedRequest) { r.Header.Del("Authorization") }, want: SignatureMissing},
		{name: "bearer key", sent: field("Authorization", "Bearer cm_x"), want: SignatureMissing},
		{name: "signed header added", sent: field("X-Amz-Log-Type", "Tail"), want: SignatureMalformed},
		{name: "signed header removed", sign: func(s *signer) {
			s.header.Set("Content-Type", "a")
			s.signed = append([]string{"content-type"}, s.signed...)
		}, sent: func(r *SignedRequest) { r.Header.Del("Content-Type") }, want: SignatureMalformed},
		{name: "amz header doubled", sign: func(s *signer) {
			s.header["X-Amz-Invocation-Type"] = []string{"DryRun", "RequestResponse"}
			s.signed = append(s.signed, "x-amz-invocation-type")
		}, want: SignatureMalformed},
		{name: "host not signed", sign: func(s *signer) { s.signed = []string{"x-amz-date"} }, want: SignatureMalformed},
		{name: "date not signed", sign: func(s *signer) { s.signed = []string{"host"} }, want: SignatureMalformed},
		{name: "no date", sent: func(r *SignedRequest) { r.Header.Del("X-Amz-Date") }, want: SignatureMalformed},
		{name: "two dates", sent: func(r *SignedRequest) { r.Header.Add("X-Amz-Date", "20260301T120000Z") }, want: SignatureMalformed},
		{name: "malformed date", sent: field("X-Amz-Date", "2026-03-01T12:00:00Z"), want: SignatureMalformed},
		{name: "old", sign: func(s *signer) { s.at = s.at.Add(-SignatureWindow - time.Second) }, want: SignatureTime},
		{name: "from the future", sign: func(s *signer) { s.at = s.at.Add(SignatureWindow + time.Second) }, want: SignatureTime},
		{name: "scope of another day", sign: func(s *signer) { s.day = "20260228" }, want: SignatureScope},
		{name: "scope of another service", sign: func(s *signer) { s.service = "s3" }, want: SignatureScope},
		{name: "two Authorization headers", sent: func(r *SignedRequest) { r.Header.Add("Authorization", r.Header.Get("Authorization")) }, want: SignatureMalformed},
		{name: "version 4A", sign: func(s *signer) { s.algorithm = "AWS4-ECDSA-P256-SHA256" }, want: SignatureMalformed},
		{name: "another digest", sign: func(s *signer) { s.algorithm = "AWS4-HMAC-SHA1" }, want: SignatureMalformed},
		{name: "version 2", sign: func(s *signer) { s.algorithm = "AWS" }, want: SignatureMissing},
		{name: "algorithm in lower case", sign: func(s *signer) { s.algorithm = "aws4-hmac-sha256" }, want: SignatureMissing},
		{name: "session token", sign: func(s *signer) {
			s.header.Set("X-Amz-Security-Token", "x")
			s.signed = append(s.signed, "x-amz-security-token")
		}, want: SignatureMalformed},
		{name: "unsigned body", sign: func(s *signer) {
			s.header.Set("X-Amz-Content-Sha256", "UNSIGNED-PAYLOAD")
			s.signed = []string{"host", "x-amz-content-sha256", "x-amz-date"}
		}, want: SignatureMalformed},
		{name: "body in chunks", sign: func(s *signer) {
			s.header.Set("X-Amz-Content-Sha256", "STREAMING-AWS4-HMAC-SHA256-PAYLOAD")
			s.signed = []string{"host", "x-amz-content-sha256", "x-amz-date"}
		}, want: SignatureMalformed},
		{name: "signed URL", sign: func(s *signer) {
			s.target = "/?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Signature=00"
		}, want: SignatureMalformed},
		{name: "signed URL in lower case", sign: func(s *signer) { s.target = "/?a=b&x-amz-expires=60" }, want: SignatureMalformed},
		{name: "plus in place of an escaped one", sign: func(s *signer) { s.target += "&a=b%2Bc" }, sent: func(r *SignedRequest) { r.Target = strings.Replace(r.Target, "%2B", "+", 1) }},
		{name: "semicolon in the query", sent: func(r *SignedRequest) { r.Target += ";Qualifier=x" }, want: SignatureMalformed},
		{name: "empty parameter", sent: func(r *SignedRequest) { r.Target += "&" }, want: SignatureMalformed},
		{name: "broken escape", sent: func(r *SignedRequest) { r.Target += "&a=%zz" }, want: SignatureMalformed},
		{name: "signature twice", sent: inAuth("Signature=", "Signature=00, Signature="), want: SignatureMalformed},
		{name: "another part", sent: inAuth("Signature=", "Realm=x, Signature="), want: SignatureMalformed},
		{name: "no signed headers", sent: inAuth("SignedHeaders=host;x-amz-date, ", ""), want: SignatureMalformed},
		{name: "signed headers unsorted", sent: inAuth("host;x-amz-date", "x-amz-date;host"), want: SignatureMalformed},
		{name: "signed header twice", sent: inAuth("host;x-amz-date", "host;host;x-amz-date"), want: SignatureMalformed},
		{name: "signed header in upper case", sent: inAuth("host;", "Host;"), want: SignatureMalformed},
		{name: "signature cut", sent: func(r *SignedRequest) {
			r.Header.Set("Authorization", r.Header.Get("Authorization")[:len(r.Header.Get("Authorization"))-2])
		}, want: SignatureMalformed},
		{name: "signature in upper case", sent: func(r *SignedRequest) {
			v := r.Header.Get("Authorization")
			r.Header.Set("Authorization", v[:len(v)-64]+strings.Repeat("AB", 32))
		}, want: SignatureMalformed},
		{name: "scope too long", sent: inAuth("/aws4_request", "/x/aws4_request"), want: SignatureMalformed},
		{name: "scope without its end", sent: inAuth("/aws4_request", "/aws4"), want: SignatureMalformed},
		{name: "region with a line break", sent: inAuth("eu-central-1", "eu\n"), want: SignatureMalformed},
		{name: "endless header", sent: inAuth("Signature=", strings.Repeat(" ", maxAuthorization)+"Signature="), want: SignatureMalformed},
	}
	b := newKeyBench(t)
	secret, key := b.accessKey()
	for _, a := range attacks {
		s := newSigner(b, secret, &key)
		if a.sign != nil {
			a.sign(s)
		}
		r := s.request(t)
		if a.sent != nil {
			a.sent(r)
		}
		body := oneBody
		if a.body != "" {
			body = strings.TrimPrefix(a.body, "-")
		}
		p, err := b.check(r, body)
		var se *SignatureError
		switch {
		case err == nil || p.Kind != "":
			t.Errorf("%s: accepted as %v", a.name, p)
		case a.want == "" && !errors.Is(err, ErrInvalid):
			t.Errorf("%s: %v", a.name, err)
		case a.want != "" && (!errors.As(err, &se) || se.Fault != a.want):
			t.Errorf("%s: %v, want %s", a.name, err, a.want)
		}
	}
	// What must still be accepted, or the cases above would prove nothing.
	for name, sign := range map[string]func(*signer){
		"as it is":         func(*signer) {},
		"four minutes old": func(s *signer) { s.at = s.at.Add(-4 * time.Minute) },
		"another region":   func(s *signer) { s.region = "us-gov-west-1" },
		"no query":         func(s *signer) { s.target = "/2015-03-31/functions/" },
		"claimed digest":   (*signer).claim,
	} {
		s := newSigner(b, secret, &key)
		sign(s)
		if _, err := b.check(s.request(t), oneBody); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// What a signed call costs over the parsing of its HTTP.
func BenchmarkSignature(bench *testing.B) {
	b := newKeyBench(bench)
	secret, key := b.accessKey()
	r := newSigner(b, secret, &key).request(bench)
	body := []byte(oneBody)
	bench.ReportAllocs()
	for bench.Loop() {
		s, err := b.Signed(r)
		if err != nil {
			bench.Fatal(err)
		}
		if _, err := s.Verify(body); err != nil {
			bench.Fatal(err)
		}
	}
}

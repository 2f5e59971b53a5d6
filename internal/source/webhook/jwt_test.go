package webhook

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"strings"
	"testing"
	"time"

	jose "github.com/go-jose/go-jose/v4"
)

const jwtSettings = `{"path":"/in","provider":"jwt","jwt":{"issuer":"https://bank","audience":["us"],"algorithms":["%s"],"bodyClaim":"request_body_sha256","eventClaim":"event"}}`

// pair is a key of the sender and what the connection holds of it.
func pair(t testing.TB, algorithm, id string) (private any, set string) {
	t.Helper()
	var public crypto.PublicKey
	switch algorithm {
	case "RS256", "PS256":
		k, err := rsa.GenerateKey(rand.Reader, 2048)
		if err != nil {
			t.Fatal(err)
		}
		private, public = k, k.Public()
	case "ES256":
		k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		private, public = k, k.Public()
	case "EdDSA":
		p, k, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		private, public = k, p
	default:
		return []byte(testKey + testKey), testKey + testKey
	}
	b, err := json.Marshal(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: public, KeyID: id, Use: "sig"}}})
	if err != nil {
		t.Fatal(err)
	}
	return private, string(b)
}

// token signs claims; head may add to the header.
func token(t testing.TB, algorithm string, key any, claims string, head map[jose.HeaderKey]any) string {
	t.Helper()
	o := (&jose.SignerOptions{}).WithType("JWT")
	for k, v := range head {
		o = o.WithHeader(k, v)
	}
	s, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.SignatureAlgorithm(algorithm), Key: key}, o)
	if err != nil {
		t.Fatal(err)
	}
	signed, err := s.Sign([]byte(claims))
	if err != nil {
		t.Fatal(err)
	}
	text, err := signed.CompactSerialize()
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// claims of a good token for a body; change replaces members, null takes them away.
func claims(body string, change map[string]any) string {
	sum := sha256.Sum256([]byte(body))
	at := instant.Unix()
	c := map[string]any{
		"iss": "https://bank", "aud": []string{"them", "us"}, "iat": at, "nbf": at, "exp": at + 60, "jti": "t1", "sub": "account/7",
		"request_body_sha256": hex.EncodeToString(sum[:]), "event": "paid",
	}
	for k, v := range change {
		if c[k] = v; v == nil {
			delete(c, k)
		}
	}
	b, _ := json.Marshal(c)
	return string(b)
}

func bear(token, body string) Request {
	return post(body, "authorization", "Bearer "+token, "content-type", "application/json")
}

func TestJWTAlgorithms(t *testing.T) {
	t.Parallel()
	for _, algorithm := range []string{"HS256", "HS512", "RS256", "PS256", "ES256", "EdDSA"} {
		t.Run(algorithm, func(t *testing.T) {
			t.Parallel()
			private, set := pair(t, algorithm, "k1")
			v := verifier(t, fmt.Sprintf(jwtSettings, algorithm), map[string]string{"key": set})
			m := taken(t, v, instant, bear(token(t, algorithm, private, claims("{}", nil), nil), "{}"))
			if m.ID != "t1" || m.Type != "casemate.webhook.jwt.paid" || m.Subject != "account/7" || string(m.Data) != "{}" || !m.Time.Equal(instant) {
				t.Errorf("got %+v", m)
			}
			for name := range m.Detail {
				if strings.Contains(name, "authorization") {
					t.Error("the function gets to see the token")
				}
			}
		})
	}
}

func TestJWTClaims(t *testing.T) {
	t.Parallel()
	private, set := pair(t, "ES256", "k1")
	v := verifier(t, fmt.Sprintf(jwtSettings, "ES256"), map[string]string{"key": set})
	at := instant.Unix()
	for name, tc := range map[string]struct {
		change map[string]any
		code   Code
	}{
		"another issuer":        {map[string]any{"iss": "https://evil"}, WrongClaims},
		"no issuer":             {map[string]any{"iss": nil}, WrongClaims},
		"issuer in capitals":    {map[string]any{"iss": nil, "ISS": "https://bank"}, WrongClaims},
		"another audience":      {map[string]any{"aud": "them"}, WrongClaims},
		"no audience":           {map[string]any{"aud": nil}, WrongClaims},
		"expired":               {map[string]any{"exp": at - 31}, Stale},
		"no exp":                {map[string]any{"exp": nil}, Malformed},
		"exp as text":           {map[string]any{"exp": "9999999999"}, Malformed},
		"exp beyond all bounds": {map[string]any{"exp": 1e300}, Malformed},
		"not yet valid":         {map[string]any{"nbf": at + 31}, Future},
		"no nbf":                {map[string]any{"nbf": nil}, Malformed},
		"no iat":                {map[string]any{"iat": nil}, Malformed},
		"made too long ago":     {map[string]any{"iat": at - 301}, Stale},
		"made in the future":    {map[string]any{"iat": at + 301}, Future},
		"no hash":               {map[string]any{"request_body_sha256": nil}, BadSignature},
		"empty hash":            {map[string]any{"request_body_sha256": ""}, BadSignature},
		"another body's hash":   {map[string]any{"request_body_sha256": strings.Repeat("00", 32)}, BadSignature},
		"event of no name":      {map[string]any{"event": "a b"}, Malformed},
		"one audience as text":  {map[string]any{"aud": "us"}, ""},
		"leeway":                {map[string]any{"exp": at - 29, "nbf": at + 29}, ""},
		"fraction of a second":  {map[string]any{"iat": float64(at) + 0.5}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := bear(token(t, "ES256", private, claims("{}", tc.change), nil), "{}")
			if tc.code == "" {
				taken(t, v, instant, r)
				return
			}
			wantCode(t, v, instant, r, tc.code)
		})
	}
	double := strings.Replace(claims("{}", nil), `{`, `{"iss":"https://evil",`, 1)
	wantCode(t, v, instant, bear(token(t, "ES256", private, double, nil), "{}"), Malformed)
	wantCode(t, v, instant, bear(token(t, "ES256", private, `[]`, nil), "{}"), Malformed)
	wantCode(t, v, instant, bear(token(t, "ES256", private, claims("{}", nil), nil), "{ }"), BadSignature)
	bare := verifier(t, `{"path":"/in","provider":"jwt","jwt":{"issuer":"https://bank","audience":["us"],"algorithms":["ES256"],"body":"unsigned"}}`, map[string]string{"key": set})
	same := bear(token(t, "ES256", private, claims("", map[string]any{"jti": nil}), nil), "a")
	same.Header["content-type"] = []string{"text/plain"}
	a := taken(t, bare, instant, same)
	same.Body = []byte("b")
	if b := taken(t, bare, instant, same); a.ID == b.ID {
		t.Error("two bodies with one token are one event")
	}
}

func TestJWTAttacks(t *testing.T) {
	t.Parallel()
	private, set := pair(t, "RS256", "k1")
	v := verifier(t, fmt.Sprintf(jwtSettings, "RS256"), map[string]string{"key": set})
	good := token(t, "RS256", private, claims("{}", nil), nil)
	taken(t, v, instant, bear(good, "{}"))
	part := func(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) }
	c := part(claims("{}", nil))
	signature := good[strings.LastIndex(good, ".")+1:]
	other, otherSet := pair(t, "RS256", "k1")
	public := private.(*rsa.PrivateKey).Public()
	der, _ := x509.MarshalPKIXPublicKey(public)
	asPEM := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
	for name, tc := range map[string]struct {
		token string
		code  Code
	}{
		"none":                       {part(`{"alg":"none"}`) + "." + c + ".", Malformed},
		"None":                       {part(`{"alg":"None"}`) + "." + c + ".", Malformed},
		"no alg":                     {part(`{}`) + "." + c + "." + signature, Malformed},
		"public key as HMAC secret":  {token(t, "HS256", asPEM, claims("{}", nil), nil), Malformed},
		"another family, same key":   {token(t, "PS256", private, claims("{}", nil), nil), Malformed},
		"another's key":              {token(t, "RS256", other, claims("{}", nil), nil), BadSignature},
		"key of its own in jwk":      {token(t, "RS256", other, claims("{}", nil), map[jose.HeaderKey]any{"jwk": json.RawMessage(strings.TrimSuffix(strings.TrimPrefix(otherSet, `{"keys":[`), "]}"))}), BadSignature},
		"key of its own by jku":      {token(t, "RS256", other, claims("{}", nil), map[jose.HeaderKey]any{"jku": "http://127.0.0.1:1/keys"}), BadSignature},
		"another kid":                {token(t, "RS256", private, claims("{}", nil), map[jose.HeaderKey]any{"kid": "k2"}), BadSignature},
		"unknown critical extension": {part(`{"alg":"RS256","crit":["x"],"x":1}`) + "." + c + "." + signature, Malformed},
		"alg twice":                  {part(`{"alg":"none","alg":"RS256"}`) + "." + c + "." + signature, Malformed},
		"signature cut off":          {good[:len(good)-4], BadSignature},
		"no signature":               {good[:strings.LastIndex(good, ".")+1], BadSignature},
		"two parts":                  {part(`{"alg":"RS256"}`) + "." + c, Malformed},
		"six parts":                  {good + "." + good, Malformed},
		"encrypted":                  {part(`{"alg":"dir","enc":"A256GCM"}`) + "..a.b.c", Malformed},
		"too long":                   {strings.Repeat("a", maxSignature), Malformed},
		"none at all":                {"", Malformed},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			wantCode(t, v, instant, bear(tc.token, "{}"), tc.code)
		})
	}
	r := bear(good, "{}")
	r.Header["authorization"] = []string{"Basic " + good}
	wantCode(t, v, instant, r, Malformed)
	r.Header["authorization"] = []string{"Bearer " + good, "Bearer " + good}
	wantCode(t, v, instant, r, Malformed)
	pinned := verifier(t, `{"path":"/in","provider":"jwt","jwt":{"issuer":"https://bank","audience":["us"],"algorithms":["RS256"],"bodyClaim":"request_body_sha256","type":"hook+jwt"}}`, map[string]string{"key": string(asPEM)})
	wantCode(t, pinned, instant, bear(good, "{}"), WrongClaims)
	taken(t, pinned, instant, bear(token(t, "RS256", private, claims("{}", nil), map[jose.HeaderKey]any{"typ": "application/hook+jwt"}), "{}"))
}

func TestJWTKeys(t *testing.T) {
	t.Parallel()
	private, set := pair(t, "ES256", "k1")
	second, secondSet := pair(t, "ES256", "k2")
	settings := fmt.Sprintf(jwtSettings, "ES256")
	inner := strings.TrimSuffix(strings.TrimPrefix(set, `{"keys":[`), "]}")
	good := func(k any) Request { return bear(token(t, "ES256", k, claims("{}", nil), nil), "{}") }
	v := verifier(t, settings, map[string]string{"key": set, "key-previous": secondSet})
	taken(t, v, instant, good(private))
	taken(t, v, instant, good(second))
	taken(t, verifier(t, settings, map[string]string{"key": inner}), instant, good(private))
	small, err := rsa.GenerateKey(rand.Reader, 1024) // weak on purpose: it must be refused
	weak := `{"kty":"oct","k":"AAAA"}`
	if err == nil {
		b, _ := json.Marshal(jose.JSONWebKey{Key: small.Public()})
		weak = string(b)
	}
	secret, _ := json.Marshal(jose.JSONWebKey{Key: private, KeyID: "k1"})
	for name, key := range map[string]string{
		"for encryption":    strings.Replace(set, `"sig"`, `"enc"`, 1),
		"not for verifying": strings.Replace(set, `"use":"sig"`, `"key_ops":["sign"]`, 1),
		"for another alg":   strings.Replace(set, `"use":"sig"`, `"alg":"ES384"`, 1),
		"a private one":     string(secret),
		"a symmetric one":   `{"keys":[{"kty":"oct","k":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"}]}`,
		"a weak one":        weak,
		"none":              `{"keys":[]}`,
		"no JSON":           strings.Repeat("x", 64),
		"members twice":     strings.Replace(set, `"use":"sig"`, `"use":"sig","use":"sig"`, 1),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			v := verifier(t, settings, map[string]string{"key": key})
			want := NotReady
			if name == "for another alg" {
				want = BadSignature
			}
			wantCode(t, v, instant, good(private), want)
		})
	}
	hs := verifier(t, fmt.Sprintf(jwtSettings, "HS256"), map[string]string{"key": testKey[:31]})
	wantCode(t, hs, instant, bear("x", "{}"), NotReady)
}

// TestJWTBodyIsTheToken is the form of security event tokens (RFC 8935).
func TestJWTBodyIsTheToken(t *testing.T) {
	t.Parallel()
	private, set := pair(t, "EdDSA", "k1")
	v := verifier(t, `{"path":"/in","provider":"jwt","jwt":{"issuer":"https://bank","audience":["us"],"algorithms":["EdDSA"],"body":"token"}}`, map[string]string{"key": set})
	c := claims("", nil)
	m := taken(t, v, instant, post(token(t, "EdDSA", private, c, nil)+"\n", "content-type", "application/secevent+jwt"))
	if string(m.Data) != c || m.DataContentType != "application/json" || m.Type != "casemate.webhook.jwt.received" {
		t.Errorf("got %+v", m)
	}
	wantCode(t, v, instant, post(""), Malformed)
	wantCode(t, v, instant.Add(time.Hour), post(token(t, "EdDSA", private, c, nil)), Stale)
}

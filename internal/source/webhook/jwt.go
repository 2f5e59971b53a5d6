package webhook

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/subtle"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	jose "github.com/go-jose/go-jose/v4"

	"github.com/casemate-dev/casemate/internal/event/cloudevent"
	"github.com/casemate-dev/casemate/internal/event/cloudevent/strictjson"
)

// JWTSettings say which tokens are believed (RFC 7519, and RFC 8725 for what to refuse).
type JWTSettings struct {
	// Header holds the token; in authorization, the default, it comes after Bearer.
	Header     string   `json:"header,omitempty"`
	Issuer     string   `json:"issuer"`
	Audience   []string `json:"audience"` // one of them must be named by the token
	Algorithms []string `json:"algorithms"`
	Type       string   `json:"type,omitempty"` // of the token: its header typ must be this
	// Body says how the token vouches for the body: claim (the default; a claim holds the
	// body's hash), token (the body is the token, and its claims are the data) or unsigned
	// (it does not: whoever sees one token can send any body with it until it expires).
	Body         string `json:"body,omitempty"`
	BodyClaim    string `json:"bodyClaim,omitempty"`
	BodyHash     string `json:"bodyHash,omitempty"`     // sha256 (the default), sha384, sha512
	BodyEncoding string `json:"bodyEncoding,omitempty"` // hex (the default), base64, base64url
	EventClaim   string `json:"eventClaim,omitempty"`   // names the event
}

// leeway is what clocks may differ by when a token's exp and nbf are judged.
const leeway = 30 * time.Second

var (
	symmetricAlgorithms  = []string{"HS256", "HS384", "HS512"}
	asymmetricAlgorithms = []string{"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"}
)

func (j *JWTSettings) symmetric() bool { return slices.Contains(symmetricAlgorithms, j.Algorithms[0]) }

func (j *JWTSettings) check(forCloudEvents bool) error {
	fill := func(s *string, v string) {
		if *s == "" {
			*s = v
		}
	}
	fill(&j.Body, "claim")
	if j.Body == "claim" {
		fill(&j.BodyHash, "sha256")
		fill(&j.BodyEncoding, "hex")
	}
	if j.Body != "token" {
		fill(&j.Header, "authorization")
	}
	switch {
	case j.Issuer == "":
		return field("jwt.issuer", "must name who makes the tokens")
	case len(j.Audience) == 0 || slices.Contains(j.Audience, ""):
		return field("jwt.audience", "must name whom the tokens are for: otherwise a token for somebody else is believed")
	case len(j.Algorithms) == 0:
		return field("jwt.algorithms", "must name the algorithms that are believed")
	case !slices.Contains([]string{"claim", "token", "unsigned"}, j.Body):
		return field("jwt.body", "must be claim, token or unsigned")
	case j.Body == "claim" && j.BodyClaim == "":
		return field("jwt.bodyClaim", "must name the claim that holds the body's hash; when there is none, say body: unsigned")
	case j.Body != "claim" && j.BodyClaim+j.BodyHash+j.BodyEncoding != "":
		return field("jwt.bodyClaim", "is only for body: claim, as are bodyHash and bodyEncoding")
	case j.Body == "token" && (j.Header != "" || forCloudEvents):
		return field("jwt.body", "cannot be token for CloudEvents or beside jwt.header")
	case j.Body == "claim" && !slices.Contains([]string{"sha256", "sha384", "sha512"}, j.BodyHash):
		return field("jwt.bodyHash", "must be sha256, sha384 or sha512")
	case j.Body == "claim" && !slices.Contains([]string{"hex", "base64", "base64url"}, j.BodyEncoding):
		return field("jwt.bodyEncoding", "must be hex, base64 or base64url")
	case j.Header != "" && !headerForm.MatchString(j.Header):
		return field("jwt.header", "must be a header's name in lower case")
	case j.EventClaim != "" && forCloudEvents:
		return field("jwt.eventClaim", "is not for CloudEvents, which have attributes of their own")
	}
	for _, a := range j.Algorithms {
		if !slices.Contains(symmetricAlgorithms, a) && !slices.Contains(asymmetricAlgorithms, a) {
			return field("jwt.algorithms", "must be among %s, %s", strings.Join(symmetricAlgorithms, ", "), strings.Join(asymmetricAlgorithms, ", "))
		}
		if slices.Contains(symmetricAlgorithms, a) != j.symmetric() {
			return field("jwt.algorithms", "must not have both kinds: a public key could be taken for a secret one")
		}
	}
	return nil
}

// jwtKey is a key that may verify tokens.
type jwtKey struct {
	id, algorithm string // "" for any
	key           any
}

// keys reads a secret: for HS256 and its like the secret itself; otherwise a public key in
// PEM, a JWK, or a set of them. Keys of a set that are for something else are passed over.
func (j *JWTSettings) keys(text []byte) ([]jwtKey, error) {
	if j.symmetric() {
		need := 32
		if slices.Contains(j.Algorithms, "HS512") {
			need = 64
		} else if slices.Contains(j.Algorithms, "HS384") {
			need = 48
		}
		if len(text) < need {
			return nil, errors.New("is shorter than the algorithm's digest (RFC 7518, section 3.2)")
		}
		return []jwtKey{{key: text}}, nil
	}
	if block, _ := pem.Decode(text); block != nil {
		k, err := x509.ParsePKIXPublicKey(block.Bytes)
		if err != nil || block.Type != "PUBLIC KEY" {
			return nil, errors.New("must be a public key in PEM")
		}
		if err := strong(k); err != nil {
			return nil, err
		}
		return []jwtKey{{key: k}}, nil
	}
	return jwkKeys(text)
}

// jwk is what go-jose does not read of a key.
type jwk struct {
	Operations []string `json:"key_ops"`
}

func jwkKeys(text []byte) ([]jwtKey, error) {
	if err := strictjson.Check(text, cloudevent.MaxDepth); err != nil {
		return nil, errors.New("must be a public key in PEM, a JWK or a set of them")
	}
	var set struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if err := json.Unmarshal(text, &set); err != nil {
		return nil, errors.New("must be a JWK or a set of them")
	}
	if set.Keys == nil {
		set.Keys = []json.RawMessage{text}
	}
	if len(set.Keys) > 100 {
		return nil, errors.New("holds more than 100 keys")
	}
	var all []jwtKey
	for _, raw := range set.Keys {
		var k jose.JSONWebKey
		var more jwk
		if json.Unmarshal(raw, &more) != nil || k.UnmarshalJSON(raw) != nil {
			continue // of a kind that is not known here
		}
		if _, ok := k.Key.([]byte); !ok && !k.IsPublic() {
			return nil, errors.New("holds a private key; only public ones belong here")
		}
		if !k.IsPublic() || !k.Valid() || k.Use != "" && k.Use != "sig" || more.Operations != nil && !slices.Contains(more.Operations, "verify") {
			continue
		}
		if err := strong(k.Key); err != nil {
			return nil, err
		}
		all = append(all, jwtKey{k.KeyID, k.Algorithm, k.Key})
	}
	if len(all) == 0 {
		return nil, errors.New("holds no public key that verifies signatures")
	}
	return all, nil
}

func strong(key any) error {
	switch k := key.(type) {
	case *rsa.PublicKey:
		if k.N.BitLen() < 2048 {
			return errors.New("is an RSA key of less than 2048 bits")
		}
	case *ecdsa.PublicKey, ed25519.PublicKey:
	default:
		return errors.New("is of a kind that signs no tokens")
	}
	return nil
}

func verifyJWT(s *Settings, now time.Time, r *Request, keys [][]byte) (*proof, *Refusal) {
	j := s.JWT
	token, no := j.token(r)
	if no != nil {
		return nil, no
	}
	claims, no := j.signed(token, keys)
	if no != nil {
		return nil, no
	}
	if err := strictjson.Check(claims, cloudevent.MaxDepth); err != nil {
		return nil, refuse(Malformed, "the claims "+err.Error())
	}
	members, err := strictjson.Members(claims)
	if err != nil {
		return nil, refuse(Malformed, "the claims are no JSON object")
	}
	p := &proof{id: document(members).text("jti"), claims: claims}
	if p.id == "" {
		p.id = digest([]byte(token))
	}
	if p.at, no = j.believe(document(members), now); no != nil {
		return nil, no
	}
	if j.Body == "claim" && !j.vouches(document(members), r.Body) {
		return nil, refuse(BadSignature, "the token is not for this body")
	}
	return p, nil
}

func (j *JWTSettings) token(r *Request) (string, *Refusal) {
	if j.Body == "token" {
		if len(r.Body) == 0 {
			return "", refuse(Malformed, "there is no token in the body")
		}
		return string(bytes.TrimSpace(r.Body)), nil
	}
	v, no := r.only(j.Header)
	if no != nil {
		return "", no
	}
	if j.Header == "authorization" {
		return bearerToken(v)
	}
	return v, nil
}

// signed gives the payload of a token that one of the keys signed.
func (j *JWTSettings) signed(token string, keys [][]byte) ([]byte, *Refusal) {
	algorithms := make([]jose.SignatureAlgorithm, len(j.Algorithms))
	for i, a := range j.Algorithms {
		algorithms[i] = jose.SignatureAlgorithm(a)
	}
	// Everything but these algorithms, and none above all, is refused here.
	t, err := jose.ParseSignedCompact(token, algorithms)
	if err != nil || len(t.Signatures) != 1 {
		return nil, refuse(Malformed, "there is no token of an algorithm that is believed")
	}
	head := t.Signatures[0].Protected
	if _, critical := head.ExtraHeaders["crit"]; critical {
		return nil, refuse(Malformed, "the token asks for extensions that are not known here")
	}
	if j.Type != "" {
		typ, _ := head.ExtraHeaders[jose.HeaderType].(string)
		if !strings.EqualFold(strings.TrimPrefix(typ, "application/"), strings.TrimPrefix(j.Type, "application/")) {
			return nil, refuse(WrongClaims, "the token is of another type")
		}
	}
	var payload []byte
	for _, text := range keys {
		all, err := j.keys(text)
		if err != nil {
			return nil, refuse(NotReady, "a key "+err.Error())
		}
		for _, k := range all {
			if k.id != "" && head.KeyID != "" && k.id != head.KeyID || k.algorithm != "" && k.algorithm != head.Algorithm {
				continue
			}
			if b, err := t.Verify(k.key); err == nil {
				payload = b
			}
		}
	}
	if payload == nil {
		return nil, refuse(BadSignature, "no active key made the token")
	}
	return payload, nil
}

// believe judges the claims, and gives the time at which the token was made.
func (j *JWTSettings) believe(c document, now time.Time) (time.Time, *Refusal) {
	if c.text("iss") != j.Issuer {
		return time.Time{}, refuse(WrongClaims, "the token is of another issuer")
	}
	named := []string{c.text("aud")}
	if parts, err := strictjson.Elements(c.raw("aud"), 100); err == nil {
		for _, p := range parts {
			if s, err := strictjson.String(p); err == nil {
				named = append(named, s)
			}
		}
	}
	if !slices.ContainsFunc(named, func(a string) bool { return slices.Contains(j.Audience, a) }) {
		return time.Time{}, refuse(WrongClaims, "the token is for another audience")
	}
	var at [3]time.Time
	for i, name := range []string{"iat", "nbf", "exp"} {
		t, ok := numericDate(c.raw(name))
		if !ok {
			return time.Time{}, refuse(Malformed, "the token's "+name+" is missing or no time")
		}
		at[i] = t
	}
	if now.Add(leeway).Before(at[1]) {
		return time.Time{}, refuse(Future, "the token is not valid yet")
	}
	if !now.Add(-leeway).Before(at[2]) {
		return time.Time{}, refuse(Stale, "the token has expired")
	}
	return at[0], nil
}

// numericDate reads a NumericDate (RFC 7519, section 2), of which fractions are dropped.
func numericDate(raw []byte) (time.Time, bool) {
	n, err := strconv.ParseFloat(string(raw), 64)
	if err != nil || n < 0 || n > 1<<40 {
		return time.Time{}, false
	}
	return time.Unix(int64(math.Floor(n)), 0), true
}

// vouches says whether the token's claim is the body's hash.
func (j *JWTSettings) vouches(c document, body []byte) bool {
	claimed, err := decode(j.BodyEncoding, c.text(j.BodyClaim))
	if err != nil {
		return false
	}
	var sum []byte
	switch j.BodyHash {
	case "sha384":
		s := sha512.Sum384(body)
		sum = s[:]
	case "sha512":
		s := sha512.Sum512(body)
		sum = s[:]
	default:
		s := sha256.Sum256(body)
		sum = s[:]
	}
	return subtle.ConstantTimeCompare(claimed, sum) == 1
}

func readJWT(j *JWTSettings, r *Request, p *proof) (reading, *Refusal) {
	is := reading{id: p.id, name: unnamed}
	members, err := strictjson.Members(p.claims)
	if err != nil {
		return is, refuse(Malformed, "the claims are no JSON object")
	}
	c := document(members)
	is.subject = c.text("sub")
	is.detail = map[string]string{"jwt.iss": c.text("iss")}
	if j.EventClaim != "" {
		is.name = c.text(j.EventClaim)
	}
	if j.Body == "token" {
		is.data, is.media = p.claims, "application/json"
	} else if isJSON(r) && len(r.Body) > 0 {
		if err := strictjson.Check(r.Body, cloudevent.MaxDepth); err != nil {
			return is, refuse(Malformed, "the body "+err.Error())
		}
	}
	if j.Body == "unsigned" {
		// One token may serve for many requests, so the body is a part of the id.
		is.id = digest([]byte(p.id), r.Body)
	}
	return is, nil
}

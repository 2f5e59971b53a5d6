package gateway

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/casemate-dev/casemate/api/problem"
)

// TestAttackNoKeyNoCall crosses every route that is not public with every way of
// not being allowed; the function is never started.
func TestAttackNoKeyNoCall(t *testing.T) {
	t.Parallel()
	w := served(t, Limits{})
	credentials := map[string]struct {
		fields []string
		status int
	}{
		"none":              {nil, 401},
		"empty bearer":      {[]string{"Authorization: Bearer "}, 401},
		"empty key":         {[]string{"X-API-Key: "}, 401},
		"no scheme":         {[]string{"Authorization: " + goodKey}, 401},
		"basic":             {[]string{"Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte("x:"+goodKey))}, 401},
		"malformed":         {[]string{"Authorization: Bearer " + goodKey + ", " + goodKey}, 401},
		"trailing":          {[]string{"Authorization: Bearer " + goodKey + " x"}, 401},
		"other case":        {[]string{"Authorization: Bearer " + strings.ToUpper(goodKey)}, 401},
		"endless":           {[]string{"X-API-Key: " + goodKey + strings.Repeat("x", 1000)}, 401},
		"unknown":           {[]string{bearer(unknownKey)}, 401},
		"unknown api key":   {[]string{"X-API-Key: " + unknownKey}, 401},
		"expired":           {[]string{bearer(expiredKey)}, 401},
		"revoked":           {[]string{bearer(revokedKey)}, 401},
		"wrong scope":       {[]string{bearer(otherKey)}, 403},
		"wrong action":      {[]string{"X-API-Key: " + readKey}, 403},
		"two keys":          {[]string{bearer(goodKey), "X-API-Key: " + goodKey}, 401},
		"two bearers":       {[]string{bearer(goodKey), bearer(goodKey)}, 401},
		"two api keys":      {[]string{"X-API-Key: " + goodKey, "X-API-Key: " + goodKey}, 401},
		"good and bad":      {[]string{bearer(unknownKey), "X-API-Key: " + goodKey}, 401},
		"proxy credential":  {[]string{"Proxy-Authorization: Bearer " + goodKey}, 401},
		"cookie":            {[]string{"Cookie: key=" + goodKey + "; Authorization=Bearer " + goodKey}, 401},
		"underscore":        {[]string{"X_API_Key: " + goodKey}, 401},
		"forwarded headers": {[]string{"X-Forwarded-For: 127.0.0.1", "X-Forwarded-User: admin", "X-Original-URL: /open"}, 401},
	}
	for _, r := range routesForTests() {
		if r.Trigger.Public {
			continue
		}
		method, path := r.Trigger.Method, r.Trigger.Path
		if method == methodAny {
			method = "DELETE"
		}
		path = strings.NewReplacer("{id}", "7", "{rest...}", "a/b").Replace(path)
		if r.Ref.Namespace != "default" {
			path = "/~" + r.Ref.Namespace + path
		}
		for name, c := range credentials {
			t.Run(fmt.Sprintf("%s %s %s", method, path, name), func(t *testing.T) {
				a := w.do(t, method, path, nil, c.fields...)
				if d := a.problem(t); a.status != c.status {
					t.Errorf("got %d %s, want %d", a.status, d.Code, c.status)
				}
				if challenge := a.header.Get("Www-Authenticate"); (a.status == 401) != strings.HasPrefix(challenge, "Bearer ") {
					t.Errorf("WWW-Authenticate is %q", challenge)
				}
				if strings.Contains(a.text, "planted") {
					t.Errorf("the reason of the refusal leaked:\n%s", a.text)
				}
			})
		}
	}
	if n := w.invoker.count.Load(); n != 0 {
		t.Errorf("functions were started %d times", n)
	}
}

func TestKeyIsAcceptedInEitherPlace(t *testing.T) {
	t.Parallel()
	w := served(t, Limits{})
	for _, field := range []string{bearer(goodKey), "Authorization: bearer  " + goodKey, "X-API-Key: " + goodKey} {
		if a := w.do(t, "GET", "/hello", nil, field); a.status != 200 || a.body != "hello\n" {
			t.Errorf("%.20s: %d %s", field, a.status, a.body)
		}
		if c := w.invoker.last(t); c.Principal.ID != "good" || c.Public {
			t.Errorf("called as %v, public %v", c.Principal, c.Public)
		}
	}
}

func TestAttackExpiredAndRevokedLookAlike(t *testing.T) {
	t.Parallel()
	w := served(t, Limits{})
	var seen string
	for _, key := range []string{unknownKey, expiredKey, revokedKey, "nonsense"} {
		a := w.do(t, "GET", "/hello", nil, bearer(key))
		d := a.problem(t)
		face := fmt.Sprint(a.status, d.Code, d.Detail, d.Remedy, a.header.Get("Www-Authenticate"))
		if seen == "" {
			seen = face
		}
		if face != seen {
			t.Errorf("one refusal differs: %q and %q", face, seen)
		}
	}
}

func TestAttackKeyRevokedBetweenTwoRequestsOfOneConnection(t *testing.T) {
	t.Parallel()
	w := served(t, Limits{})
	if a := w.do(t, "GET", "/hello", nil, bearer(goodKey)); a.status != 200 {
		t.Fatalf("got %d", a.status)
	}
	w.keys.revoked.Store(goodKey, true)
	w.do(t, "GET", "/hello", nil, bearer(goodKey)).want(t, problem.Unauthenticated)
}

func TestAttackKeyInQueryIsNotACredential(t *testing.T) {
	t.Parallel()
	w := served(t, Limits{})
	for _, name := range []string{"api_key", "key", "access_token", "authorization", "X-API-Key"} {
		w.do(t, "GET", "/hello?"+name+"="+goodKey, nil).want(t, problem.Unauthenticated)
	}
	if strings.Contains(w.logs.String(), keySecret) {
		t.Error("the access log holds a key")
	}
}

func TestPublicRoute(t *testing.T) {
	t.Parallel()
	w := served(t, Limits{})
	jwt := "Authorization: Bearer eyJhbGciOiJub25lIn0.e30."
	for name, c := range map[string]struct {
		fields    []string
		status    int
		principal string
		auth      bool // reaches the function
	}{
		"nobody":             {nil, 200, "anonymous", false},
		"good key":           {[]string{bearer(goodKey)}, 200, "key:good", false},
		"key without scope":  {[]string{bearer(readKey)}, 200, "key:read", false},
		"good api key":       {[]string{"X-API-Key: " + goodKey}, 200, "key:good", false},
		"own token":          {[]string{jwt}, 200, "anonymous", true},
		"own token with key": {[]string{jwt, "X-API-Key: " + goodKey}, 200, "key:good", true},
		"bad key":            {[]string{bearer(unknownKey)}, 401, "", false},
		"revoked key":        {[]string{"X-API-Key: " + revokedKey}, 401, "", false},
		"bad api key":        {[]string{"X-API-Key: whatever"}, 401, "", false},
		"key, no scheme":     {[]string{"Authorization: " + goodKey}, 401, "", false},
		"key, other scheme":  {[]string{"Authorization: Token " + goodKey}, 401, "", false},
		"two keys":           {[]string{bearer(goodKey), "X-API-Key: " + goodKey}, 401, "", false},
	} {
		before := w.invoker.count.Load()
		a := w.do(t, "GET", "/open", nil, c.fields...)
		if a.status != c.status {
			t.Errorf("%s: got %d, want %d", name, a.status, c.status)
			continue
		}
		if c.status != 200 {
			if w.invoker.count.Load() != before {
				t.Errorf("%s: the function was started", name)
			}
			continue
		}
		call := w.invoker.last(t)
		if !call.Public || call.Principal.String() != c.principal {
			t.Errorf("%s: public %v, principal %v", name, call.Public, call.Principal)
		}
		if _, has := call.Headers["authorization"]; has != c.auth {
			t.Errorf("%s: authorization reaches the function: %v", name, has)
		}
	}
}

// TestAttackCredentialReachesFunctionOrLog sends a key in every place where it is
// taken, and looks for it in all that the function sees and all that is logged.
func TestAttackCredentialReachesFunctionOrLog(t *testing.T) {
	t.Parallel()
	w := served(t, Limits{})
	for _, path := range []string{"/hello", "/open", "/any"} {
		for _, field := range []string{bearer(goodKey), "authorization: BEARER " + goodKey, "x-api-key: " + goodKey} {
			if a := w.do(t, "GET", path, nil, field, "Cookie: session=1", "Proxy-Authorization: Bearer "+goodKey); a.status != 200 {
				t.Fatalf("%s: %d", path, a.status)
			}
			c := w.invoker.last(t)
			if text := fmt.Sprintf("%+v", c); strings.Contains(text, keySecret) {
				t.Errorf("%s with %.12s: the function sees the key", path, field)
			}
			if got := c.Headers["cookie"]; len(got) != 1 || got[0] != "session=1" {
				t.Errorf("cookie is %q", got)
			}
		}
	}
	// Places where it does not belong, but where people put it.
	w.do(t, "GET", "/orders/"+goodKey, nil, bearer(goodKey))
	w.do(t, "GET", "/"+goodKey+"/%2e", nil)
	w.do(t, "GET", "/hello?key="+goodKey, nil, "X-Request-Id: "+goodKey[:60])
	w.raw(t, "GET https://user:"+goodKey+"@localhost/hello HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
	if logs := w.logs.String(); strings.Contains(logs, keySecret) || !strings.Contains(logs, "[key]") {
		t.Errorf("the access log holds a key:\n%s", logs)
	}
}

// TestExpectContinueIsNotAnsweredBeforeAuthentication: "100 Continue" would be a
// promise to read the body.
func TestExpectContinueIsNotAnsweredBeforeAuthentication(t *testing.T) {
	t.Parallel()
	w := served(t, Limits{})
	head := "POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nExpect: 100-continue\r\n"
	stream := w.raw(t, head+"\r\n")
	if got := statuses(t, stream); len(got) != 1 || got[0] != http.StatusUnauthorized {
		t.Errorf("without a key: %v", got)
	}
	stream = w.raw(t, head+bearer(goodKey)+"\r\nConnection: close\r\n\r\nhello")
	if !strings.HasPrefix(stream, "HTTP/1.1 100 ") || !strings.Contains(stream, "HTTP/1.1 200 ") {
		t.Errorf("with a key: %q", stream)
	}
}

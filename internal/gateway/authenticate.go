package gateway

import (
	"strings"

	"github.com/casemate-dev/casemate/api/problem"
	"github.com/casemate-dev/casemate/internal/identity"
)

// keyPrefix begins every key of ours (identity.Keys).
const keyPrefix = "cm_"

const (
	challenge        = `Bearer realm="casemate"`                        // RFC 6750, section 3
	challengeInvalid = `Bearer realm="casemate", error="invalid_token"` // one was sent
)

// credentials is what a request presents to us.
type credentials struct {
	key    string // the one that counts
	count  int
	broken bool // one that cannot be a key at all
}

// authenticate establishes who calls, and that they may call this function.
//
// A route that is not public takes exactly one credential. A public one takes
// none, but one that is presented must be good: whoever sends a key believes to
// act under it. On a public route an Authorization that is no key of ours
// belongs to the function.
func (g *Gateway) authenticate(x *exchange) error {
	if x.lambda != nil {
		return g.authenticateLambda(x)
	}
	e := x.target
	if e.kind == toHook {
		return g.authenticateHook(x)
	}
	c := presented(x, !e.public)
	switch {
	case c.count == 0 && e.public:
		x.principal = identity.Anonymous()
		return nil
	case c.count == 0:
		x.setHeader("Www-Authenticate", challenge)
		return problem.New(problem.Unauthenticated, "this route needs an API key")
	case c.count > 1:
		x.setHeader("Www-Authenticate", challenge)
		return problem.New(problem.Unauthenticated, "more than one credential was sent").
			Fix("Send exactly one API key, as `Authorization: Bearer …` or as X-API-Key.")
	}
	principal, err := identity.Principal{}, error(nil)
	if !c.broken {
		principal, err = g.keys.Verify(c.key)
	}
	if c.broken || err != nil {
		x.setHeader("Www-Authenticate", challengeInvalid)
		// Unknown, expired and revoked look alike, or they would tell which keys exist.
		return problem.New(problem.Unauthenticated, "the credential is not valid")
	}
	x.principal = principal
	// Asked again where it is decided (invoke); here, so that nobody without the
	// right makes us wait for a body.
	switch {
	case e.kind == toInvocation: // whose it is, and so who may see it, is not known yet
	case e.kind == toValue:
		return x.mayValue(principal)
	case e.kind == toTopic && !principal.May(identity.Publish, e.ref):
		return problem.New(problem.Forbidden, "the credential does not allow publishing to this topic").
			Fix("Use a key with the scope publish:%s.", e.ref)
	case e.kind == toFunction && !e.public && !principal.May(identity.Invoke, e.ref):
		return problem.New(problem.Forbidden, "the credential does not allow calling this function")
	}
	return nil
}

// presented collects the credentials of a request and marks what may not reach a
// function. With all, any Authorization is one; without, only a key of ours is.
func presented(x *exchange, all bool) credentials {
	var c credentials
	for _, v := range x.r.Header["Authorization"] {
		scheme, token, _ := strings.Cut(v, " ")
		token = strings.TrimLeft(token, " ")
		ours := strings.HasPrefix(token, keyPrefix) || strings.HasPrefix(scheme, keyPrefix)
		if !all && !ours {
			continue
		}
		x.ownedAuth = true
		c.take(token, strings.EqualFold(scheme, "Bearer"))
	}
	for _, v := range x.r.Header[headerAPIKey] {
		c.take(v, true)
	}
	return c
}

func (c *credentials) take(key string, wellFormed bool) {
	c.count++
	c.key = key
	if !wellFormed || key == "" || len(key) > maxCredential {
		c.broken = true
	}
}

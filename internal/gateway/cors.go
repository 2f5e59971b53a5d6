package gateway

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/casemate-dev/casemate/api/problem"
	"github.com/casemate-dev/casemate/internal/function"
)

const (
	headerOrigin          = "Origin"
	headerACRequestMethod = "Access-Control-Request-Method"
)

// corsPolicy is a route's cross-origin policy (Fetch standard, section 3.2) with
// its header values made ready. The slices are shared by answers: never change them.
type corsPolicy struct {
	anyOrigin   bool
	origins     []string
	methods     []string
	headers     []string // nil: none but the safelisted
	expose      []string
	credentials bool
	maxAge      []string
}

// compileCORS checks a policy. Nothing in it is ever filled in from a request,
// except an origin that it lists.
func compileCORS(c *function.CORS, method string) (*corsPolicy, error) {
	if c == nil {
		return nil, nil
	}
	p := &corsPolicy{credentials: c.Credentials}
	if len(c.Origins) == 0 {
		return nil, fmt.Errorf("cors.origins is empty: list the origins that may call this route, or remove cors")
	}
	for _, o := range c.Origins {
		if o == "*" {
			p.anyOrigin = true
			continue
		}
		if !validOrigin(o) {
			return nil, fmt.Errorf("cors.origins holds %.100q: write scheme://host[:port] in lower case, without a path", o)
		}
		p.origins = append(p.origins, o)
	}
	if p.anyOrigin && len(c.Origins) > 1 {
		return nil, fmt.Errorf("cors.origins holds * and others: keep one or the other")
	}
	if p.anyOrigin && c.Credentials {
		return nil, fmt.Errorf("cors.credentials with origin * would let any page act as its visitor: list the origins")
	}
	methods := c.Methods
	switch {
	case len(methods) > 0:
	case method == methodAny:
		methods = []string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"}
	case method == http.MethodGet:
		methods = []string{"GET", "HEAD"}
	default:
		methods = []string{method}
	}
	for _, list := range []struct {
		field string
		names []string
	}{{"methods", methods}, {"headers", c.Headers}, {"expose", c.Expose}} {
		for _, name := range list.names {
			if !validToken(name) || (name == "*" && c.Credentials) {
				return nil, fmt.Errorf("cors.%s holds %.100q, which is not a name", list.field, name)
			}
		}
	}
	if c.MaxAge < 0 {
		return nil, fmt.Errorf("cors.maxAge is %v: give zero or more", c.MaxAge)
	}
	p.methods = joined(methods)
	p.headers = joined(c.Headers)
	p.expose = joined(c.Expose)
	if c.MaxAge > 0 {
		p.maxAge = []string{strconv.FormatInt(int64(c.MaxAge/time.Second), 10)}
	}
	return p, nil
}

func joined(names []string) []string {
	if len(names) == 0 {
		return nil
	}
	return []string{strings.Join(names, ", ")}
}

// validOrigin accepts the serialization of a tuple origin (RFC 6454, section
// 6.2). "null" is not one: every sandboxed frame anywhere has it.
func validOrigin(s string) bool {
	u, err := url.Parse(s)
	return err == nil && u.Host != "" && u.Scheme != "" && s == u.Scheme+"://"+u.Host && s == strings.ToLower(s) && validHost(u.Host)
}

func isPreflight(r *http.Request) bool {
	return r.Method == http.MethodOptions && len(r.Header[headerOrigin]) == 1 && len(r.Header[headerACRequestMethod]) == 1
}

// applyCORS answers a preflight, and sets the fields by which a browser lets a
// page read the answer, errors included. It admits nobody: browsers enforce it,
// other clients need not, and the credential is asked for in any case.
func (g *Gateway) applyCORS(x *exchange) error {
	p := x.target.cors
	if p == nil {
		return nil
	}
	h := x.w.Header()
	if !p.anyOrigin {
		h["Vary"] = append(h["Vary"], headerOrigin)
	}
	given := x.r.Header[headerOrigin]
	allowed := len(given) == 1 && (p.anyOrigin || slices.Contains(p.origins, given[0]))
	if allowed {
		if p.anyOrigin {
			x.setHeader("Access-Control-Allow-Origin", "*")
		} else {
			x.setHeader("Access-Control-Allow-Origin", given[0])
		}
		if p.credentials {
			x.setHeader("Access-Control-Allow-Credentials", "true")
		}
	}
	if !x.preflight {
		if allowed && p.expose != nil {
			h["Access-Control-Expose-Headers"] = p.expose
		}
		return nil
	}
	if !allowed {
		return problem.New(problem.Forbidden, "pages of this origin may not call this route").At(headerOrigin).
			Fix("List the origin under cors.origins of the route.")
	}
	h["Access-Control-Allow-Methods"] = p.methods
	if p.headers != nil {
		h["Access-Control-Allow-Headers"] = p.headers
	}
	if p.maxAge != nil {
		h["Access-Control-Max-Age"] = p.maxAge
	}
	g.letGoOfBody(x)
	g.limitAnswerTime(x, 0)
	x.WriteHeader(http.StatusNoContent)
	return nil
}

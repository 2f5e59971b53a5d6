package manifest

import (
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"github.com/casemate-dev/casemate/api"
)

// Forms of the parts of a route.
var (
	wildcardPattern = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)
	tokenPattern    = regexp.MustCompile("^[!#$%&'*+.^_`|~0-9A-Za-z-]+$") // RFC 9110, section 5.6.2
	hostPattern     = regexp.MustCompile(`^([a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*|\[[0-9a-f:.]+\])(:[1-9][0-9]{0,4})?$`)
)

func (c *check) routes(routes []api.HTTPTrigger) {
	if len(routes) > MaxRoutes {
		c.add("http", "", fmt.Sprintf("%d routes are more than the %d allowed", len(routes), MaxRoutes), "use path parameters, such as /orders/{id}, or several functions")
		return
	}
	var seen routeSet
	for i, r := range routes {
		field := fmt.Sprintf("http[%d]", i)
		before := len(c.issues)
		c.method(field+".method", r.Method, methods())
		c.path(field+".path", r.Path)
		c.size(field+".bodyLimit", r.BodyLimit, 1, MaxBody)
		if r.CORS != nil {
			c.cors(field+".cors", *r.CORS)
		}
		if len(c.issues) > before {
			continue
		}
		if other, taken := seen.add(r.Method, r.Path, r.Method+" "+r.Path); taken {
			c.add(field+".path", r.Path, quote(r.Method+" "+r.Path)+" matches the same requests as "+quote(other), "take one of the two away")
		}
	}
}

func (c *check) method(field, method string, allowed []string) {
	if slices.Contains(allowed, method) {
		return
	}
	remedy := "write one of " + strings.Join(allowed, ", ")
	upper := strings.ToUpper(method)
	switch {
	case slices.Contains(allowed, upper):
		remedy = "write " + upper
	case method == "*" && slices.Contains(allowed, "ANY"):
		remedy = "write ANY"
	case nearest(upper, allowed) != "":
		remedy = "write " + nearest(upper, allowed)
	}
	if method == "" {
		c.add(field, "", "the method is missing", remedy)
		return
	}
	c.add(field, method, quote(method)+" is not a method that a route can have", remedy)
}

// path applies the rules of a trigger's path: canonical, not the platform's own,
// and wildcards as net/http.ServeMux has them.
func (c *check) path(field, path string) {
	bad := func(message, remedy string) { c.add(field, path, message, remedy) }
	switch {
	case path == "":
		bad("the path is missing", "write one, such as /hello")
		return
	case path[0] != '/':
		bad("the path "+quote(path)+" does not begin with /", "write "+shorten("/"+printable(path)))
		return
	case len(path) > MaxPath:
		bad(fmt.Sprintf("the path is longer than %d bytes", MaxPath), "shorten it")
		return
	case strings.HasPrefix(path, namespacePathPrefix):
		bad("paths that begin with /~ lead to namespaces", "choose another path: the namespace is put before it by itself")
		return
	case path == lambdaPath || strings.HasPrefix(path, lambdaPath+"/"):
		bad("paths below "+lambdaPath+" are the Lambda API's", "choose another path")
		return
	case strings.HasPrefix(strings.ToLower(path), platformPathPrefix):
		bad("paths that begin with /.casemate are the platform's own", "choose another path")
		return
	}
	if i := strings.IndexFunc(path, notInPath); i >= 0 {
		r := []rune(path[i:])[0]
		remedy := "write the path decoded, with letters, digits and - . _ ~ ! $ & ' ( ) * + , ; = : @"
		switch r {
		case '?', '#':
			remedy = "end the path before it: a route matches the path alone"
		case '%':
			remedy = "write the character itself: paths are matched decoded"
		}
		bad(fmt.Sprintf("the path holds %q, which no path may", r), remedy)
		return
	}
	c.segments(field, path)
}

func (c *check) segments(field, path string) {
	bad := func(message, remedy string) { c.add(field, path, message, remedy) }
	segments := strings.Split(path[1:], "/")
	names := map[string]bool{}
	for i, s := range segments {
		last := i == len(segments)-1
		switch {
		case s == "" && !last:
			bad("the path has an empty segment (//)", "write one /")
			return
		case s == "." || s == "..":
			bad("the path has the segment "+quote(s), "write the path without it: a request's path is never read upwards")
			return
		case !strings.ContainsAny(s, "{}"):
			continue
		case s == "{$}":
			bad("{$} is not needed", "end the path with /: it serves itself alone, and nothing below")
			return
		case s[0] != '{' || s[len(s)-1] != '}' || strings.ContainsAny(s[1:len(s)-1], "{}"):
			bad("a parameter must be a whole segment: "+quote(s), "write it between slashes, as in /orders/{id}")
			return
		}
		name, rest := strings.CutSuffix(s[1:len(s)-1], "...")
		switch {
		case !wildcardPattern.MatchString(name):
			bad("the parameter "+quote(s)+" has no valid name", "use letters, digits and _, no digit first, as in {id}")
			return
		case rest && !last:
			bad("the parameter "+quote(s)+" stands before the end", "put it at the end: it takes all that follows")
			return
		case names[name]:
			bad("the parameter "+quote(name)+" stands in the path twice", "give each its own name")
			return
		}
		names[name] = true
	}
}

// notInPath reports characters that a canonical path, decoded, must not hold.
// What is not ASCII is left out as well: it has several encodings.
func notInPath(r rune) bool {
	switch {
	case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9':
		return false
	default:
		return !strings.ContainsRune("/{}-._~!$&'()*+,;=:@", r) || r > '~'
	}
}

func (c *check) cors(field string, v api.CORS) {
	if len(v.Origins) == 0 {
		c.add(field+".origins", "", "no origin is named", `name them, as in ["https://example.com"], or take cors away`)
	}
	if len(v.Origins) > maxOrigins || len(v.Methods) > maxCORSMethods || len(v.Headers) > maxCORSHeaders || len(v.Expose) > maxCORSHeaders {
		c.add(field, "", "a list is longer than allowed", fmt.Sprintf("name %d origins, %d methods and %d headers at most", maxOrigins, maxCORSMethods, maxCORSHeaders))
		return
	}
	for i, o := range v.Origins {
		c.origin(fmt.Sprintf("%s.origins[%d]", field, i), o)
	}
	for i, m := range v.Methods {
		c.method(fmt.Sprintf("%s.methods[%d]", field, i), m, methods()[:len(methods())-1])
	}
	c.headers(field+".headers", v.Headers)
	c.headers(field+".expose", v.Expose)
	c.duration(field+".maxAge", v.MaxAgeMillis, 0, MaxCORSAge)
	if !v.Credentials {
		return
	}
	// Fetch standard, section 3.2.5: with credentials, * is not a wildcard.
	for _, l := range []struct {
		name  string
		items []string
	}{{"origins", v.Origins}, {"headers", v.Headers}, {"expose", v.Expose}} {
		if i := slices.Index(l.items, "*"); i >= 0 {
			c.add(fmt.Sprintf("%s.%s[%d]", field, l.name, i), "*", `"*" cannot go with credentials: true`, "name the "+l.name+" one by one, or take credentials away")
		}
	}
}

func (c *check) origin(field, o string) {
	if o == "*" {
		return
	}
	scheme, host, ok := strings.Cut(o, "://")
	if ok && (scheme == "https" || scheme == "http") && len(o) <= maxCORSItem && hostPattern.MatchString(host) {
		return
	}
	remedy := "write scheme://host or scheme://host:port, in lower case and with no path, as in https://example.com"
	if u, err := url.Parse(o); err == nil && u.Host != "" && u.User == nil && (u.Scheme == "https" || u.Scheme == "http") && hostPattern.MatchString(strings.ToLower(u.Host)) {
		remedy = "write " + shorten(u.Scheme+"://"+strings.ToLower(u.Host))
	}
	c.add(field, o, quote(o)+" is not an origin", remedy)
}

func (c *check) headers(field string, names []string) {
	for i, h := range names {
		if !tokenPattern.MatchString(h) || len(h) > maxCORSItem/2 {
			c.add(fmt.Sprintf("%s[%d]", field, i), h, quote(h)+" is not the name of a header", "write a name such as content-type")
		}
	}
}

// routeSet finds routes that net/http.ServeMux could not keep apart.
type routeSet struct {
	mux    *http.ServeMux
	owners []owned
}

type owned struct{ method, path, owner string }

// add takes a route whose parts are valid. When another matches the same
// requests, with neither the more specific one, it returns that one's owner.
func (s *routeSet) add(method, path, owner string) (other string, taken bool) {
	if s.mux == nil {
		s.mux = http.NewServeMux()
	}
	if register(s.mux, method, path) {
		s.owners = append(s.owners, owned{method, path, owner})
		return "", false
	}
	for _, o := range s.owners {
		pair := http.NewServeMux()
		if register(pair, o.method, o.path) && !register(pair, method, path) {
			return o.owner, true
		}
	}
	return "another route", true
}

// register reports whether the mux takes the route; it panics on a conflict.
func register(mux *http.ServeMux, method, path string) (ok bool) {
	defer func() { ok = recover() == nil }()
	if strings.HasSuffix(path, "/") {
		path += "{$}" // as the gateway has it: itself alone
	}
	if method != "ANY" {
		path = method + " " + path
	}
	mux.Handle(path, http.NotFoundHandler())
	return true
}

// alone reports whether the route can be told apart from the others before it.
func (s *routeSet) alone(before []api.HTTPTrigger, r api.HTTPTrigger) bool {
	for _, b := range before {
		s.add(b.Method, b.Path, "")
	}
	_, taken := s.add(r.Method, r.Path, "")
	return !taken
}

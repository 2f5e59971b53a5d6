package azure

import (
	"fmt"
	"math"
	"regexp"
	"strconv"
	"strings"
	"unicode"
)

// route is a route template of ASP.NET, as much as functions use of it.
type route struct {
	segments []segment
}

// segment is one part of a path: a literal, or one parameter.
type segment struct {
	literal  string
	name     string // of the parameter
	kind     string // its constraint; "" for none
	value    string // used when the path has none
	optional bool
	rest     bool // takes the remaining path
}

var parameter = regexp.MustCompile(`^\{(\*{0,2})([A-Za-z_][A-Za-z0-9_]*)((?::[a-z]+)?)((?:=[^{}/]*)?)(\??)\}$`)

func parseRoute(prefix, template string) (route, error) {
	var r route
	names := map[string]bool{}
	whole := strings.Trim(strings.Trim(prefix, "/")+"/"+strings.Trim(template, "/"), "/")
	parts := strings.Split(whole, "/")
	for i, part := range parts {
		if !strings.ContainsAny(part, "{}") {
			if part == "" {
				return route{}, fmt.Errorf("%.100q has an empty part", template)
			}
			r.segments = append(r.segments, segment{literal: part})
			continue
		}
		m := parameter.FindStringSubmatch(part)
		if m == nil {
			return route{}, fmt.Errorf("has the part %.60q; understood are {name}, {name?}, {name=value}, {*name} and the constraints int, long, bool, alpha and guid", part)
		}
		s := segment{
			name: m[2], rest: m[1] != "", kind: strings.TrimPrefix(m[3], ":"),
			value: strings.TrimPrefix(m[4], "="), optional: m[5] != "" || m[4] != "" || m[1] != "",
		}
		switch s.kind {
		case "", "int", "long", "bool", "alpha", "guid":
		default:
			return route{}, fmt.Errorf("has the constraint %.60q; understood are int, long, bool, alpha and guid", s.kind)
		}
		if s.rest && i != len(parts)-1 {
			return route{}, fmt.Errorf("has something behind {*%s}, which takes all the rest", s.name)
		}
		if names[strings.ToLower(s.name)] {
			return route{}, fmt.Errorf("has the parameter %q twice", s.name)
		}
		names[strings.ToLower(s.name)] = true
		r.segments = append(r.segments, s)
	}
	for i := range r.segments[:len(r.segments)-1] {
		if r.segments[i].optional && !r.segments[i+1].optional {
			return route{}, fmt.Errorf("has a part that must be there behind {%s}, which need not", r.segments[i].name)
		}
	}
	return r, nil
}

// match compares a decoded path. Literals match whatever their letter case.
func (r *route) match(path string) (map[string]string, bool) {
	rest := strings.Trim(path, "/")
	params := map[string]string{}
	for i := range r.segments {
		s := &r.segments[i]
		if s.rest {
			if rest != "" || s.value != "" {
				params[s.name] = rest
			}
			if rest == "" && s.value != "" {
				params[s.name] = s.value
			}
			return params, true
		}
		part, after, _ := strings.Cut(rest, "/")
		switch {
		case s.name == "":
			if !strings.EqualFold(part, s.literal) {
				return nil, false
			}
		case part == "" && !s.optional:
			return nil, false
		case part == "":
			if s.value != "" {
				params[s.name] = s.value
			}
		case !s.accepts(part):
			return nil, false
		default:
			params[s.name] = part
		}
		rest = after
	}
	return params, rest == ""
}

// better reports whether r says more of the same path than o: the first difference
// decides, a literal before a constrained parameter before a free one before the
// rest.
func (r *route) better(o *route) bool {
	for i := range min(len(r.segments), len(o.segments)) {
		if a, b := r.segments[i].weight(), o.segments[i].weight(); a != b {
			return a > b
		}
	}
	return len(r.segments) < len(o.segments) // the longer one has parts that may be missing
}

func (s *segment) weight() int {
	switch {
	case s.name == "":
		return 3
	case s.rest:
		return 0
	case s.kind != "":
		return 2
	default:
		return 1
	}
}

var guidForm = regexp.MustCompile(`^(?i:[0-9a-f]{8}-?(?:[0-9a-f]{4}-?){3}[0-9a-f]{12})$`)

func (s *segment) accepts(v string) bool {
	switch s.kind {
	case "int":
		n, err := strconv.ParseInt(v, 10, 64)
		return err == nil && n >= math.MinInt32 && n <= math.MaxInt32
	case "long":
		_, err := strconv.ParseInt(v, 10, 64)
		return err == nil
	case "bool":
		return strings.EqualFold(v, "true") || strings.EqualFold(v, "false")
	case "alpha":
		return strings.IndexFunc(v, func(r rune) bool { return r > unicode.MaxASCII || !unicode.IsLetter(r) }) < 0
	case "guid":
		return guidForm.MatchString(v)
	default:
		return true
	}
}

// begins reports whether a path that does not match is this route's all the same: it has
// the literal parts that stand before the first parameter. Of a route without parameters
// it says no, since such a route checks nothing.
func (r *route) begins(path string) bool {
	rest := strings.Trim(path, "/")
	for i := range r.segments {
		if r.segments[i].name != "" {
			return true
		}
		part, after, _ := strings.Cut(rest, "/")
		if !strings.EqualFold(part, r.segments[i].literal) {
			return false
		}
		rest = after
	}
	return false
}

// choose finds the function that an invocation is for. name is what the caller asked
// for when it is no request, or when no route matches: an app with one function needs
// no asking. What the route's own parameters refuse stays refused: the code counts on
// {id:int} being one.
func (a *App) choose(method, path, name string) (*Function, map[string]string, bool) {
	var found *Function
	var params map[string]string
	for _, f := range a.Functions {
		if !f.HTTP() || !f.allows(method) {
			continue
		}
		if p, ok := f.route.match(path); ok && (found == nil || f.route.better(&found.route)) {
			found, params = f, p
		}
	}
	if found != nil {
		return found, params, true
	}
	for _, f := range a.Functions {
		if f.Name == name || len(a.Functions) == 1 {
			return f, nil, !f.HTTP() || f.allows(method) && !f.route.begins(path)
		}
	}
	return nil, nil, false
}

func (f *Function) allows(method string) bool {
	for _, m := range f.Trigger.Methods {
		if strings.EqualFold(m, method) {
			return true
		}
	}
	return len(f.Trigger.Methods) == 0
}

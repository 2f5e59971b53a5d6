package gateway

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"github.com/casemate-dev/casemate/internal/function"
)

// Route is a trigger bound to a function. Path is a pattern: a segment may be a
// parameter {name}, the last one {name...} takes all that follows. It matches
// whole paths only; "/files/" is that path and nothing below it. Method ANY
// stands for every method; GET answers HEAD too.
type Route struct {
	Ref     function.Ref
	Trigger function.HTTPTrigger
}

const (
	methodAny       = "ANY"
	namespacePrefix = "/~"         // then the namespace; default has no prefix
	reservedPrefix  = "/.casemate" // the node's own
)

// table is immutable once stored. Each namespace has a mux of its own, so that
// no pattern of one can catch a path of another, and none can conflict.
type table struct {
	namespaces map[string]*http.ServeMux
	size       int // routes that are served
}

// endpointKind says what a request to an endpoint is.
type endpointKind int

const (
	toFunction   endpointKind = iota // a call; also those of the Lambda API
	toHook                           // for a webhook trigger of the function
	toTopic                          // events to publish; the topic is the name in ref
	toInvocation                     // a question about one that was accepted
	toValue                          // in a key-value bucket, the name in ref
)

// endpoint is what a route needs at run time, computed once.
type endpoint struct {
	kind      endpointKind
	ref       function.Ref
	name      string // of the function, for the log
	route     string // method and pattern, as in the manifest
	public    bool
	bodyLimit int64
	cors      *corsPolicy
	params    []string
	mounted   int // bytes of the /~namespace in front of the path

	hook       string // path of the trigger, of toHook
	invocation string // id, of toInvocation
	key        string // of toValue; "" for a list
}

// ServeHTTP tells the prober which endpoint matched, and sends nothing.
func (e *endpoint) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	if p, ok := w.(*probe); ok {
		p.found = e
	}
}

// SetRoutes replaces all routes at once. One that cannot be served is left out,
// of two that conflict the later one, and the error says which and why. The
// others take effect all the same: else one namespace's mistake would keep a
// route open that another has just closed.
func (g *Gateway) SetRoutes(routes []Route) error {
	t := &table{namespaces: make(map[string]*http.ServeMux)}
	var faults []error
	for i := range routes {
		if err := t.add(&routes[i]); err != nil {
			faults = append(faults, fmt.Errorf("setting route %s %q of %s: %v", routes[i].Trigger.Method, routes[i].Trigger.Path, routes[i].Ref, err))
			continue
		}
		t.size++
	}
	g.routes.Store(t)
	return errors.Join(faults...)
}

func (t *table) add(r *Route) error {
	if !function.ValidName(r.Ref.Namespace) || !function.ValidName(r.Ref.Name) {
		return fmt.Errorf("malformed name of a function")
	}
	if r.Trigger.Webhook != "" {
		return t.addHook(r)
	}
	method := r.Trigger.Method
	if !servedMethod(method) {
		return fmt.Errorf("method cannot be served: name one in upper case, or ANY")
	}
	if err := checkPattern(r.Trigger.Path); err != nil {
		return err
	}
	cors, err := compileCORS(r.Trigger.CORS, method)
	if err != nil {
		return err
	}
	e := &endpoint{
		ref: r.Ref, name: r.Ref.String(), route: method + " " + r.Trigger.Path,
		public: r.Trigger.Public, bodyLimit: r.Trigger.BodyLimit, cors: cors, params: parameters(r.Trigger.Path),
	}
	switch {
	case e.bodyLimit == 0:
		e.bodyLimit = function.DefaultBodyLimit
	case e.bodyLimit < 0 || e.bodyLimit > function.MaxBodyLimit:
		return fmt.Errorf("body limit is %d bytes: give 1 to %d", e.bodyLimit, function.MaxBodyLimit)
	}
	pattern := r.Trigger.Path
	if strings.HasSuffix(pattern, "/") {
		pattern += "{$}" // else the mux would serve everything below it
	}
	return t.mount(r.Ref.Namespace, method, pattern, e)
}

// addHook adds the route of a webhook trigger. Its path is a literal. Senders of
// CloudEvents ask by OPTIONS whether they may deliver; which triggers answer that is for
// the hooks to say.
func (t *table) addHook(r *Route) error {
	path := r.Trigger.Path
	if r.Trigger.Method != http.MethodPost || strings.ContainsAny(path, "{}") || strings.HasSuffix(path, "/") {
		return fmt.Errorf("a webhook has one path without parameters and takes POST alone")
	}
	if err := checkPattern(path); err != nil {
		return err
	}
	if r.Trigger.Public || r.Trigger.CORS != nil {
		return fmt.Errorf("a webhook is neither public nor for browsers: its senders sign")
	}
	e := &endpoint{
		kind: toHook, ref: r.Ref, name: r.Ref.String(), route: http.MethodPost + " " + path, hook: path, bodyLimit: r.Trigger.BodyLimit,
	}
	switch {
	case e.bodyLimit == 0:
		e.bodyLimit = function.DefaultBodyLimit
	case e.bodyLimit < 0 || e.bodyLimit > maxHookBody:
		return fmt.Errorf("body limit is %d bytes: give 1 to %d", e.bodyLimit, maxHookBody)
	}
	if err := t.mount(r.Ref.Namespace, http.MethodPost, path, e); err != nil {
		return err
	}
	if err := t.mount(r.Ref.Namespace, http.MethodOptions, path, e); err != nil {
		return fmt.Errorf("it takes events but answers no handshake: %v", err)
	}
	return nil
}

// mount registers an endpoint in the namespace's mux.
func (t *table) mount(namespace, method, pattern string, e *endpoint) error {
	if namespace != function.DefaultNamespace {
		prefix := namespacePrefix + namespace
		e.mounted = len(prefix)
		pattern = prefix + pattern
	}
	if method != methodAny {
		pattern = method + " " + pattern
	}
	mux := t.namespaces[namespace]
	if mux == nil {
		mux = http.NewServeMux()
		t.namespaces[namespace] = mux
	}
	return handle(mux, pattern, e)
}

// handle registers a pattern; http.ServeMux can only say no by a panic.
func handle(mux *http.ServeMux, pattern string, e *endpoint) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("cannot be served beside the others: %v", v)
		}
	}()
	mux.Handle(pattern, e)
	return nil
}

// checkPattern refuses patterns that no canonical path can match, or that reach
// for what is not a function's.
func checkPattern(pattern string) error {
	if pattern == "" || pattern[0] != '/' {
		return fmt.Errorf("path must begin with /")
	}
	if strings.ContainsAny(pattern, "?# \t") || strings.Contains(pattern, "{$}") {
		return fmt.Errorf("path holds a character that a route cannot have: remove ?, #, {$} and blanks")
	}
	decoded, reason := decodedPath(pattern)
	if reason != "" {
		return fmt.Errorf("path can never match: %s", reason)
	}
	if _, err := url.ParseRequestURI(pattern); err != nil {
		return fmt.Errorf("path can never match: it is malformed")
	}
	if strings.HasPrefix(decoded, namespacePrefix) || isReserved(decoded) || isLambda(decoded) {
		return fmt.Errorf("path is reserved: choose one that begins neither with /~ nor with %s or %s", reservedPrefix, lambdaPrefix)
	}
	return nil
}

func isReserved(path string) bool {
	rest, ok := strings.CutPrefix(path, reservedPrefix)
	return ok && (rest == "" || rest[0] == '/')
}

// parameters lists the names in a pattern.
func parameters(pattern string) []string {
	var names []string
	for segment := range strings.SplitSeq(pattern, "/") {
		if name, ok := strings.CutPrefix(segment, "{"); ok {
			names = append(names, strings.TrimSuffix(strings.TrimSuffix(name, "}"), "..."))
		}
	}
	return names
}

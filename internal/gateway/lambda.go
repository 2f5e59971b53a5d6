package gateway

import (
	"net/http"
	"net/url"
	"regexp"
	"strings"

	"github.com/casemate-dev/casemate/api/problem"
	"github.com/casemate-dev/casemate/internal/function"
	"github.com/casemate-dev/casemate/internal/identity"
)

// This file and its neighbours lambda*.go serve the part of the AWS Lambda API by
// which functions are called and looked at, so that clients of AWS work against a
// node as they are. It is one more way through the same stages, not another door.
// Source: AWS Lambda API Reference, version 2015-03-31.

// lambdaPrefix begins every path of the API. No trigger can have it.
const lambdaPrefix = "/2015-03-31"

// Signatures begins to check a request that is signed with an access key; see
// identity.Keys.
type Signatures interface {
	Signed(r *identity.SignedRequest) (*identity.Signature, error)
}

// Functions knows what is deployed. Its errors are *problem.Error.
type Functions interface {
	// Resolve finds a version by alias or by hex digits; roll decides a split alias.
	Resolve(ref function.Ref, qualifier string, roll func(n int) int) (v *function.Version, alias string, err error)
	// Versions lists those of a function, newest first.
	Versions(ref function.Ref) ([]*function.Version, error)
	// Refs lists every function of every namespace.
	Refs() []function.Ref
	// Alias gives the shares of an alias, the largest first.
	Alias(ref function.Ref, name string) ([]Share, error)
}

// Share is what part of an alias's calls a version gets.
type Share struct {
	Version function.Digest
	Percent int
}

// Lambda is what the Lambda API is served from. Both fields must be given.
type Lambda struct {
	Keys      Signatures
	Functions Functions
}

// lambdaOperation is named as AWS names it.
type lambdaOperation string

const (
	opInvoke           lambdaOperation = "Invoke"
	opListFunctions    lambdaOperation = "ListFunctions"
	opGetFunction      lambdaOperation = "GetFunction"
	opGetConfiguration lambdaOperation = "GetFunctionConfiguration"
	opListVersions     lambdaOperation = "ListVersionsByFunction"
	opGetAlias         lambdaOperation = "GetAlias"
)

// lambdaRequest is what a request to the API asks for.
type lambdaRequest struct {
	op        lambdaOperation
	name      string // as the API spells it: function or namespace_function
	qualifier string // alias or version; live when empty
	alias     string // of GetAlias
	query     url.Values
	signature *identity.Signature
	answer    *lambdaAnswer
}

func isLambda(path string) bool {
	rest, ok := strings.CutPrefix(path, lambdaPrefix)
	return ok && (rest == "" || rest[0] == '/')
}

// routeLambda finds out what is asked. From here on the request is answered in the
// form of AWS.
func (g *Gateway) routeLambda(x *exchange, path string) error {
	if g.lambda == nil {
		return problem.New(problem.NotFound, "nothing is served here")
	}
	l := &lambdaRequest{}
	x.lambda = l
	unknown := &lambdaError{"UnknownOperationException", problem.New(problem.NotFound, "this operation is not served here")}
	parts := strings.Split(strings.TrimPrefix(path, lambdaPrefix), "/")[1:]
	if len(parts) == 0 || parts[0] != "functions" {
		return unknown
	}
	method, route, limit := http.MethodGet, lambdaPrefix+"/functions", int64(0)
	name := ""
	switch {
	case len(parts) == 1, len(parts) == 2 && parts[1] == "":
		l.op, route = opListFunctions, route+"/"
	case len(parts) == 2:
		l.op, name, route = opGetFunction, parts[1], route+"/{name}"
	case len(parts) == 3 && parts[2] == "configuration":
		l.op, name, route = opGetConfiguration, parts[1], route+"/{name}/configuration"
	case len(parts) == 3 && parts[2] == "versions":
		l.op, name, route = opListVersions, parts[1], route+"/{name}/versions"
	case len(parts) == 4 && parts[2] == "aliases":
		l.op, name, l.alias, route = opGetAlias, parts[1], parts[3], route+"/{name}/aliases/{alias}"
	case len(parts) == 3 && parts[2] == "invocations":
		l.op, name, route = opInvoke, parts[1], route+"/{name}/invocations"
		method, limit = http.MethodPost, function.MaxBodyLimit
	default:
		return unknown
	}
	x.target = &endpoint{route: method + " " + route, bodyLimit: limit}
	if x.r.Method != method {
		return unknown
	}
	var err error
	if l.query, err = singleQuery(x.r.URL.RawQuery); err != nil {
		return err
	}
	if l.op == opListFunctions {
		return nil
	}
	if x.target.ref, err = l.take(name); err != nil {
		return err
	}
	x.target.name = x.target.ref.String()
	return nil
}

// singleQuery reads the query; what is there twice could be read as either.
func singleQuery(raw string) (url.Values, error) {
	q, err := url.ParseQuery(raw)
	if err != nil {
		return nil, problem.New(problem.BadRequest, "the query is malformed").At("query")
	}
	for name, values := range q {
		if len(values) > 1 {
			return nil, problem.New(problem.BadRequest, "a parameter is there twice").At(loggable(name))
		}
	}
	return q, nil
}

// lambdaNameForm is what the API takes for a function: its name, a partial ARN or
// a whole one, and a qualifier if any.
var lambdaNameForm = regexp.MustCompile(
	`^(?:(?:arn:aws[a-z-]{0,20}:lambda:[a-z0-9-]{1,64}:)?[0-9]{12}:)?(?:function:)?([A-Za-z0-9_-]{1,140})(?::(\$LATEST|[A-Za-z0-9_-]{1,128}))?$`)

var lambdaQualifierForm = regexp.MustCompile(`^(?:\$LATEST|[A-Za-z0-9_-]{1,128})$`)

// latest is the qualifier that in AWS means what an unqualified call means.
const latest = "$LATEST"

// take reads the function and the qualifier.
//
// A function of the default namespace goes by its name, one of another by
// namespace_name: AWS allows the underscore and our names do not have it, so that
// each function has one name and no two functions share one. The account of an
// ARN cannot carry a namespace, as it is twelve digits; it and the region are not
// looked at, since there is one node and the caller has chosen it.
func (l *lambdaRequest) take(text string) (function.Ref, error) {
	m := lambdaNameForm.FindStringSubmatch(text)
	if m == nil {
		return function.Ref{}, problem.New(problem.BadRequest, "this is neither the name nor the ARN of a function").At("FunctionName")
	}
	asked, given := m[2], l.query.Get("Qualifier")
	if given != "" && !lambdaQualifierForm.MatchString(given) {
		return function.Ref{}, problem.New(problem.BadRequest, "this is neither an alias nor a version").At("Qualifier")
	}
	if asked != "" && given != "" && asked != given {
		return function.Ref{}, problem.New(problem.BadRequest, "the name has another qualifier than the query").At("Qualifier")
	}
	if asked == "" {
		asked = given
	}
	if asked != latest {
		l.qualifier = asked
	}
	l.name = m[1]
	ref := function.Ref{Namespace: function.DefaultNamespace, Name: l.name}
	if ns, name, ok := strings.Cut(l.name, "_"); ok {
		ref = function.Ref{Namespace: ns, Name: name}
		if ns == function.DefaultNamespace { // it has one name, not two
			ref.Namespace = ""
		}
	}
	if !function.ValidName(ref.Namespace) || !function.ValidName(ref.Name) {
		return function.Ref{}, noLambda(l.name)
	}
	return ref, nil
}

func noLambda(name string) error {
	return problem.New(problem.NotFound, "Function not found: %s", name)
}

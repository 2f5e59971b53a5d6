package gateway

import (
	"errors"

	"github.com/casemate-dev/casemate/api/problem"
	"github.com/casemate-dev/casemate/internal/identity"
)

// signatureRefused is what a wrong signature, an unknown key, an expired and a
// revoked one have in common: the answer.
const signatureRefused = "The access key, or what was signed with it, is not valid."

// authenticateLambda looks at the signature as far as that goes without the body:
// its form, its date, what it is for, and that there is such a key.
func (g *Gateway) authenticateLambda(x *exchange) error {
	if len(x.r.Header[headerAPIKey]) > 0 {
		return &lambdaError{"IncompleteSignatureException", problem.New(problem.Forbidden, "an API key was sent beside the signature")}
	}
	s, err := g.lambda.Keys.Signed(&identity.SignedRequest{
		Method: x.r.Method, Target: x.r.RequestURI, Host: x.r.Host, Header: x.r.Header,
	})
	if err != nil {
		return refusedSignature(err)
	}
	x.lambda.signature = s
	return nil
}

// checkSignature establishes who calls, and that they may: a stage of its own, as
// a signature covers the body. What the key may do is asked after that, or whoever
// knows a key's id could find it out.
func (g *Gateway) checkSignature(x *exchange) error {
	if x.lambda == nil {
		return nil
	}
	principal, err := x.lambda.signature.Verify(x.body)
	if err != nil {
		return refusedSignature(err)
	}
	x.principal = principal
	action := identity.Read
	switch x.lambda.op {
	case opListFunctions:
		return nil // it lists what the key may read
	case opInvoke:
		action = identity.Invoke
	case opGetFunction, opGetConfiguration, opListVersions, opGetAlias:
	}
	if !principal.May(action, x.target.ref) {
		return &lambdaError{"AccessDeniedException", problem.New(problem.Forbidden, "the access key does not allow lambda:%s on %s: it has no scope %s:%s",
			x.lambda.op, x.lambda.name, action, x.target.ref)}
	}
	return nil
}

func refusedSignature(err error) error {
	var wrong *identity.SignatureError
	if !errors.As(err, &wrong) {
		return &lambdaError{"UnrecognizedClientException", problem.New(problem.Forbidden, "%s", signatureRefused).Because(err)}
	}
	name := "IncompleteSignatureException"
	switch wrong.Fault {
	case identity.SignatureMissing:
		name = "MissingAuthenticationTokenException"
	case identity.SignatureScope, identity.SignatureTime:
		name = "InvalidSignatureException"
	case identity.SignatureMalformed:
	}
	return &lambdaError{name, problem.New(problem.Forbidden, "%s", wrong.Reason)}
}

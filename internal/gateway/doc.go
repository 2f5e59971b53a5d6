// Package gateway is the door in for HTTP: it turns a request from the network
// into an invoke.Call, and the Outcome into an answer.
//
// Only node imports it. It imports the decider (invoke), identity for the words
// of a principal, function and event for those of a route and an event, state for the
// errors of a store, and api/problem; it knows neither registry nor sandbox nor where
// events come in, and no other door.
//
// # Order
//
// Every request passes the same stages in the same order, listed with the
// reason for each place in stages (gateway.go). A stage either lets the request
// go on, answers it, or refuses it with a *problem.Error, which is rendered in
// one place (refuse). No stage runs twice and none can be configured away.
//
// # What a function sees of a request
//
// Path is decoded and canonical, without the /~namespace in front of it. Header
// names are lower-case. Removed are: hop-by-hop fields and those that Connection
// names (RFC 9110, section 7.6.1); the caller's key (X-API-Key always, and
// Authorization when it carried a key of ours; on a public route any other
// Authorization is the function's own business and stays, as Cookie always
// does); everything that claims to come from a proxy or from us (Forwarded,
// X-Forwarded-*, X-Real-IP, Proxy, Proxy-*, Casemate-*); what would make a
// framework see another method or path than the one that was authorized
// (X-HTTP-Method-Override and its kin, X-Original-URL, X-Rewrite-URL); and names
// with an underscore, which some frameworks read as a hyphen. Added are host,
// content-length as the body has it, x-request-id and our own x-forwarded-for,
// -host and -proto. Trailers are dropped.
//
// # What a caller sees of an answer
//
// The function's header fields, without: hop-by-hop fields; Content-Length and
// Date, which are computed; X-Request-Id and Casemate-*, which only we say; and
// those by which one function would speak for the whole origin it shares with
// others (Strict-Transport-Security, Alt-Svc, Clear-Site-Data, NEL, Report-To,
// Public-Key-Pins, Service-Worker-Allowed). Malformed names or values are not
// repaired: the answer is refused with function_bad_answer.
//
// # Events
//
// A route of a webhook trigger takes no API key: who sends is known by a signature, which
// the hooks verify, and what is sent becomes an event and never a call. Events are published
// at /.casemate/topics/{topic}, in a namespace at /~namespace/.casemate/topics/{topic}, by
// keys with the scope publish, in the forms of CloudEvents. A caller that is allowed to
// invoke and sends "Prefer: respond-async" is answered 202 when the call is on disk, and
// asks at /.casemate/invocations/{id} what became of it; on the Lambda API the same is
// the invocation type Event. Each is answered only after what was sent is on disk.
//
// # The Lambda API
//
// Paths below /2015-03-31 are no function's: they are the part of the AWS Lambda
// API by which functions are called and looked at (lambda.go). Such a request
// passes the same stages; it is signed with an access key (identity.KindAWS) in
// place of carrying a key, and it is answered, and refused, in the form of AWS.
//
// # What net/http answers by itself
//
// A request that cannot be parsed never reaches a stage: net/http answers it
// with 400, 417, 431, 501 or 505 in plain text and closes the connection.
//
// # Concurrency
//
// A Gateway may be used from many goroutines. SetRoutes swaps the whole table at
// once: a request is routed by the table that was current when it reached the
// route stage and keeps its endpoint to the end.
package gateway

// Package cli is the casemate command: verbs over the public API of a node.
//
// Only cmd/casemate imports it. It imports nothing of internal outside its own
// folder: it is a client like any other, and the node that `up` starts is
// handed in. Everything it touches comes through Env (arguments, streams,
// environment, clock, how to start a node), so that whole commands run within a
// test.
//
// Results go to standard output and nothing else does; remarks, progress and
// errors go to standard error. With `-o json` a result is one JSON value made of
// the types of package api, or one to a line for a stream, and an error is a JSON
// object on standard error. The exit codes in errors.go are part of the
// interface. A key is shown by `key create` and by nothing else.
package cli

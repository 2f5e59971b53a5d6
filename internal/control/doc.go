// Package control is the operators' door: the API behind the command line, the
// console and continuous integration, as JSON over HTTPS on a listener of its own.
//
// Only node may import it. It is a door: it imports deciders, mechanisms and
// leaves, never another door, a sandbox or the vault. What it needs comes in
// through Config.
//
// # Order of the stages
//
// A request gets its id, a recover and an access record; then it is authenticated,
// whatever its path, so that nothing about the API is learnt without a key (only
// /healthz answers everybody); then routed; then its parameters and body are
// checked against the schema, unknown fields refused; then the operation's own
// guard asks whether a scope of the key allows it; then it is carried out. An
// operation cannot be registered without a guard.
//
// # Errors
//
// Each is an RFC 9457 problem from the catalogue in api/problem. Causes are
// logged, never answered.
//
// # Concurrency
//
// A Handler may be used from many goroutines and keeps no state but the log
// streams that are open, which Drain ends. Each change of state is logged as one
// line with the message "audit", naming principal, action, object and outcome.
package control

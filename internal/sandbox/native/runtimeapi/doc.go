// Package runtimeapi serves the AWS Lambda Runtime API, version 2018-06-01, to one box
// over the listener that was bound inside it: the listener says which box is speaking,
// and nothing that arrives on it is believed beyond that. internal/sandbox/native may
// import it; it imports the standard library alone.
//
// # Order
//
// A Server hands over one invocation at a time: Invoke waits until the runtime asks for
// one, gives it, and waits for its answer. Only the id of the invocation under way may
// be answered, once. All methods may be called from many goroutines; a second Invoke
// while one is under way fails with ErrBusy.
//
// # What a guest may ask
//
//	GET  /2018-06-01/runtime/invocation/next
//	POST /2018-06-01/runtime/invocation/{id}/response
//	POST /2018-06-01/runtime/invocation/{id}/error
//	POST /2018-06-01/runtime/init/error
//
// and nothing else: nothing here takes code or configuration, so a function cannot make
// itself anew for later callers. The documentation's runtime/restore/* and its extensions
// are not offered. Paths: https://docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html;
// the texts of refusals are those of AWS's own emulator of the interface.
//
// # What a hostile guest can take
//
// At most Options.MaxConnections connections, 16 KiB of header on each, and the body of
// one answer, up to Options.MaxResponse; a body that nobody waits for is never kept.
package runtimeapi

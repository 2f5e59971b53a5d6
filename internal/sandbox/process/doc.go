// Package process is the node's side of the wasm tier: it starts sandbox
// processes, watches over them, and runs versions in them. It implements
// sandbox.Runner. Main is the other side: what the same binary does when it was
// started as a sandbox.
//
// Only internal/node may import it to build a Runner, and cmd/casemate to call
// Main. Nothing else in the node starts processes.
//
// # One namespace, one process
//
// A process serves one namespace from its first version to its end and is never
// given to another. Processes are started ahead, with nothing in them, so that a
// new namespace or a replaced sandbox does not wait for one. A process that ends,
// breaks the protocol, does not stop a guest when told to, or takes more memory
// than it may is killed; the calls in it fail with sandbox.Lost and the next call
// gets a new process.
//
// A process whose namespace nobody calls ends, and a version that nobody calls is
// unloaded before that.
//
// # Compiled code
//
// A module is compiled once, in a process of its own that runs no guest and ends
// afterwards, and what came of it is kept by whoever implements Code. Sandboxes get
// the compiled code. Scripts are sent as they are, to the engine that a process has
// loaded for all of them.
//
// # What locks a process in
//
// The file lockdown_linux.go, in the order in which it happens, and Posture, which
// says what of it is in force on this machine. Measures that this package does not
// take (a filter of system calls, a limit on files by Landlock, control groups, a
// separate process that starts the others) are listed by Posture as missing.
//
// # Concurrency
//
// A Runner may be used from many goroutines. Lock order: Runner.mu, tenant.mu,
// process.sending, process.mu; besides process.sending, none is held while a frame is
// sent, a process is started or a callback runs.
package process

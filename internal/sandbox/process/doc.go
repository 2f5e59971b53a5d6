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
// the compiled code: it is unsealed into a file without a name that the one process has
// from its start, to read only, and is executed from there (codeFile). Scripts are sent as
// they are, to the engine that a process has loaded for all of them.
//
// # What locks a process in
//
// Config.Boxes: a process is started in a box (package box), which has everything
// around it before its first instruction: namespaces, a user of its own, an empty root,
// control groups, Landlock, a filter of system calls, no privileges. Before it reads the
// first byte from the node, the process adds a stricter filter for all its threads, the
// seal, under which it opens, connects to, executes and starts nothing any more.
//
// Where there are no boxes the node starts processes itself, and they lock themselves in
// as far as they can, seal included: the file lockdown_linux.go, in the order in which it
// happens. The way is chosen when the Runner is made, and never becomes a weaker one
// later. Posture says what is in force and what is not, with the reason.
//
// # Concurrency
//
// A Runner may be used from many goroutines. Lock order: Runner.mu, tenant.mu,
// process.sending, process.mu; besides process.sending, none is held while a frame is
// sent, a process is started or a callback runs.
package process

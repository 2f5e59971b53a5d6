// Package native runs versions that are programs of the operating system: code
// written for AWS Lambda, for HTTP on $PORT, or as an Azure Functions custom handler.
// It implements sandbox.Runner.
//
// Only internal/node builds a Runner. What a sandbox is made of comes in as a Launcher:
// boxes (see the package box below sandbox), or bare processes where an operator said
// that he wants no sandbox. What is spoken with the code inside is below this package:
// runtimeapi, web and azure; layout and bundle lay out its files.
//
// # Isolation
//
// A sandbox holds one version of one function of one namespace, from its start to its
// end, and one invocation at a time. With instance isolation it serves a bounded number
// of them for a bounded time; between two of them its processes are stopped. With
// invocation isolation each gets one that was started ahead and that nobody used.
// Code whose caller leaves may finish within its limits where its sandbox is used again,
// as with AWS Lambda and Cloud Run: to stop it would cost the sandbox. Until then Invoke
// does not return, so that a caller who leaves holds as much as one who stays.
// Nothing that reaches a running sandbox carries code or configuration.
//
// # Room
//
// Sandboxes are started by demand: not while those in use will come free sooner than
// another could start, by how long uses took lately, and nobody waits for long on that
// word. Each claims its memory limit from a budget for as
// long as it lives; when the budget is spent, idle ones give way, the longest resting
// first, and when there are none, the call fails with sandbox.Unavailable. Few start at
// once, namespaces in turn, and those of a version whose instances keep dying are put off
// (setback.go). An invocation that computes for long makes way for those that
// answer quickly (manners.go).
//
// # Concurrency
//
// A Runner may be used from many goroutines. Lock order: Runner.mu, then pool.mu.
package native

// Package build turns a function's source into what a node takes, on the
// developer's machine: one WASI preview 1 module, made by the compiler the
// developer has; or, of JavaScript and TypeScript, one ES module as text, made by
// a bundler that is linked in and runs nothing of what it bundles; or, of code for
// another platform (files native*.go), one zip archive of a folder with its
// dependencies, which npm and pip install without running anything of theirs. A node
// never builds: a build runs what the source and its dependencies say.
//
// Build starts compilers directly, never through a shell, with an environment
// reduced to the names in environment.go, so that a credential in the caller's
// shell does not reach a build script. Everything a compiler starts is stopped
// when the context ends. The same source gives the same bytes from any folder.
//
// It belongs to the command line and imports nothing of the platform. Build may
// be called from many goroutines, also for the same folder.
package build

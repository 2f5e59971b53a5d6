// Package build turns a function's source into one WASI preview 1 module, on the
// developer's machine, with the compiler the developer has. A node never builds:
// a build runs what the source and its dependencies say.
//
// Build starts compilers directly, never through a shell, with an environment
// reduced to the names in environment.go, so that a credential in the caller's
// shell does not reach a build script. Everything a compiler starts is stopped
// when the context ends. The same source gives the same bytes from any folder.
//
// It belongs to the command line and imports nothing of the platform. Build may
// be called from many goroutines, also for the same folder.
package build

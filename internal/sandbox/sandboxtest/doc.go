// Package sandboxtest is the suite that each sandbox.Runner must pass: limits and
// the kinds of their breach, fresh state, what a guest can reach, neighbours, and
// what happens when a sandbox is lost. Its guests are modules that it assembles
// itself, and programs in Go that it compiles with the toolchain that runs the test.
//
// Only tests import it.
package sandboxtest

// Package nativetest is the suite that runs on each Launcher of the native tier: what a
// function may rely on, and what it must not be able to do to the next invocation. It
// is for tests alone, and builds its guest with the Go toolchain.
package nativetest

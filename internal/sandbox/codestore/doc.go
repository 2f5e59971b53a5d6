// Package codestore keeps compiled code on disk, so that a module is compiled once
// for a node and not once for each of its sandboxes. internal/node makes the store
// and hands it to the runner; nothing else imports it. It imports leaves only.
//
// # What it promises
//
// Compiled code is executed as it is, so Get gives exactly what Put was given under
// that key, or nothing; Fetch the same, to where the caller wants it, from several
// goroutines. Each file is sealed in pieces with AES-256-GCM under a key of its own, which
// follows from the node's: it covers the file's key and its content, and hides the
// content, since a module may say more than its author thinks. A file whose seal does not hold, or which
// is not a plain file, is removed and reported, and its code is made anew.
//
// The store is bounded; the files that were used the longest ago make way. It is a
// cache: whoever loses the directory loses time.
//
// # Concurrency
//
// A Store may be used from many goroutines. Puts take turns; a Get never waits for
// a file that is being written. One Store may have a directory.
package codestore

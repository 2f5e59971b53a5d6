// Package outcome remembers what became of asynchronous invocations, so that whoever
// asked for one can look it up later.
//
// It is a mechanism: node imports it and hands it an append-only stream. It imports
// leaves alone. A Store may be used from many goroutines.
//
// # What it promises
//
//   - Pending and Done return after the record is on disk. Done may be told twice, for
//     an invocation that nobody asked about, or for one that is forgotten: that is no error.
//   - An outcome is kept for Config.Keep after its end, unless its namespace holds more
//     than its share (Config.Records, Config.Bytes): then the oldest of that namespace go
//     first. One namespace never pushes out another's, until all of them together hold
//     four times a share; then the largest one gives way.
//   - What is still pending is never pushed out. It is given up MaxWait after it was
//     accepted, which no event outlives.
//
// # How it is kept
//
// Two records for each invocation, one when it is accepted and one when it has ended, in
// one channel for each namespace. The index over them is in memory and is made anew by
// reading them when the Store is opened. To make room the head of a channel is purged;
// what is pending in it is written again at the tail first, so that a crash in between
// leaves a record twice and never none.
//
// # Locks
//
// Store.sweeping, then Store.writes, then Store.mu. Whoever writes holds writes for
// reading from before it writes until the index knows; a sweep takes it for writing to
// be sure that it knows every record up to the one where it cuts.
package outcome

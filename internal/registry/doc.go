// Package registry keeps what is deployed: artifacts named by their digest,
// immutable versions, and the movable aliases that say which version answers.
//
// Doors, invoke and node may import it. It is a mechanism: it imports no other
// one and takes its storage as two small interfaces.
//
// # What is stored
//
//	function.<namespace>.<name>       one record: every alias, its history, the list of versions
//	version.<namespace>.<name>.<hex>  one immutable version, checked against its own digest on load
//	artifact.<hex>                    size and time of the last upload of a blob
//	blob <hex>                        the code itself
//
// A version exists when its function's record lists it. It is written before the
// record that lists it and removed after the record that no longer does, so a
// crash between any two writes leaves each function either as it was or as it was
// to become; what the crash left over is collected later. All aliases of a
// function share one record, so a move and its history are one write.
//
// # Concurrency
//
// Reads (Resolve, Function, Functions, Version, Versions, Routes) look at an
// immutable snapshot: no lock, no I/O, any number of goroutines. Mutations are
// serialised in this process and guarded by compare-and-set on the record in the
// store. A mutation that has returned is visible to every read begun after it,
// and its watchers have been called. Every value handed out is shared: treat it
// as read-only.
//
// Another process writing to the same store cannot make a mutation go wrong, but
// its changes are seen here only when the function is next planned or changed.
package registry

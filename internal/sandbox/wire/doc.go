// Package wire is the language that a node and its sandbox processes speak over
// a socketpair: length-prefixed frames that many invocations share, and the
// forms of what the frames carry.
//
// The packages process (the node's side) and wasm (the sandbox's side) may
// import it. It imports leaves only.
//
// # Frames
//
// A frame is a header of nine bytes (length of the payload, type, stream; little
// endian) and at most MaxPayload bytes. A stream is one conversation: a loaded
// version or an invocation, numbered by the node. Whatever is longer than one
// payload travels in pieces, so that a large body of one invocation lets the
// small ones of others pass.
//
//	node → sandbox                      sandbox → node
//	Load    what to load                Ready      what the process locked down
//	Code    a piece of its bytes        Loaded     the version can run
//	Unload  forget it                   LoadFailed why it cannot
//	Invoke  handle, time, first bytes   Log        lines of the guest's log
//	Body    a further piece             Result     usage, first bytes of the answer
//	Cancel  stop it                     Answer     a further piece
//	                                    Failed     usage, and why
//	                                    Compiled   what was asked to be compiled
//	                                    Machine    a piece of its code
//
// # Trust
//
// The node believes nothing of what a sandbox sends: each length is checked
// against a bound before anything is allocated, and a frame that breaks a rule
// is an error, after which the connection is of no more use. Frames of one
// stream arrive in the order in which they were written; between streams
// nothing is promised.
package wire

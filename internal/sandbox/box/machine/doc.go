// Package machine makes processes that have no language runtime: a program of some
// hundred instructions that does one system call after the other, as a list says which
// another process has sent it. It starts in a tenth of the time that a Go program takes,
// and holds some ten pages of memory of its own instead of three hundred.
//
// The list is made by a [Program], which knows every address in the process before
// there is one, so nothing is left to be resolved: Image gives the executable, the same
// for all lists, and Packet what is sent to it. The first packet that comes on the
// descriptor [Connection] is the list; the descriptors beside it become the lowest ones
// that are free, in their order.
//
// Each call says what its result has to be. One that fails is noted down, and the
// machine goes on with the handler of failures, which the list sets. Results can be
// stored, in the arguments of other calls for instance, and decide which call is next:
// that is enough for an endless loop that serves requests.
//
// Only internal/sandbox/box and its children may import it. A Program is for one
// goroutine.
package machine

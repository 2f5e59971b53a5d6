// Package state is the contract for small metadata: keys, values and revisions
// with compare-and-set. The package bus implements it; whoever keeps metadata
// declares the part it needs as an interface of its own and matches the errors
// named here.
//
// It is a leaf and holds no state.
package state

import "errors"

// Errors that callers match.
var (
	// ErrNotFound means that no value is stored under the key.
	ErrNotFound = errors.New("no such key")
	// ErrConflict means that the key exists already (on create) or has moved
	// on from the revision given (on update and delete): read again and retry.
	ErrConflict = errors.New("key was changed by somebody else")
)

// Entry is one stored value. Revisions grow; 0 is never one.
type Entry struct {
	Key      string
	Value    []byte
	Revision uint64
}

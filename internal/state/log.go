package state

import (
	"errors"
	"time"
)

// Errors of every kind of store.
var (
	// ErrCorrupt means that what is stored is not what was written: its digest
	// does not fit. Nothing of it was handed out.
	ErrCorrupt = errors.New("stored data is corrupt")
	// ErrFull means that the store has no room for more; nothing was written.
	ErrFull = errors.New("no space is left for data")
)

// LogFilter selects records of an append-only log. Its zero value selects all
// that are there now.
type LogFilter struct {
	Namespace string    // "": every one
	Function  string    // "": every one
	Since     time.Time // appended then or later
	After     uint64    // sequence above this one
	Follow    bool      // go on with new records until the context ends
}

// LogRecord is one record of an append-only log. Sequences grow in the order of
// appending; 0 is never one.
type LogRecord struct {
	Namespace string
	Function  string
	Sequence  uint64
	Time      time.Time // of appending
	Data      []byte
}

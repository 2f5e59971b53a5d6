// Package keyvalue is the platform's own store of small values: buckets of a namespace,
// keys in them, with revisions, compare-and-set and an age to live, and the log of what
// changed. A bucket is there while a key is in it.
//
// Only node imports it. Every method of Store is safe for concurrent use; there is one
// Store for a KV and a Log at a time.
//
// # Order and durability
//
// A change is first an entry of the log, with the value of before and of after, and then
// a record in the KV; it is answered when both are on disk. The sequence of the entry is
// the revision of the change, so revisions grow over all keys. A change that a crash or
// an error left half done, in the log and not in the KV, is finished: by the next use of
// the key, by Sweep, or by Open, which reads the log from a checkpoint on. Changes of one
// key are made one after another, and whoever reads or is told of one sees no older value
// afterwards.
//
// In memory the store keeps the names of all keys, in order, and no values: about 100
// bytes a key and the key itself.
//
// # Records
//
// A key may hold any text, and a KV remembers each name that was ever used, so records
// are named by numbered slots, which are used again: v.PAGE.SLOT. The record holds
// namespace, bucket and key, and the KV's own digest ties it to its slot. "pages" says
// how many pages there may be, "checkpoint" up to where the log has been carried out.
package keyvalue

import (
	"context"
	"errors"
	"time"

	"github.com/casemate-dev/casemate/internal/state"
)

// Bounds.
const (
	MaxKey   = 512     // bytes of a key
	MaxValue = 1 << 20 // bytes of a value
	MaxType  = 255     // bytes of a content type
	MaxTTL   = 10 * 365 * 24 * time.Hour
	MaxList  = 1000 // keys of one page of a list

	// MaxTold is the size in bytes up to which a change carries a value. Two of them, in
	// base64, fit into what a function accepts by default.
	MaxTold = 256 << 10

	maxBuckets    = 1000             // of a namespace
	maxUnfinished = 64               // changes that failed half way; with more, none is begun
	writeTime     = 20 * time.Second // for one change, whoever waits for it
	pageSlots     = 128
	maxPages      = 1 << 20
)

// Defaults of Config.
const (
	DefaultNamespaceKeys        = 100_000
	DefaultNamespaceBytes int64 = 1 << 30 // keys and values
	DefaultStoreBytes     int64 = 8 << 30
	DefaultRate           int64 = 4 << 20 // bytes of changes per second
	DefaultBurst          int64 = 64 << 20
)

// Errors that callers match, besides state.ErrFull and state.ErrCorrupt.
var (
	ErrBucket    = errors.New("the name of a bucket must be lower-case letters, digits and hyphens, a letter first, at most 63")
	ErrKey       = errors.New("the key is not accepted")
	ErrValue     = errors.New("the value is not accepted")
	ErrTooLarge  = errors.New("the value is too large")
	ErrNoKey     = errors.New("there is no such key")
	ErrCondition = errors.New("a condition does not hold")
	ErrTooMany   = errors.New("there are too many")
	ErrBusy      = errors.New("too much is changed at once")
	// ErrUndecided means that the change may have been made, or will be.
	ErrUndecided = errors.New("it is not known whether the change was made")
)

// KV is where records are kept, a bucket of internal/bus of the store's own.
type KV interface {
	Get(ctx context.Context, key string) (state.Entry, error)
	Create(ctx context.Context, key string, value []byte) (uint64, error)
	Update(ctx context.Context, key string, value []byte, rev uint64) (uint64, error)
	Delete(ctx context.Context, key string, rev uint64) error
	List(ctx context.Context, prefix string) ([]state.Entry, error)
}

// Log is where changes are kept, events of internal/bus of the store's own. They must be
// kept, and ids remembered, for longer than writeTime and longer than a node needs to
// start.
type Log interface {
	// Publish stores an entry and returns its sequence, that of the first one when the id
	// was there before. An error other than state.ErrFull or that of ctx leaves open
	// whether it did.
	Publish(ctx context.Context, e Entry) (sequence uint64, err error)
	// Read calls fn with the records after a sequence, in order and to the end of what is
	// there now, until it returns false. Namespace and channel may be empty, for all.
	// What is damaged is left out, and Read then fails with state.ErrCorrupt at the end.
	Read(ctx context.Context, namespace, channel string, after uint64, fn func(Record) bool) error
}

// Entry is to be stored in a Log.
type Entry struct {
	Namespace string
	Channel   string // kv.BUCKET
	ID        string
	Data      []byte
}

// Record is stored in a Log.
type Record struct {
	Namespace string
	Channel   string
	Sequence  uint64
	Time      time.Time
	Data      []byte
}

// Operations of a Change.
const (
	OpPut    = "put"
	OpDelete = "delete"
)

// Value is what is stored under a key.
type Value struct {
	Key         string
	Revision    uint64
	Data        []byte
	ContentType string
	Modified    time.Time
	Expires     time.Time // zero: never
	By          string    // who stored it
}

// Change is a key that was given a value or lost it.
type Change struct {
	Namespace string
	Bucket    string
	Key       string
	Operation string // OpPut or OpDelete
	Revision  uint64
	Previous  uint64 // revision of the value before; 0 when there was none
	Time      time.Time
	By        string // who did it; "" when it expired
	Expired   bool   // a deletion because the time had come
	New, Old  *Told  // nil when there is none
	Expires   time.Time
}

// Told is a value in a change.
type Told struct {
	Data        []byte // nil when it has more than MaxTold bytes
	Size        int
	ContentType string
}

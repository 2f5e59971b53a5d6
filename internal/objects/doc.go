// Package objects is the node's own object store: buckets of a namespace, objects in
// them, versions, multipart uploads, and what changed since when. Its door, which speaks
// S3, is in s3api.
//
// Only node imports it. Every method of Store is safe for concurrent use. What a method
// has answered without an error is on disk, and whoever is notified of changes has taken
// the change. Changes of one key are made one after another; a reader sees the object of
// before or of after, never a mix, and may read on while it is replaced.
//
// Records are small values in a KV, changed by compare-and-set; the bytes are encrypted
// files (package content) under a data key of the object, which is in its record, wrapped
// by the store's key. A file is on disk before a record names it and is removed after
// none does; what a crash leaves over in between, Open removes. In memory the store keeps
// the names of all keys, in order, and no more: some 100 bytes an object.
//
// Namespace, bucket and key are checked here, not only at the door. A key is never the
// name of a file.
package objects

import (
	"context"
	"errors"
	"time"

	"github.com/casemate-dev/casemate/internal/state"
)

// Bounds.
const (
	MaxKey       = 1024 // bytes of an object's key
	MaxMeta      = 2048 // bytes of user metadata, names and values together
	MaxTags      = 10
	MaxTagName   = 128 // characters
	MaxTagValue  = 256 // characters
	MaxHeader    = 1024
	MaxParts     = 10_000
	MinPart      = 5 << 20 // bytes, of all parts but the last
	MaxList      = 1000    // entries of one answer
	maxRecord    = 256 << 10
	maxBuckets   = 1000           // of a namespace
	maxUploads   = 10_000         // under way in a bucket
	removalsKept = 16             // of one key
	RemovalAge   = 24 * time.Hour // how long it is remembered that a key was removed
	UploadAge    = 7 * 24 * time.Hour

	// DefaultMaxObject is the default bound on one object, in bytes.
	DefaultMaxObject = 5 << 30
)

// Errors that callers match, besides state.ErrFull and state.ErrCorrupt.
var (
	ErrName         = errors.New("the name of a bucket must be 3 to 63 lower-case letters, digits and hyphens")
	ErrKey          = errors.New("the key is not accepted")
	ErrKeyLong      = errors.New("the key is longer than 1024 bytes") // comes with ErrKey
	ErrNoBucket     = errors.New("there is no such bucket")
	ErrBucketExists = errors.New("the bucket exists already")
	ErrNotEmpty     = errors.New("the bucket is not empty")
	ErrTooMany      = errors.New("there are too many")
	ErrNoKey        = errors.New("there is no such object")
	ErrNoVersion    = errors.New("there is no such version")
	ErrMarker       = errors.New("it is a delete marker")
	ErrNoUpload     = errors.New("there is no such upload")
	ErrPart         = errors.New("a part is missing or is another one")
	ErrPartOrder    = errors.New("the parts are not in order")
	ErrPartSmall    = errors.New("a part is too small")
	ErrCondition    = errors.New("a condition does not hold")
	ErrTooLarge     = errors.New("the object is too large")
	ErrMeta         = errors.New("the metadata is not accepted")
	ErrMetaLarge    = errors.New("the metadata is larger than 2048 bytes") // comes with ErrMeta
)

// KV is where records are kept, a bucket of internal/bus. Revisions must grow over all
// keys, not only over those of one.
type KV interface {
	Get(ctx context.Context, key string) (state.Entry, error)
	Create(ctx context.Context, key string, value []byte) (uint64, error)
	Update(ctx context.Context, key string, value []byte, rev uint64) (uint64, error)
	Delete(ctx context.Context, key string, rev uint64) error
	List(ctx context.Context, prefix string) ([]state.Entry, error)
}

// Notifier is told of each change after it is on disk and before it is answered. An
// error is answered to the client as "try again"; the change stays, and Changes tells
// of it later.
type Notifier interface {
	Changed(ctx context.Context, c Change) error
}

// Operations, named as S3 names its events.
const (
	OpPut          = "ObjectCreated:Put"
	OpCopy         = "ObjectCreated:Copy"
	OpComplete     = "ObjectCreated:CompleteMultipartUpload"
	OpDelete       = "ObjectRemoved:Delete"
	OpDeleteMarker = "ObjectRemoved:DeleteMarkerCreated"
)

// Change is an object that was created or removed.
type Change struct {
	Namespace   string
	Bucket      string
	Key         string
	ID          string // of the change; unique in the bucket, and the same whenever it is told
	Operation   string
	VersionID   string // "" in a bucket that has no versions
	Size        int64
	ETag        string // without quotes
	ContentType string
	Time        time.Time
	By          string // who did it
	// Revision is that of the record after the change, or a later one. They grow.
	Revision uint64
}

// Removed reports whether the object went, rather than came.
func (c *Change) Removed() bool { return c.Operation == OpDelete || c.Operation == OpDeleteMarker }

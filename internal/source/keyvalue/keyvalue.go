// Package keyvalue makes events of changes in the platform's own key-value buckets.
//
// Only node imports it. A trigger listens to a bucket of its function's namespace. Every
// change is told, in the order in which they were made, from the log that the store keeps
// of them: from the trigger's first start on, or from its position, which is stored. So
// nothing is lost over a restart; some of it may be told twice, with the same ids. Changes
// that the log has given up before they were told, and damaged ones, are an alert. Lag in
// Health is not known.
package keyvalue

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/casemate-dev/casemate/internal/event"
	"github.com/casemate-dev/casemate/internal/function"
	"github.com/casemate-dev/casemate/internal/source"
)

// Types of events.
const (
	TypePut    = "casemate.kv.put"
	TypeDelete = "casemate.kv.delete"
)

// Operations of a Change, and of Settings.
const (
	OpPut    = "put"
	OpDelete = "delete"
)

// Bounds.
const (
	maxPrefix  = 512             // bytes
	maxBatch   = 64              // events in one call of the sink
	batchBytes = 1 << 20         // of data in one call of the sink, and one event more
	maxKey     = 256             // bytes of an ordering key that can be read
	cursorKey  = "cursor"        // of the position in the trigger's store
	cursorTime = time.Second * 5 // how often the position is written
)

// Change is a key that was given a value or lost it.
type Change struct {
	Key       string
	Operation string // OpPut or OpDelete
	Revision  uint64
	Previous  uint64 // revision of the value before; 0 when there was none
	Time      time.Time
	By        string // who did it
	Expired   bool   // a deletion because the time had come
	Expires   time.Time
	New, Old  *Value // nil when there is none
}

// Value is a value in a Change.
type Value struct {
	Data        []byte // nil when it is too large to be told
	Size        int
	ContentType string
}

// Own is the platform's store.
type Own interface {
	// Changes tells of the changes after a revision, in order, and returns a revision up
	// to which all have been told. It fails with state.ErrCorrupt, after all others, when
	// some could not be read, and with what fn failed with.
	Changes(ctx context.Context, namespace, bucket string, after uint64, fn func(Change) error) (uint64, error)
	// Changed gives what is closed when the bucket changes next, before Settled says so.
	Changed(namespace, bucket string) <-chan struct{}
	// Settled is a revision: all changes up to it have been made.
	Settled() uint64
	// Oldest is the revision of the oldest change that can still be told, of any bucket;
	// 0 when there is none.
	Oldest(ctx context.Context) (uint64, error)
}

// Kind is the source of changes in key-value buckets.
type Kind struct{ own Own }

// New makes the kind.
func New(own Own) *Kind { return &Kind{own} }

// Settings are those of a trigger.
type Settings struct {
	Bucket     string   `json:"bucket"`
	Prefix     string   `json:"prefix,omitempty"`
	Operations []string `json:"operations,omitempty"` // put, delete; both when there are none
}

// Check validates a trigger.
func (k *Kind) Check(t *function.Trigger) error {
	_, err := settings(t)
	return err
}

// Reads gives the bucket that a trigger is told of.
func (k *Kind) Reads(t *function.Trigger) (string, error) {
	s, err := settings(t)
	if err != nil {
		return "", err
	}
	return s.Bucket, nil
}

func settings(t *function.Trigger) (*Settings, error) {
	s := &Settings{}
	if err := source.Settings(t.Settings, s); err != nil {
		return nil, err
	}
	switch {
	case t.Connection != "":
		return nil, &source.FieldError{Field: "connection", Reason: "has no place here: the buckets are the platform's own"}
	case !function.ValidName(s.Bucket):
		return nil, &source.FieldError{Field: "bucket", Reason: "must name a bucket of the function's own namespace: lower-case letters, digits and hyphens, a letter first"}
	case len(s.Prefix) > maxPrefix || !utf8.ValidString(s.Prefix):
		return nil, &source.FieldError{Field: "prefix", Reason: fmt.Sprintf("must be text of at most %d bytes", maxPrefix)}
	}
	for i, o := range s.Operations {
		if o != OpPut && o != OpDelete || slices.Contains(s.Operations[:i], o) {
			return nil, &source.FieldError{Field: "operations", Reason: "must hold put, delete or both, each once"}
		}
	}
	if len(s.Operations) == 0 {
		s.Operations = []string{OpPut, OpDelete}
	}
	return s, nil
}

func (s *Settings) wants(c *Change) bool {
	return slices.Contains(s.Operations, c.Operation) && strings.HasPrefix(c.Key, s.Prefix)
}

// data is what an event carries.
type data struct {
	Bucket      string    `json:"bucket"`
	Key         string    `json:"key"`
	Operation   string    `json:"operation"`
	Revision    uint64    `json:"revision"`
	Value       *[]byte   `json:"value,omitempty"` // base64
	ContentType string    `json:"contentType,omitempty"`
	Size        *int      `json:"size,omitempty"` // of the value in bytes, also when it is too large to be here
	Expires     time.Time `json:"expires,omitzero"`
	Expired     bool      `json:"expired,omitempty"`
	Old         *old      `json:"old,omitempty"`
}

type old struct {
	Revision    uint64  `json:"revision"`
	Value       *[]byte `json:"value,omitempty"`
	ContentType string  `json:"contentType,omitempty"`
	Size        int     `json:"size"`
}

func (v *Value) whole() *[]byte {
	if v.Data == nil {
		return nil
	}
	return &v.Data
}

// message makes the event of a change.
func message(bucket string, c *Change) (event.Message, error) {
	d := data{
		Bucket: bucket, Key: c.Key, Operation: c.Operation, Revision: c.Revision, Expires: c.Expires, Expired: c.Expired,
	}
	if v := c.New; v != nil {
		d.Value, d.ContentType, d.Size = v.whole(), v.ContentType, &v.Size
	}
	if v := c.Old; v != nil {
		d.Old = &old{c.Previous, v.whole(), v.ContentType, v.Size}
	}
	b, err := json.Marshal(&d)
	if err != nil {
		return event.Message{}, fmt.Errorf("encoding a change: %v", err)
	}
	m := event.Message{Event: event.Event{Type: TypePut, Time: c.Time, DataContentType: "application/json"}, Data: b}
	if c.Operation == OpDelete {
		m.Type = TypeDelete
	}
	m.Subject = bucket + "/" + c.Key
	m.ID = m.Subject + "/" + strconv.FormatUint(c.Revision, 10)
	if m.Key = m.Subject; len(m.Key) > maxKey {
		sum := sha256.Sum256([]byte(m.Subject))
		m.Key = "sha256:" + hex.EncodeToString(sum[:])
	}
	m.Extensions = map[string]string{"sequence": fmt.Sprintf("%020d", c.Revision)}
	if c.By != "" {
		m.Extensions["principal"] = c.By
	}
	return m, nil
}

// Run listens until ctx ends.
func (k *Kind) Run(ctx context.Context, b source.Binding) error {
	s, err := settings(&b.Trigger)
	if err != nil {
		return err
	}
	l := &listener{own: k.own, b: b, s: s}
	if err := l.run(ctx); err != nil && ctx.Err() == nil {
		return fmt.Errorf("listening to bucket %s: %w", s.Bucket, err)
	}
	return nil
}

// Package bucket makes events of objects in buckets: of the node's own store, and of any
// other that speaks S3.
//
// Only node imports it. A trigger without a connection listens to a bucket of its
// function's namespace in the own store: the event is on disk before the client's request
// is answered, and what was missed while nobody listened is told after the next start.
// With a connection it polls: the bucket is listed from begin to end once an interval,
// and each object whose ETag or time is not the one remembered is told of. So of several
// changes within an interval the last is told; removals are not; and a bucket, or the
// part of it that the prefix names, may have about a million objects.
//
// Events of one own bucket come in no order, but those of one key do. Lag in Health is not
// known.
package bucket

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"path"
	"strings"
	"sync"
	"time"

	"github.com/casemate-dev/casemate/internal/event"
	"github.com/casemate-dev/casemate/internal/function"
	"github.com/casemate-dev/casemate/internal/source"
)

// Types of events.
const (
	TypeCreated = "casemate.object.created"
	TypeRemoved = "casemate.object.removed"
)

// Defaults and bounds.
const (
	DefaultInterval = time.Minute
	MinInterval     = time.Second
	MaxInterval     = 24 * time.Hour
	maxPatterns     = 32
)

// Object is an object that came or went.
type Object struct {
	Bucket      string    `json:"bucket"`
	Key         string    `json:"key"`
	Size        int64     `json:"size"`
	ETag        string    `json:"etag,omitempty"` // without quotes
	VersionID   string    `json:"versionId,omitempty"`
	ContentType string    `json:"contentType,omitempty"` // not known of a polled bucket, unless types are set
	Time        time.Time `json:"eventTime"`
	Operation   string    `json:"operation"` // as S3 names it: ObjectCreated:Put, …
	ID          string    `json:"-"`         // of the change, unique in the bucket
	By          string    `json:"-"`
}

// Own is the node's own store.
type Own interface {
	// Changes tells of every change after a revision, in any order and perhaps again.
	Changes(ctx context.Context, namespace, bucket string, after uint64, fn func(Object) error) error
	// Settled is a revision: for all changes up to it, Kind.Changed was called and has returned.
	Settled() uint64
}

// Kind is the bucket source.
type Kind struct {
	own  Own
	mu   sync.Mutex
	subs map[*listener]struct{}
}

// New makes the kind; own is nil when the node has no store.
func New(own Own) *Kind { return &Kind{own: own, subs: map[*listener]struct{}{}} }

// Settings are those of a trigger.
type Settings struct {
	Bucket   string   `json:"bucket"`
	Prefix   string   `json:"prefix,omitempty"`
	Suffix   string   `json:"suffix,omitempty"`
	MinSize  int64    `json:"minSize,omitempty"`  // bytes
	MaxSize  int64    `json:"maxSize,omitempty"`  // bytes; 0 means no bound
	Types    []string `json:"types,omitempty"`    // content types: text/csv, image/*
	Removed  bool     `json:"removed,omitempty"`  // tell of removals too; the own store's alone
	Existing bool     `json:"existing,omitempty"` // tell of what is there already when the trigger is new
	Interval int64    `json:"intervalNanos,omitempty"`
}

// Check validates a trigger.
func (k *Kind) Check(t *function.Trigger) error {
	_, err := k.settings(t)
	return err
}

// Reads gives the bucket of the own store that a trigger is told of; "" for one of a
// connection's.
func (k *Kind) Reads(t *function.Trigger) (string, error) {
	s, err := k.settings(t)
	if err != nil || t.Connection != "" {
		return "", err
	}
	return s.Bucket, nil
}

func (k *Kind) settings(t *function.Trigger) (*Settings, error) {
	s := &Settings{}
	if err := source.Settings(t.Settings, s); err != nil {
		return nil, err
	}
	own := t.Connection == ""
	switch {
	case own && k.own == nil:
		return nil, &source.FieldError{Field: "connection", Reason: "must be set: this node has no object store of its own"}
	case s.Bucket == "" || len(s.Bucket) > 255 || strings.ContainsAny(s.Bucket, "/\\ ?#") || s.Bucket[0] == '.':
		return nil, &source.FieldError{Field: "bucket", Reason: "must be the name of a bucket"}
	case own && strings.Contains(s.Bucket, "."):
		return nil, &source.FieldError{Field: "bucket", Reason: "must be one of the function's own namespace, named without it"}
	case s.MinSize < 0 || s.MaxSize < 0 || s.MaxSize > 0 && s.MaxSize < s.MinSize:
		return nil, &source.FieldError{Field: "maxSize", Reason: "must not be below minSize, and neither below 0"}
	case own && s.Interval != 0:
		return nil, &source.FieldError{Field: "intervalNanos", Reason: "must not be set: a bucket of the own store is not polled"}
	case !own && s.Removed:
		return nil, &source.FieldError{Field: "removed", Reason: "must not be set: polling does not see removals"}
	case len(s.Types) > maxPatterns:
		return nil, &source.FieldError{Field: "types", Reason: fmt.Sprintf("must have at most %d entries", maxPatterns)}
	case s.Interval != 0 && (s.Interval < int64(MinInterval) || s.Interval > int64(MaxInterval)):
		return nil, &source.FieldError{Field: "intervalNanos", Reason: "must be " + MinInterval.String() + " to " + MaxInterval.String()}
	}
	for _, p := range s.Types {
		if _, err := path.Match(p, ""); err != nil || p == "" {
			return nil, &source.FieldError{Field: "types", Reason: "must hold patterns such as image/*"}
		}
	}
	if s.Interval == 0 {
		s.Interval = int64(DefaultInterval)
	}
	return s, nil
}

// wants reports whether an object passes the filters. Of a removal size and type are not known.
func (s *Settings) wants(o *Object, removed bool) bool {
	switch {
	case !strings.HasPrefix(o.Key, s.Prefix) || !strings.HasSuffix(o.Key, s.Suffix):
		return false
	case removed:
		return s.Removed
	}
	return o.Size >= s.MinSize && (s.MaxSize == 0 || o.Size <= s.MaxSize) && s.wantsType(o.ContentType)
}

func (s *Settings) wantsType(contentType string) bool {
	if len(s.Types) == 0 {
		return true
	}
	t, _, _ := strings.Cut(contentType, ";")
	for _, p := range s.Types {
		if ok, err := path.Match(p, strings.ToLower(strings.TrimSpace(t))); err == nil && ok {
			return true
		}
	}
	return false
}

// message makes the event of an object.
func message(o *Object, removed bool) (event.Message, error) {
	data, err := json.Marshal(o)
	if err != nil {
		return event.Message{}, err
	}
	m := event.Message{Event: event.Event{Type: TypeCreated, Time: o.Time, DataContentType: "application/json"}, Data: data}
	if removed {
		m.Type = TypeRemoved
	}
	m.ID, m.Subject = o.Bucket+"/"+o.Key+"/"+o.ID, o.Bucket+"/"+o.Key
	sum := sha256.Sum256([]byte(m.Subject))
	m.Key = hex.EncodeToString(sum[:16])
	if o.By != "" {
		m.Detail = map[string]string{"object.by": o.By}
	}
	if !fit(m.ID) {
		sum := sha256.Sum256([]byte(m.ID))
		m.ID = hex.EncodeToString(sum[:])
	}
	if !fit(m.Subject) { // the data has the whole key
		m.Subject = o.Bucket
	}
	return m, nil
}

// fit reports whether a text may be an attribute of an event.
func fit(s string) bool {
	e := event.Event{ID: s, Source: "/", Type: "t"}
	return e.Validate() == nil
}

// Run listens until ctx ends.
func (k *Kind) Run(ctx context.Context, b source.Binding) error {
	s, err := k.settings(&b.Trigger)
	if err != nil {
		return err
	}
	if b.Trigger.Connection == "" {
		err = k.listen(ctx, b, s)
	} else {
		err = poll(ctx, b, s)
	}
	if err != nil && ctx.Err() == nil {
		return fmt.Errorf("listening to bucket %s: %w", s.Bucket, err)
	}
	return nil
}

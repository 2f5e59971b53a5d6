package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/casemate-dev/casemate/internal/function"
	"github.com/casemate-dev/casemate/internal/state"
)

// Defaults and bounds.
const (
	// DefaultKeepVersions is how many versions a function keeps beyond those that
	// an alias or its history points at.
	DefaultKeepVersions = 50
	// DefaultGrace is how long an artifact or a version that nothing points at is
	// kept, so that an upload has time to be deployed.
	DefaultGrace = 24 * time.Hour
	// HistoryLength is how many positions an alias remembers, the current one
	// included.
	HistoryLength = 50
	// MaxAliases is the most aliases one function can have.
	MaxAliases = 16
	// MaxTargets is the most versions one alias can be split between.
	MaxTargets = 8
	// MaxSpecs is the most functions one plan can name.
	MaxSpecs = 256
	// MaxArtifact is the size of the largest artifact, in bytes.
	MaxArtifact int64 = 64 << 20
)

// maxBy bounds the principal's name in a record.
const maxBy = 200

// settleTimeout bounds how long a write with an unknown end is looked into.
const settleTimeout = 5 * time.Second

// Store keeps small values with compare-and-set; the errors matched are
// state.ErrNotFound and state.ErrConflict. A write that fails with another error
// may have happened all the same.
type Store interface {
	Get(ctx context.Context, key string) (state.Entry, error)
	Create(ctx context.Context, key string, value []byte) (uint64, error)
	Update(ctx context.Context, key string, value []byte, revision uint64) (uint64, error)
	Delete(ctx context.Context, key string, revision uint64) error
	List(ctx context.Context, prefix string) ([]state.Entry, error)
}

// Blobs keeps code by name. Put makes a blob visible only once r has ended with
// io.EOF. Get and Delete answer state.ErrNotFound for a blob that is not there.
type Blobs interface {
	Put(ctx context.Context, name string, r io.Reader) error
	Get(ctx context.Context, name string) ([]byte, error)
	Has(ctx context.Context, name string) (bool, error)
	Delete(ctx context.Context, name string) error
}

// Config is what a Registry is made of. Store, Blobs and Clock are needed.
type Config struct {
	Store        Store
	Blobs        Blobs
	Clock        func() time.Time
	KeepVersions int           // DefaultKeepVersions when 0
	Grace        time.Duration // DefaultGrace when 0
	Logger       *slog.Logger  // discards when nil
}

// Registry is what is deployed on this node. Open makes one.
type Registry struct {
	store Store
	blobs Blobs
	clock func() time.Time
	keep  int
	grace time.Duration
	log   *slog.Logger

	current atomic.Pointer[snapshot]

	// writing holds one token; who has it may mutate. It is a channel and not a
	// mutex so that waiting for it ends with the context. It guards watchers, and
	// is held across the store calls of a mutation.
	writing  chan struct{}
	watchers map[int]func()
	nextID   int
}

// Open loads everything that is deployed. A stored value that is not what it
// claims to be does not keep the rest from being served: it is left out, logged,
// and listed by Faults. Leftovers of an interrupted change are collected.
func Open(ctx context.Context, cfg Config) (*Registry, error) {
	missing := ""
	switch {
	case cfg.Store == nil:
		missing = "Store"
	case cfg.Blobs == nil:
		missing = "Blobs"
	case cfg.Clock == nil:
		missing = "Clock"
	}
	if missing != "" {
		return nil, fmt.Errorf("opening the registry: Config.%s is not set", missing)
	}
	if cfg.KeepVersions < 0 || cfg.Grace < 0 {
		return nil, errors.New("opening the registry: Config.KeepVersions and Config.Grace must not be negative; 0 means the default")
	}
	r := &Registry{
		store: cfg.Store, blobs: cfg.Blobs, clock: cfg.Clock, keep: cfg.KeepVersions, grace: cfg.Grace, log: cfg.Logger,
		writing: make(chan struct{}, 1), watchers: map[int]func(){},
	}
	if r.keep == 0 {
		r.keep = DefaultKeepVersions
	}
	if r.grace == 0 {
		r.grace = DefaultGrace
	}
	if r.log == nil {
		r.log = slog.New(slog.DiscardHandler)
	}
	r.current.Store(&snapshot{})
	if err := r.load(ctx); err != nil {
		return nil, fmt.Errorf("opening the registry: %w", err)
	}
	for _, f := range r.Faults() {
		r.log.LogAttrs(ctx, slog.LevelError, "stored value refused",
			slog.String("key", f.Key), slog.String("function", f.Ref.String()), slog.String("reason", f.Reason))
	}
	if err := r.Collect(ctx); err != nil {
		r.log.LogAttrs(ctx, slog.LevelWarn, "leftovers not collected; the next collection tries again", slog.Any("error", err))
	}
	return r, nil
}

// lock waits for the right to mutate; the caller hands it back with unlock.
func (r *Registry) lock(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("waiting for another change to finish: %w", err)
	}
	select {
	case r.writing <- struct{}{}:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("waiting for another change to finish: %w", ctx.Err())
	}
}

func (r *Registry) unlock() { <-r.writing }

// Watch has fn called after each committed change, once per change and never two
// at a time, before the change returns to whoever made it. fn may read the
// registry and must neither change it nor begin or end a watch. The returned
// function ends the watch.
func (r *Registry) Watch(fn func()) (stop func()) {
	r.writing <- struct{}{}
	defer r.unlock()
	id := r.nextID
	r.nextID++
	r.watchers[id] = fn
	return func() {
		r.writing <- struct{}{}
		defer r.unlock()
		delete(r.watchers, id)
	}
}

// publish replaces functions in the snapshot and tells the watchers. A nil entry
// removes its function. The caller holds the right to mutate.
func (r *Registry) publish(changed map[function.Ref]*entry) {
	if len(changed) == 0 {
		return
	}
	r.current.Store(r.current.Load().with(changed))
	for id := range r.nextID {
		if fn, ok := r.watchers[id]; ok {
			fn()
		}
	}
}

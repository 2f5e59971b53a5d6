// Package objectstest has what tests of the object store need: records in memory, with
// failures on demand, and access keys.
//
// Tests alone import it. It is safe for concurrent use.
package objectstest

import (
	"bytes"
	"context"
	"fmt"
	"sort"
	"strings"
	"sync"

	"github.com/casemate-dev/casemate/internal/state"
)

// KV keeps records in memory.
type KV struct {
	mu     sync.Mutex
	rev    uint64
	values map[string]state.Entry
	// Fail, when set, is asked before every write; after is true for a second time after
	// it was done. What it returns the write fails with.
	Fail func(operation, key string, after bool) error
}

// NewKV makes an empty one.
func NewKV() *KV { return &KV{values: map[string]state.Entry{}} }

// Clone copies what is stored, as a process finds it that starts after a crash.
func (k *KV) Clone() *KV {
	k.mu.Lock()
	defer k.mu.Unlock()
	c := &KV{rev: k.rev, values: map[string]state.Entry{}}
	for key, e := range k.values {
		c.values[key] = e
	}
	return c
}

// Get reads a value.
func (k *KV) Get(_ context.Context, key string) (state.Entry, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	e, ok := k.values[key]
	if !ok {
		return state.Entry{}, fmt.Errorf("reading key %s: %w", key, state.ErrNotFound)
	}
	e.Value = bytes.Clone(e.Value)
	return e, nil
}

func (k *KV) write(operation, key string, do func() (uint64, error)) (uint64, error) {
	if k.Fail != nil {
		if err := k.Fail(operation, key, false); err != nil {
			return 0, err
		}
	}
	k.mu.Lock()
	rev, err := do()
	k.mu.Unlock()
	if err == nil && k.Fail != nil {
		err = k.Fail(operation, key, true)
	}
	return rev, err
}

// Create stores a new value.
func (k *KV) Create(_ context.Context, key string, value []byte) (uint64, error) {
	return k.write("create", key, func() (uint64, error) {
		if _, ok := k.values[key]; ok {
			return 0, fmt.Errorf("creating key %s: %w", key, state.ErrConflict)
		}
		return k.set(key, value), nil
	})
}

func (k *KV) set(key string, value []byte) uint64 {
	k.rev++
	k.values[key] = state.Entry{Key: key, Value: bytes.Clone(value), Revision: k.rev}
	return k.rev
}

// Update replaces a value.
func (k *KV) Update(_ context.Context, key string, value []byte, rev uint64) (uint64, error) {
	return k.write("update", key, func() (uint64, error) {
		if k.values[key].Revision != rev {
			return 0, fmt.Errorf("updating key %s: %w", key, state.ErrConflict)
		}
		return k.set(key, value), nil
	})
}

// Delete removes a value.
func (k *KV) Delete(_ context.Context, key string, rev uint64) error {
	_, err := k.write("delete", key, func() (uint64, error) {
		e, ok := k.values[key]
		switch {
		case !ok:
			return 0, fmt.Errorf("deleting key %s: %w", key, state.ErrNotFound)
		case e.Revision != rev:
			return 0, fmt.Errorf("deleting key %s: %w", key, state.ErrConflict)
		}
		k.rev++
		delete(k.values, key)
		return k.rev, nil
	})
	return err
}

// List reads the values whose keys begin with prefix, in order.
func (k *KV) List(_ context.Context, prefix string) ([]state.Entry, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	var out []state.Entry
	for key, e := range k.values {
		if strings.HasPrefix(key, prefix) {
			e.Value = bytes.Clone(e.Value)
			out = append(out, e)
		}
	}
	sort.Slice(out, func(i, j int) bool { return out[i].Key < out[j].Key })
	return out, nil
}

// Package keyvaluetest has what tests of the key-value store need: records and a log of
// changes in memory, with failures on demand.
//
// Tests alone import it. It is safe for concurrent use.
package keyvaluetest

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"sort"
	"strings"
	"sync"
	"time"

	"github.com/casemate-dev/casemate/internal/keyvalue"
	"github.com/casemate-dev/casemate/internal/state"
)

// Disk keeps what a store writes; it outlives the store.
type Disk struct {
	mu     sync.Mutex
	rev    uint64
	values map[string]state.Entry
	seq    uint64
	log    []keyvalue.Record
	ids    map[string]uint64
	fail   func(operation string, after bool) error
}

// NewDisk makes an empty one.
func NewDisk() *Disk { return &Disk{values: map[string]state.Entry{}, ids: map[string]uint64{}} }

// SetFail has fail asked before every write (create, update, delete, publish) and again,
// with after, when it was done. What it returns the write fails with.
func (d *Disk) SetFail(fail func(operation string, after bool) error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.fail = fail
}

// Clone copies what is stored, as a process finds it that starts after a crash. What
// fails does not fail there.
func (d *Disk) Clone() *Disk {
	d.mu.Lock()
	defer d.mu.Unlock()
	c := &Disk{rev: d.rev, values: map[string]state.Entry{}, seq: d.seq, log: slices.Clone(d.log), ids: map[string]uint64{}}
	for k, v := range d.values {
		c.values[k] = v
	}
	for k, v := range d.ids {
		c.ids[k] = v
	}
	return c
}

// Trim drops the changes up to a sequence, as age does.
func (d *Disk) Trim(upTo uint64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.log = slices.DeleteFunc(d.log, func(r keyvalue.Record) bool { return r.Sequence <= upTo })
}

// Damage changes what is stored in the log at a sequence.
func (d *Disk) Damage(sequence uint64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for i := range d.log {
		if d.log[i].Sequence == sequence {
			d.log[i].Data = []byte("damaged")
		}
	}
}

// Records is how many there are.
func (d *Disk) Records() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	n := 0
	for k := range d.values {
		if strings.HasPrefix(k, "v.") {
			n++
		}
	}
	return n
}

func (d *Disk) write(operation string, do func() (uint64, error)) (uint64, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.fail != nil {
		if err := d.fail(operation, false); err != nil {
			return 0, err
		}
	}
	n, err := do()
	if err == nil && d.fail != nil {
		err = d.fail(operation, true)
	}
	return n, err
}

// KV is the records.
type KV struct{ *Disk }

// Get implements keyvalue.KV.
func (k KV) Get(_ context.Context, key string) (state.Entry, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	e, ok := k.values[key]
	if !ok {
		return state.Entry{}, fmt.Errorf("reading key %s: %w", key, state.ErrNotFound)
	}
	e.Value = bytes.Clone(e.Value)
	return e, nil
}

func (k KV) set(key string, value []byte) uint64 {
	k.rev++
	k.values[key] = state.Entry{Key: key, Value: bytes.Clone(value), Revision: k.rev}
	return k.rev
}

// Create implements keyvalue.KV.
func (k KV) Create(_ context.Context, key string, value []byte) (uint64, error) {
	return k.write("create", func() (uint64, error) {
		if _, ok := k.values[key]; ok {
			return 0, fmt.Errorf("creating key %s: %w", key, state.ErrConflict)
		}
		return k.set(key, value), nil
	})
}

// Update implements keyvalue.KV.
func (k KV) Update(_ context.Context, key string, value []byte, rev uint64) (uint64, error) {
	return k.write("update", func() (uint64, error) {
		if e, ok := k.values[key]; !ok || e.Revision != rev {
			return 0, fmt.Errorf("updating key %s: %w", key, state.ErrConflict)
		}
		return k.set(key, value), nil
	})
}

// Delete implements keyvalue.KV.
func (k KV) Delete(_ context.Context, key string, rev uint64) error {
	_, err := k.write("delete", func() (uint64, error) {
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

// List implements keyvalue.KV.
func (k KV) List(_ context.Context, prefix string) ([]state.Entry, error) {
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

// Log is the changes.
type Log struct{ *Disk }

// Publish implements keyvalue.Log.
func (l Log) Publish(_ context.Context, e keyvalue.Entry) (uint64, error) {
	return l.write("publish", func() (uint64, error) {
		if seq := l.ids[e.ID]; seq != 0 {
			return seq, nil
		}
		l.seq++
		l.ids[e.ID] = l.seq
		l.log = append(l.log, keyvalue.Record{
			Namespace: e.Namespace, Channel: e.Channel, Sequence: l.seq, Time: time.Unix(0, 0), Data: bytes.Clone(e.Data),
		})
		return l.seq, nil
	})
}

// Read implements keyvalue.Log.
func (l Log) Read(ctx context.Context, namespace, channel string, after uint64, fn func(keyvalue.Record) bool) error {
	l.mu.Lock()
	records := slices.Clone(l.log)
	l.mu.Unlock()
	for _, r := range records {
		if r.Sequence <= after || namespace != "" && r.Namespace != namespace || channel != "" && r.Channel != channel {
			continue
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if !fn(r) {
			return nil
		}
	}
	return nil
}

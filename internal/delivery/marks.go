package delivery

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/casemate-dev/casemate/internal/state"
)

// marks are the engine's keys and values, few and small, all of them in memory too.
type marks struct {
	store State

	writing sync.Mutex // one write at a time; taken before mu
	mu      sync.RWMutex
	known   map[string]state.Entry
}

// The keys. Kinds of channels have so many labels each, so a key means one thing.
func pauseMark(k Key) string      { return "pause." + k.consumer(k.Channel()) }
func (k Key) replaysMark() string { return "replays." + k.consumer(k.Channel()) }
func sinceMark(k Key, c string) string {
	return "since." + k.consumer(k.Channel()) + "." + c
}

const jobMark = "job."

func (m *marks) load(ctx context.Context, store State) error {
	m.store, m.known = store, map[string]state.Entry{}
	entries, err := store.List(ctx, "")
	if err != nil {
		return fmt.Errorf("reading what operators asked for: %w", err)
	}
	for _, e := range entries {
		m.known[e.Key] = e
	}
	return nil
}

func (m *marks) get(key string) ([]byte, bool) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	e, ok := m.known[key]
	return e.Value, ok
}

func (m *marks) has(key string) bool {
	_, ok := m.get(key)
	return ok
}

// names lists the keys that begin so.
func (m *marks) names(prefix string) []string {
	m.mu.RLock()
	defer m.mu.RUnlock()
	var out []string
	for k := range m.known {
		if strings.HasPrefix(k, prefix) {
			out = append(out, k)
		}
	}
	slices.Sort(out)
	return out
}

// once sets a mark unless it is there.
func (m *marks) once(ctx context.Context, key string, value []byte) error {
	if m.has(key) {
		return nil
	}
	return m.set(ctx, key, value)
}

func (m *marks) set(ctx context.Context, key string, value []byte) error {
	m.writing.Lock()
	defer m.writing.Unlock()
	m.mu.RLock()
	old, there := m.known[key]
	m.mu.RUnlock()
	var rev uint64
	var err error
	if there {
		rev, err = m.store.Update(ctx, key, value, old.Revision)
	} else {
		rev, err = m.store.Create(ctx, key, value)
	}
	if err != nil {
		return fmt.Errorf("writing %s: %w", key, err)
	}
	m.mu.Lock()
	m.known[key] = state.Entry{Key: key, Value: value, Revision: rev}
	m.mu.Unlock()
	return nil
}

func (m *marks) drop(ctx context.Context, key string) error {
	m.writing.Lock()
	defer m.writing.Unlock()
	m.mu.RLock()
	old, there := m.known[key]
	m.mu.RUnlock()
	if !there {
		return nil
	}
	if err := m.store.Delete(ctx, key, old.Revision); err != nil && !errors.Is(err, state.ErrNotFound) {
		return fmt.Errorf("removing %s: %w", key, err)
	}
	m.mu.Lock()
	delete(m.known, key)
	m.mu.Unlock()
	return nil
}

// since is where a new consumer of a channel begins: at the beginning of a trigger's
// own, and of a topic where the subscription was first in force.
func (e *Engine) since(k Key, channel string) time.Time {
	v, ok := e.marks.get(sinceMark(k, channel))
	if !ok {
		return time.Time{}
	}
	at, err := time.Parse(time.RFC3339Nano, string(v))
	if err != nil {
		e.cfg.Logger.Error("where a subscription began cannot be read; it begins with the topic", "trigger", k.String())
		return time.Time{}
	}
	return at
}

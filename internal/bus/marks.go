package bus

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/casemate-dev/casemate/internal/durable"

	"github.com/nats-io/nats.go/jetstream"
)

// The server repairs a damaged stream by cutting it, and then says nothing, or
// not always. So how far each stream went is kept beside it, and compared when it
// is opened: the last sequence never falls, and the number of keys ever used in a
// KV or of blobs never does either.

// marksFile holds the marks, framed like a stored value, in Config.Dir.
const marksFile = "marks"

// markEvery is how old the marks may get while there are writes; what was
// written since is not guarded against cutting when the process is killed.
const markEvery = time.Second

// mark is a lower bound on what a stream holds.
type mark struct {
	Last     uint64 `json:"last"`              // sequence
	Subjects uint64 `json:"subjects"`          // of a keyed stream
	Ages     []age  `json:"ages,omitempty"`    // of Events: when some of its messages were written, oldest first
	Trimmed  uint64 `json:"trimmed,omitempty"` // of Events: up to here they were dropped to make room
	// Consumers of Events, by their name at the server.
	Consumers map[string]position `json:"consumers,omitempty"`
	// Damaged events, with the subject where it is known, until they are purged.
	Damaged map[uint64]string `json:"damaged,omitempty"`
}

// marked is an open stream.
type marked struct {
	stream jetstream.Stream
	filter string // of the subjects that are keys; "" for a log
	events *Events
}

// loadMarks reads the marks of the last run. Without a file there are none: this
// is the first run, or an operator removed it to go on with what is left.
func (b *Bus) loadMarks() error {
	framed, err := os.ReadFile(filepath.Join(b.cfg.Dir, marksFile))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("reading the marks of the bus: %v", err)
	}
	text, ok := b.seal.open(marksFile, framed)
	if !ok || json.Unmarshal(text, &b.marks) != nil {
		return fmt.Errorf("starting the bus: the file %s in %s: %w: restore the data directory from your backup, or remove that file to go on without this check",
			marksFile, b.cfg.Dir, ErrCorrupt)
	}
	return nil
}

// compare checks a stream just opened against its mark.
func (b *Bus) compare(name string, s jetstream.StreamState, subjects uint64, keyed bool) error {
	m, ok := b.marks[name]
	if !ok || (s.LastSeq >= m.Last && (!keyed || subjects >= m.Subjects)) {
		return nil
	}
	what := fmt.Sprintf("%s: it went up to %d and ends at %d", name, m.Last, s.LastSeq)
	if keyed && subjects < m.Subjects {
		what += fmt.Sprintf(", %d of %d keys are gone", m.Subjects-subjects, m.Subjects)
	}
	b.warn(what)
	if !keyed {
		return nil
	}
	// What is left may hold values that were replaced or withdrawn since: nobody
	// may decide on it unawares.
	return fmt.Errorf("opening %s: %w: stored values were lost: restore the data directory from your backup, or remove %s to go on with what is left",
		name, ErrCorrupt, filepath.Join(b.cfg.Dir, marksFile))
}

// written is called after each write. Once every markEvery, one writer saves the
// marks on its way.
func (b *Bus) written(ctx context.Context) {
	if !b.marking.TryLock() {
		return // somebody is at it, and soon somebody will be again
	}
	defer b.marking.Unlock()
	now := b.cfg.Clock()
	if since := now.Sub(b.markedAt); since >= 0 && since < markEvery {
		return
	}
	b.markedAt = now
	if err := b.saveMarks(context.WithoutCancel(ctx)); err != nil {
		b.log.Warn("saving the marks of the bus", "error", err)
	}
}

// saveMarks needs b.marking.
func (b *Bus) saveMarks(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, cleanupTime)
	defer cancel()
	b.mu.Lock()
	streams := make(map[string]marked, len(b.streams))
	for name, m := range b.streams {
		streams[name] = m
	}
	b.mu.Unlock()
	marks := map[string]mark{}
	for name, m := range b.marks {
		marks[name] = m // of streams that were not opened in this run
	}
	for name, m := range streams {
		info, err := m.stream.Info(ctx)
		if err != nil {
			return err
		}
		marks[name] = mark{Last: info.State.LastSeq}
		if m.events != nil {
			ages, trimmed := m.events.ages.list()
			marks[name] = mark{
				Last: info.State.LastSeq, Ages: ages, Trimmed: trimmed,
				Consumers: m.events.notedPositions(), Damaged: m.events.damagedNow(),
			}
			m.events.lookSoon()
		}
		if m.filter != "" {
			n, err := countSubjects(ctx, m.stream, m.filter)
			if err != nil {
				return err
			}
			marks[name] = mark{Last: info.State.LastSeq, Subjects: n}
		}
	}
	text, err := json.Marshal(marks)
	if err != nil {
		return err
	}
	return durable.WriteFile(filepath.Join(b.cfg.Dir, marksFile), b.seal.frame(marksFile, text))
}

func countSubjects(ctx context.Context, st jetstream.Stream, filter string) (uint64, error) {
	info, err := st.Info(ctx, jetstream.WithSubjectFilter(filter))
	if err != nil {
		return 0, err
	}
	return uint64(len(info.State.Subjects)), nil
}

// exists reports whether the index of a stream knows a subject. The server
// answers a read of a damaged message as if there were none.
func exists(ctx context.Context, st jetstream.Stream, subject string) (bool, error) {
	n, err := countSubjects(ctx, st, subject)
	return n > 0, err
}

// Package history writes down what happened to events while things were broken, and
// judges it: whether any that was acknowledged is lost, came out of order, came again
// without a reason, or was damaged without a word.
//
// It knows nothing of the platform. Tests below test/fault import it, nothing else does.
// A Writer may be used from many goroutines, and the order of its lines is one in which
// things can have happened.
package history

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"
)

// What a line tells of.
const (
	Sent    = "sent"    // an event is about to be handed in, perhaps not for the first time
	Acked   = "acked"   // it was acknowledged
	Refused = "refused" // it was not, and the sender knows
	Begin   = "begin"   // the function was given the event
	End     = "end"     // the function has ended; OK says how
	Dead    = "dead"    // there is a dead letter; At is when it was written
	Look    = "look"    // somebody is about to read a whole channel
	Seen    = "seen"    // and has read it
	Killed  = "killed"  // the life ended at once
	Stopped = "stopped" // the life ended in order
	Full    = "full"    // the disk was full in this life: what was settled may not be on record
	Damaged = "damaged" // files were changed between two lives
	Told    = "told"    // damage was reported
	Stuck   = "stuck"   // the last life could not finish its work
	Bad     = "bad"     // the function was given data that nobody sent
)

// Line is one thing that happened.
type Line struct {
	At      time.Time `json:"at"`
	Life    int       `json:"life"` // from 1
	What    string    `json:"what"`
	Door    string    `json:"door,omitempty"`    // where the event came in
	Key     string    `json:"key,omitempty"`     // one sender uses a key, one event after the other
	N       int       `json:"n,omitempty"`       // number of the event among those of its key, from 1
	Attempt int       `json:"attempt,omitempty"` //
	OK      bool      `json:"ok,omitempty"`      //
	Text    string    `json:"text,omitempty"`    // reason, warning, error

	Sequence  uint64   `json:"sequence,omitempty"`  // of Acked, where it is known
	Duplicate bool     `json:"duplicate,omitempty"` // of Acked: it was there before
	Reader    int      `json:"reader,omitempty"`    // of Look and Seen, which belong together
	Found     []string `json:"found,omitempty"`     // of Seen: ids in order
}

// ID names the event of a line.
func (l *Line) ID() string { return ID(l.Door, l.Key, l.N) }

// ID is what an event is called.
func ID(door, key string, n int) string { return fmt.Sprintf("%s.%s.%d", door, key, n) }

// Writer appends lines to a file. They outlive the process that wrote them, however it
// ends.
type Writer struct {
	mu   sync.Mutex
	file *os.File
	life int
	left int
	die  func()
}

// Append opens the file at its end for a life.
func Append(name string, life int) (*Writer, error) {
	f, err := os.OpenFile(name, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	return &Writer{file: f, life: life}, nil
}

// DieAfter calls die, which must not return, after so many more lines.
func (w *Writer) DieAfter(lines int, die func()) { w.left, w.die = lines, die }

// Write writes a line and dates it, if it has no date.
func (w *Writer) Write(l Line) {
	w.mu.Lock()
	defer w.mu.Unlock()
	l.Life = w.life
	if l.At.IsZero() {
		l.At = time.Now() //nolint:forbidigo // several processes write, and share no other clock
	}
	b, err := json.Marshal(&l)
	if err == nil {
		_, err = w.file.Write(append(b, '\n'))
	}
	if err != nil {
		panic(fmt.Sprintf("writing a history: %v", err))
	}
	if w.die != nil {
		if w.left--; w.left <= 0 {
			w.die()
		}
	}
}

// Close closes the file.
func (w *Writer) Close() error { return w.file.Close() }

// Read reads a history. A last line that was cut off is left out.
func Read(name string) ([]Line, error) {
	b, err := os.ReadFile(name)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var lines []Line
	r := bufio.NewReader(bytes.NewReader(b))
	for {
		text, err := r.ReadBytes('\n')
		if errors.Is(err, io.EOF) {
			return lines, nil
		}
		var l Line
		if err := json.Unmarshal(text, &l); err != nil {
			return nil, fmt.Errorf("line %d: %v", len(lines)+1, err)
		}
		lines = append(lines, l)
	}
}

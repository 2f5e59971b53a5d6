package audit

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"strconv"
	"sync"
	"time"

	"github.com/casemate-dev/casemate/internal/function"
)

// maxBatchBytes bounds one record of a stream. A single line may exceed it.
const maxBatchBytes = 512 << 10

// MaxLine is the longest log line that is kept, in bytes; a longer one is cut.
const MaxLine = 256 << 10

// batch is what one append carries: JSON lines of one function.
type batch struct {
	namespace, function string
	id                  string // of this batch alone, so that a second attempt adds nothing
	data                []byte
	count               int
}

// lines yields the lines of a batch.
func lines(data []byte) iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		for len(data) > 0 {
			line, rest, _ := bytes.Cut(data, []byte{'\n'})
			if len(line) > 0 && !yield(line) {
				return
			}
			data = rest
		}
	}
}

// roomFor guesses the size of a batch that begins with these entries, in bytes: they
// are mostly of one function and alike.
func roomFor(entries []entry, most int) int {
	return min(min(len(entries), most)*(len(entries[0].body)+32), maxBatchBytes)
}

// group splits entries into batches: by function, in order of appearance.
func group(entries []entry, most int) []batch {
	var out []*batch
	open := map[string]*batch{}
	for i := range entries {
		e := &entries[i]
		name := e.namespace + "/" + e.function
		b := open[name]
		if b == nil || b.count >= most || len(b.data)+len(e.body) > maxBatchBytes {
			b = &batch{namespace: e.namespace, function: e.function, data: make([]byte, 0, roomFor(entries[i:], most))}
			open[name] = b
			out = append(out, b)
		}
		b.data = append(append(b.data, e.body...), '\n')
		b.count++
	}
	done := make([]batch, len(out))
	for i, b := range out {
		done[i] = *b
	}
	return done
}

// run flushes until ctx ends.
func (r *Recorder) run(ctx context.Context) {
	defer close(r.ended)
	wait := r.cfg.Interval
	timer := time.NewTimer(wait)
	defer timer.Stop()
	failed := false
	for {
		wake := r.wake
		if failed {
			wake = nil // a stream that fails is not to be hurried
		}
		select {
		case <-ctx.Done():
			return
		case <-wake:
		case <-timer.C:
		}
		err := r.Flush(ctx)
		switch {
		case err == nil && failed:
			r.log.Info("the streams take receipts and log lines again")
			failed, wait = false, r.cfg.Interval
		case err != nil && ctx.Err() == nil:
			if !failed {
				r.log.Error("receipts or log lines cannot be moved to their stream; receipts wait in the journal", "error", err)
			}
			failed, wait = true, min(2*wait, maxBackoff)
		}
		timer.Reset(wait)
	}
}

// Flush moves everything that was recorded and logged before the call to the
// streams. When it returns nil, all of that is durable and can be read.
func (r *Recorder) Flush(ctx context.Context) error {
	select {
	case r.flushing <- struct{}{}:
		defer func() { <-r.flushing }()
	case <-ctx.Done():
		return fmt.Errorf("flushing: %w", ctx.Err())
	}
	// Receipts are taken before the lines and appended after them, so that none is
	// in its stream before the lines of its invocation. A stream of lines that fails
	// does not hold up the receipts.
	r.mu.Lock()
	pending := r.pending
	r.pending = nil
	r.mu.Unlock()
	return errors.Join(r.flushLogs(ctx), r.flushReceipts(ctx, pending))
}

func (r *Recorder) flushReceipts(ctx context.Context, pending []entry) error {
	if len(pending) > 0 {
		for _, b := range group(pending, r.cfg.Batch) {
			r.number++
			b.id = "receipts-" + r.id + strconv.FormatUint(r.number, 10)
			r.batches = append(r.batches, b)
		}
		last := pending[len(pending)-1].at
		r.upTo = position{last.segment, last.index + 1}
	}
	if len(r.batches) == 0 {
		return nil
	}
	for len(r.batches) > 0 {
		b := &r.batches[0]
		if err := appendTo(ctx, r.cfg.Receipts, b); err != nil {
			return fmt.Errorf("flushing receipts: %w", err)
		}
		r.mu.Lock()
		r.waiting -= int64(len(b.data) - b.count) // the line ends were not counted
		r.mu.Unlock()
		r.batches[0] = batch{}
		r.batches = r.batches[1:]
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.journal.acked(r.upTo); err != nil {
		// The receipts are safe in the stream. Without the note, a replay finds them
		// there.
		r.log.Warn("noting in the journal what the stream holds", "error", err)
	}
	return nil
}

func appendTo(ctx context.Context, s Stream, b *batch) error {
	ctx, cancel := context.WithTimeout(ctx, appendTimeout)
	defer cancel()
	return s.Append(ctx, b.namespace, b.function, b.id, b.data)
}

// logQueue holds log lines between flushes.
type logQueue struct {
	number  uint64  // of the last batch; belongs to whoever flushes
	batches []batch // not in the stream yet; belongs to whoever flushes
	max     int64

	mu      sync.Mutex
	lines   []entry
	bytes   int64 // of lines and batches
	dropped map[function.Ref]int
	rates   map[function.Ref]*allowance
}

// allowance is how much a function may still log now: a bucket that fills at a rate.
type allowance struct {
	left float64 // bytes
	at   time.Time
}

// logOverhead is what a line costs besides its text, in bytes.
const logOverhead = 256

// mayLog takes n bytes from a function's allowance, or counts the line as dropped. The
// limit on one invocation's log does not bound many of them together, and storing
// lines costs the whole node more than printing them costs the function.
func (q *logQueue) mayLog(ref function.Ref, n int, now time.Time) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	a := q.rates[ref]
	if a == nil {
		a = &allowance{left: LogBurst, at: now}
		q.rates[ref] = a
	}
	if passed := now.Sub(a.at); passed > 0 {
		a.left, a.at = min(LogBurst, a.left+passed.Seconds()*LogRate), now
	}
	if a.left < float64(n) {
		q.dropped[ref]++
		return false
	}
	a.left -= float64(n)
	return true
}

// forget drops the allowances that are full again. The mutex is held.
func (q *logQueue) forget(now time.Time) {
	for ref, a := range q.rates {
		if a.left+now.Sub(a.at).Seconds()*LogRate >= LogBurst {
			delete(q.rates, ref)
		}
	}
}

func newLogQueue(bound int64) logQueue {
	return logQueue{max: bound, dropped: map[function.Ref]int{}, rates: map[function.Ref]*allowance{}}
}

// runID names this run among all, for the ids of its batches.
func runID() (string, error) {
	var id [9]byte
	if _, err := rand.Read(id[:]); err != nil {
		return "", fmt.Errorf("drawing an id: %v", err)
	}
	return base64.RawURLEncoding.EncodeToString(id[:]) + "-", nil
}

// Log puts a line on record. It does no I/O. Lines beyond Config.MaxLog are
// dropped and counted; the count follows as a line of its own.
func (r *Recorder) Log(line LogLine) {
	if !function.ValidName(line.Namespace) || !function.ValidName(line.Function) {
		r.log.Warn("a log line names no function and is dropped")
		return
	}
	if len(line.Text) > MaxLine {
		line.Text = line.Text[:MaxLine] + "… (cut, " + strconv.Itoa(len(line.Text)) + " bytes)"
	}
	ref := function.Ref{Namespace: line.Namespace, Name: line.Function}
	if !r.logs.mayLog(ref, len(line.Text)+logOverhead, r.cfg.Clock()) {
		return // before anything is spent on it: a flood is what this is for
	}
	body, err := json.Marshal(&line)
	if err != nil { // a time outside of the years that JSON can hold
		r.log.Warn("a log line cannot be encoded and is dropped", "error", err)
		return
	}
	q := &r.logs
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.bytes+int64(len(body)) > q.max {
		q.dropped[ref]++
		return
	}
	q.bytes += int64(len(body))
	q.lines = append(q.lines, entry{namespace: line.Namespace, function: line.Function, body: body})
	if len(q.lines) == 4*r.cfg.Batch {
		r.hurry()
	}
}

func (r *Recorder) flushLogs(ctx context.Context) error {
	q := &r.logs
	q.mu.Lock()
	taken, dropped := q.lines, q.dropped
	q.lines = nil
	if len(dropped) > 0 {
		q.dropped = map[function.Ref]int{}
	}
	q.forget(r.cfg.Clock())
	q.mu.Unlock()
	for ref, n := range dropped {
		body, err := json.Marshal(&LogLine{
			Time: r.cfg.Clock(), Namespace: ref.Namespace, Function: ref.Name,
			Text: strconv.Itoa(n) + " log lines were dropped here: they came faster than they are stored",
		})
		if err != nil {
			return fmt.Errorf("encoding a log line: %v", err)
		}
		r.log.Warn("log lines dropped", "function", ref.String(), "count", n)
		taken = append(taken, entry{namespace: ref.Namespace, function: ref.Name, body: body})
	}
	var extra int64 // bytes of the lines made here, which the queue does not count
	for _, e := range taken[len(taken)-len(dropped):] {
		extra += int64(len(e.body))
	}
	q.mu.Lock()
	q.bytes += extra
	q.mu.Unlock()
	for _, b := range group(taken, 4*r.cfg.Batch) {
		q.number++
		b.id = "log-" + r.id + strconv.FormatUint(q.number, 10)
		q.batches = append(q.batches, b)
	}
	for len(q.batches) > 0 {
		b := &q.batches[0]
		if err := appendTo(ctx, r.cfg.Logs, b); err != nil {
			return fmt.Errorf("flushing log lines: %w", err)
		}
		q.mu.Lock()
		q.bytes -= int64(len(b.data) - b.count)
		q.mu.Unlock()
		q.batches[0] = batch{}
		q.batches = q.batches[1:]
	}
	return nil
}

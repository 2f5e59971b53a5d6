package cli

import (
	"context"
	"io"
	"log/slog"
	"sync"
	"time"
)

// How long a line of the node's log may wait for others, and how many bytes may.
const (
	gatherFor  = 20 * time.Millisecond
	gatherMost = 64 << 10
)

// nodeLog is where a node of ours logs to that people do not watch line by line: lines
// wait for each other, since under load a write for each request costs as much as the
// rest of its line. Warnings and errors leave at once, with everything before them. A
// terminal gets each line as it comes. flush is to be called at the end; a node that is
// killed may lose what the last gatherFor brought.
func (a *app) nodeLog(w io.Writer, level, format string) (h slog.Handler, flush func(), err error) {
	if a.env.IsTerminal(w) {
		h, err = a.logHandler(w, level, format)
		return h, func() {}, err
	}
	g := &gatherer{dst: w, later: func(f func()) { time.AfterFunc(gatherFor, f) }}
	h, err = a.logHandler(g, level, format)
	return promptHandler{h, g.flush}, g.flush, err
}

// gatherer puts down what is written and passes it on a little later. A fault of dst
// has nobody to be told to, as for any log. Lock order: writing, mu.
type gatherer struct {
	dst   io.Writer
	later func(func()) // has it called soon

	writing sync.Mutex // held while dst is written to, so that the order stays

	mu      sync.Mutex
	pending []byte
	spare   []byte
}

// Write implements io.Writer. It waits only for a reader of the log that falls behind.
func (g *gatherer) Write(p []byte) (int, error) {
	g.mu.Lock()
	first := len(g.pending) == 0
	g.pending = append(g.pending, p...)
	full := len(g.pending) >= gatherMost
	g.mu.Unlock()
	switch {
	case full:
		g.flush()
	case first:
		g.later(g.flush)
	}
	return len(p), nil
}

// flush passes on what was written before it was called.
func (g *gatherer) flush() {
	g.writing.Lock()
	defer g.writing.Unlock()
	g.mu.Lock()
	batch := g.pending
	g.pending, g.spare = g.spare[:0], nil
	g.mu.Unlock()
	if len(batch) > 0 {
		_, _ = g.dst.Write(batch)
	}
	g.mu.Lock()
	if cap(batch) <= 2*gatherMost {
		g.spare = batch[:0]
	}
	g.mu.Unlock()
}

// promptHandler lets what may be the last words leave at once.
type promptHandler struct {
	slog.Handler
	flush func()
}

// Handle implements slog.Handler.
func (h promptHandler) Handle(ctx context.Context, r slog.Record) error {
	err := h.Handler.Handle(ctx, r)
	if r.Level >= slog.LevelWarn {
		h.flush()
	}
	return err
}

// WithAttrs implements slog.Handler.
func (h promptHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return promptHandler{h.Handler.WithAttrs(attrs), h.flush}
}

// WithGroup implements slog.Handler.
func (h promptHandler) WithGroup(name string) slog.Handler {
	return promptHandler{h.Handler.WithGroup(name), h.flush}
}

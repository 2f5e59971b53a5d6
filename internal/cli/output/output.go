// Package output renders what commands say: tables, colours, progress and JSON.
//
// Only package cli imports it. It knows two manners: pretty, for a terminal
// (colours, relative times, short ids), and plain, for a pipe (no escape
// sequence, RFC 3339 times, whole ids). Text that comes from elsewhere, such as
// a function's log, passes through Safe before it reaches a terminal, so that
// nobody can drive a reader's terminal by what they log. A Printer may be used
// from many goroutines; each call writes whole lines.
package output

import (
	"encoding/json"
	"fmt"
	"io"
	"sync"
	"time"
)

// DefaultWidth is used where the terminal does not tell its own.
const DefaultWidth = 100

// Options of a Printer.
type Options struct {
	Out, Err                 io.Writer
	OutTerminal, ErrTerminal bool
	Color                    bool // on those of the two that are terminals
	JSON                     bool
	Width                    int // of the terminal, in cells; 0: DefaultWidth
	Clock                    func() time.Time
}

// Printer writes results to one stream and remarks to another.
type Printer struct {
	o   Options
	out Palette
	err Palette

	mu sync.Mutex // orders whole lines on both streams
}

// New returns a Printer.
func New(o Options) *Printer {
	if o.Width <= 0 {
		o.Width = DefaultWidth
	}
	return &Printer{o: o, out: Palette{o.Color && o.OutTerminal}, err: Palette{o.Color && o.ErrTerminal}}
}

// JSON reports whether results are to be JSON.
func (p *Printer) JSON() bool { return p.o.JSON }

// Pretty reports whether results are read by a person at a terminal.
func (p *Printer) Pretty() bool { return p.o.OutTerminal && !p.o.JSON }

// PrettyErr reports whether remarks are read by a person at a terminal.
func (p *Printer) PrettyErr() bool { return p.o.ErrTerminal }

// Width of the terminal, in cells.
func (p *Printer) Width() int { return p.o.Width }

// Out colours results.
func (p *Printer) Out() Palette { return p.out }

// Err colours remarks.
func (p *Printer) Err() Palette { return p.err }

// Printf writes a result.
func (p *Printer) Printf(format string, args ...any) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	_, err := fmt.Fprintf(p.o.Out, format, args...)
	return err
}

// Write writes part of a result as it stands.
func (p *Printer) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.o.Out.Write(b)
}

// Notef writes a remark. A remark that cannot be written is not worth failing for.
func (p *Printer) Notef(format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	_, _ = fmt.Fprintf(p.o.Err, format, args...) // see above
}

// Value writes v as indented JSON.
func (p *Printer) Value(v any) error {
	e := json.NewEncoder(p)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

// Record writes v as one line of JSON, an element of a stream.
func (p *Printer) Record(v any) error {
	e := json.NewEncoder(p)
	e.SetEscapeHTML(false)
	return e.Encode(v)
}

// Problem writes v, which describes a failure, as JSON among the remarks.
func (p *Printer) Problem(v any) {
	b, err := json.Marshal(v)
	if err != nil {
		b = []byte(`{"error":{"title":"the error cannot be shown"}}`)
	}
	p.Notef("%s\n", b)
}

// Time renders t: how long ago for a person, exactly for a program.
func (p *Printer) Time(t time.Time) string {
	if t.IsZero() {
		return "–"
	}
	if p.Pretty() {
		return Ago(t, p.o.Clock())
	}
	return t.UTC().Format(time.RFC3339)
}

// ID renders a digest: short for a person, whole for a program.
func (p *Printer) ID(id string) string {
	if p.Pretty() {
		return ShortID(id)
	}
	return id
}

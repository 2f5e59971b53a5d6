package output

import (
	"io"
	"strings"
	"sync"
	"time"
)

// frames of the spinner, and how often it turns.
const (
	frames = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
	turn   = 100 * time.Millisecond
)

// Steps shows pieces of work while they run: a spinner for each on a terminal,
// one line for each when it ends otherwise. Close it before anything else
// writes to the same stream.
type Steps struct {
	p *Printer

	mu    sync.Mutex // above Printer.mu
	live  []*Step
	drawn int // lines of live steps on the screen
	frame int

	stop chan struct{}
	done chan struct{}
}

// Step is one piece of work. It ends with exactly one of Done and Fail.
type Step struct {
	s     *Steps
	title string
	start time.Time
}

// Steps begins a display.
func (p *Printer) Steps() *Steps {
	s := &Steps{p: p}
	if p.PrettyErr() {
		s.stop, s.done = make(chan struct{}), make(chan struct{})
		go s.spin()
	}
	return s
}

// Silent is a display of nothing.
func Silent() *Steps {
	return &Steps{p: New(Options{Out: io.Discard, Err: io.Discard, Clock: func() time.Time { return time.Time{} }})}
}

// Start begins a step.
func (s *Steps) Start(title string) *Step {
	st := &Step{s: s, title: title, start: s.p.o.Clock()}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.live = append(s.live, st)
	s.draw("")
	return st
}

// Done ends the step well; detail may be empty.
func (st *Step) Done(detail string) { st.end(st.s.p.err.Good("✓"), "", detail) }

// Fail ends the step badly.
func (st *Step) Fail(detail string) { st.end(st.s.p.err.Bad("✗"), "failed: ", detail) }

func (st *Step) end(mark, word, detail string) {
	s, c := st.s, st.s.p.err
	took := Duration(s.p.o.Clock().Sub(st.start))
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, o := range s.live {
		if o == st {
			s.live = append(s.live[:i], s.live[i+1:]...)
			break
		}
	}
	if !s.p.PrettyErr() {
		if detail != "" {
			detail = ": " + detail
		}
		s.p.Notef("%s%s%s (%s)\n", word, Safe(st.title), Safe(detail), took)
		return
	}
	line := "  " + mark + " " + c.Plain(st.title)
	if detail != "" {
		line += c.Dim("  " + detail)
	}
	s.draw(line + c.Dim("  "+took) + "\n")
}

// Close removes what is still drawn and stops drawing.
func (s *Steps) Close() {
	if s.stop == nil {
		return
	}
	close(s.stop)
	<-s.done
	s.mu.Lock()
	defer s.mu.Unlock()
	s.live = nil
	s.draw("")
	s.stop = nil
}

func (s *Steps) spin() {
	defer close(s.done)
	tick := time.NewTicker(turn)
	defer tick.Stop()
	for {
		select {
		case <-s.stop:
			return
		case <-tick.C:
			s.mu.Lock()
			s.frame++
			s.draw("")
			s.mu.Unlock()
		}
	}
}

// draw replaces the live lines, with ended above them for good. The caller
// holds mu.
func (s *Steps) draw(ended string) {
	if !s.p.PrettyErr() || ended == "" && s.drawn == 0 && len(s.live) == 0 {
		return
	}
	var b strings.Builder
	for range s.drawn {
		b.WriteString("\x1b[1A") // up one line
	}
	b.WriteString("\r\x1b[J" + ended) // clear from here to the end
	spinner := []rune(frames)
	now := s.p.o.Clock()
	for _, st := range s.live {
		took := Duration(now.Sub(st.start))
		title := Truncate(Safe(st.title), max(8, s.p.Width()-len(took)-8))
		b.WriteString("  " + s.p.err.Accent(string(spinner[s.frame%len(spinner)])) + " " + title + s.p.err.Dim("  "+took) + "\n")
	}
	s.drawn = len(s.live)
	s.p.Notef("%s", b.String())
}

package wasm

import (
	"bytes"
	"time"

	"github.com/casemate-dev/casemate/internal/sandbox"
	"github.com/casemate-dev/casemate/internal/sandbox/wire"
)

// answer is the guest's standard output: a head line, then the body.
type answer struct {
	inv   *invocation
	limit int // on the body, in bytes
	buf   []byte
	head  int // length of the head line with its end, 0 until it is complete
}

// write keeps p, or ends the guest when it exceeds what an answer may be.
func (a *answer) write(p []byte) {
	a.inv.check()
	if a.head == 0 {
		end := bytes.IndexByte(p, '\n')
		if len(a.buf)+max(end, 0) > sandbox.MaxHeadLine || end < 0 && len(a.buf)+len(p) > sandbox.MaxHeadLine {
			panic(&stopped{sandbox.BadAnswer})
		}
		if end >= 0 {
			a.head = len(a.buf) + end + 1
		}
	}
	if a.head > 0 && len(a.buf)+len(p)-a.head > a.limit {
		panic(&stopped{sandbox.Output})
	}
	a.buf = append(a.buf, p...)
}

// keepAnswer is the largest buffer kept for the next invocation, in bytes.
const keepAnswer = 256 << 10

func (a *answer) reset() {
	a.head = 0
	if cap(a.buf) > keepAnswer {
		a.buf = nil
	}
	a.buf = a.buf[:0]
}

// logbook is the guest's standard error: lines, kept up to a limit. What exceeds
// it is counted and dropped, and the guest goes on.
type logbook struct {
	inv     *invocation
	limit   int64
	line    []byte // the line that is not complete yet
	frame   []byte // complete lines, encoded
	since   time.Time
	kept    int64 // bytes of text, line ends included
	dropped int64

	early        []byte // written during a boot
	earlyDropped int64
}

// write takes what the guest wrote.
func (l *logbook) write(p []byte) {
	now := l.inv.check()
	if room := l.limit - l.kept; int64(len(p)) > room {
		l.dropped += int64(len(p)) - room
		p = p[:room]
	}
	l.kept += int64(len(p))
	for len(p) > 0 {
		end := bytes.IndexByte(p, '\n')
		piece := p
		if end >= 0 {
			piece = p[:end]
		}
		// A line that is too long is split, so nothing is lost and nothing grows.
		if room := sandbox.MaxLogLine - len(l.line); len(piece) > room {
			piece, end = piece[:room], -1
		}
		l.line = append(l.line, piece...)
		p = p[len(piece):]
		if end >= 0 {
			p = p[1:]
		}
		if end >= 0 || len(l.line) == sandbox.MaxLogLine && len(p) > 0 && p[0] != '\n' {
			l.endLine(now)
		}
	}
}

// keepEarly takes what a guest wrote while it was booted.
func (l *logbook) keepEarly(p []byte) {
	n := min(l.limit-int64(len(l.early)), int64(len(p)))
	l.early = append(l.early, p[:n]...)
	l.earlyDropped += int64(len(p)) - n
}

func (l *logbook) endLine(now time.Time) {
	if len(l.frame)+wire.LineSize(len(l.line)) > wire.MaxPayload {
		l.flush()
	}
	if len(l.frame) == 0 {
		l.since = now
	}
	l.frame = wire.AppendLine(l.frame, now.UnixNano(), l.line)
	l.line = l.line[:0]
}

// flush sends what is complete.
func (l *logbook) flush() {
	if len(l.frame) == 0 {
		return
	}
	// A failed send means that the node has gone, and with it this process.
	_ = l.inv.srv.out.Send(wire.Log, l.inv.stream, l.frame)
	l.frame = l.frame[:0]
}

// flushAfter sends what has waited for longer than d.
func (l *logbook) flushAfter(now time.Time, d time.Duration) {
	if len(l.frame) > 0 && now.Sub(l.since) > d {
		l.flush()
	}
}

// finish sends the rest, the last line included, together with the frame that
// follows it.
func (l *logbook) finish(now time.Time) {
	if len(l.line) > 0 {
		l.endLine(now)
	}
	if len(l.frame) > 0 {
		_ = l.inv.srv.out.Hold(wire.Log, l.inv.stream, l.frame)
		l.frame = l.frame[:0]
	}
}

func (l *logbook) reset() {
	l.line, l.frame, l.early = l.line[:0], l.frame[:0], l.early[:0]
	l.kept, l.dropped, l.earlyDropped = 0, 0, 0
}

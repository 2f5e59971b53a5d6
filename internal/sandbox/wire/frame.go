package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// MaxPayload bounds what one frame carries, in bytes.
const MaxPayload = 64 << 10

// headerSize is the length of a frame's header, in bytes.
const headerSize = 9

// Type says what a frame means.
type Type uint8

// The types of frames. Their numbers are the protocol: they are never reused.
const (
	Ready      Type = 1
	Load       Type = 2
	Code       Type = 3
	Unload     Type = 4
	Loaded     Type = 5
	LoadFailed Type = 6
	Invoke     Type = 7
	Body       Type = 8
	Cancel     Type = 9
	Log        Type = 10
	Result     Type = 11
	Answer     Type = 12
	Failed     Type = 13
	Compiled   Type = 14
	Machine    Type = 15
)

// String names the type, for errors.
func (t Type) String() string {
	names := [...]string{
		Ready: "ready", Load: "load", Code: "code", Unload: "unload", Loaded: "loaded",
		LoadFailed: "load-failed", Invoke: "invoke", Body: "body", Cancel: "cancel",
		Log: "log", Result: "result", Answer: "answer", Failed: "failed", Compiled: "compiled", Machine: "machine",
	}
	if int(t) < len(names) && names[t] != "" {
		return names[t]
	}
	return fmt.Sprintf("type %d", uint8(t))
}

// Frame is one frame as it was read. Payload belongs to the Reader and holds
// until the next call of Next.
type Frame struct {
	Type    Type
	Stream  uint32
	Payload []byte
}

// ErrFrame is matched by every error that means the peer broke the protocol, as
// opposed to the connection having ended.
var ErrFrame = errors.New("protocol broken")

// Reader reads frames. One goroutine may use it.
type Reader struct {
	src        io.Reader
	buf        []byte
	start, end int
}

// NewReader reads frames from src. Its memory is fixed.
func NewReader(src io.Reader) *Reader {
	return &Reader{src: src, buf: make([]byte, headerSize+MaxPayload)}
}

// Next gives the next frame. It fails with io.EOF when the stream ended between
// two frames, io.ErrUnexpectedEOF when it ended within one, and an error that
// matches ErrFrame when the header is not one of ours.
func (r *Reader) Next() (Frame, error) {
	if err := r.fill(headerSize); err != nil {
		return Frame{}, err
	}
	h := r.buf[r.start:]
	n := binary.LittleEndian.Uint32(h)
	t := Type(h[4])
	stream := binary.LittleEndian.Uint32(h[5:])
	if n > MaxPayload {
		return Frame{}, fmt.Errorf("reading frame: %d bytes exceed %d: %w", n, MaxPayload, ErrFrame)
	}
	if t < Ready || t > Machine {
		return Frame{}, fmt.Errorf("reading frame: unknown %v: %w", t, ErrFrame)
	}
	if err := r.fill(headerSize + int(n)); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return Frame{}, err
	}
	p := r.buf[r.start+headerSize : r.start+headerSize+int(n)]
	r.start += headerSize + int(n)
	return Frame{Type: t, Stream: stream, Payload: p}, nil
}

// Buffered reports whether Next will give something without waiting, so that a
// caller who batches knows when to stop.
func (r *Reader) Buffered() bool {
	have := r.buf[r.start:r.end]
	if len(have) < headerSize {
		return false
	}
	n := binary.LittleEndian.Uint32(have)
	return n > MaxPayload || len(have) >= headerSize+int(n)
}

// fill reads until n bytes lie at r.start.
func (r *Reader) fill(n int) error {
	for r.end-r.start < n {
		if r.start > 0 && (r.start == r.end || r.start+n > len(r.buf)) {
			r.end = copy(r.buf, r.buf[r.start:r.end])
			r.start = 0
		}
		m, err := r.src.Read(r.buf[r.end:])
		r.end += m
		if m > 0 {
			continue
		}
		if err == nil {
			continue
		}
		if errors.Is(err, io.EOF) && r.end > r.start {
			return io.ErrUnexpectedEOF
		}
		return err
	}
	return nil
}

// AppendFrame appends a frame to b. The payload must not exceed MaxPayload.
func AppendFrame(b []byte, t Type, stream uint32, payload ...[]byte) []byte {
	n := 0
	for _, p := range payload {
		n += len(p)
	}
	if n > MaxPayload {
		panic(fmt.Sprintf("wire: a %v frame of %d bytes; the caller must cut it", t, n))
	}
	b = binary.LittleEndian.AppendUint32(b, uint32(n))
	b = append(b, byte(t))
	b = binary.LittleEndian.AppendUint32(b, stream)
	for _, p := range payload {
		b = append(b, p...)
	}
	return b
}

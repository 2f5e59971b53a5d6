package sigv4

import (
	"bufio"
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"hash"
	"io"
	"strconv"
	"strings"
)

// Bounds of a body in chunks, in bytes.
const (
	maxChunkLine = 256
	maxTrailer   = 4 << 10
	// MaxChunk is the longest chunk.
	MaxChunk = 1 << 30
)

// BodyError is what is wrong with a body. Reason may be shown.
type BodyError struct{ Reason string }

func (e *BodyError) Error() string { return "reading the body: " + e.Reason }

var (
	errChunk = &BodyError{"the chunks are malformed"}
	errShort = &BodyError{"it ended too early"}
)

// Body gives the content of a body and checks all that the signature covers. What was
// read may be used only after io.EOF: checks come after what they cover. Reading fails
// with an *Error or a *BodyError.
type Body struct {
	s       *Signature
	from    io.Reader // Whole, Unsigned
	in      *bufio.Reader
	sum     hash.Hash // of the body, or of the chunk
	left    int64     // of the chunk
	claimed []byte    // signature of the chunk
	before  []byte    // signature of what came before the chunk
	names   []string  // announced trailers, in lower case
	trailer map[string]string
	err     error
}

// Body wraps the body of a request whose signature is verified. trailers are the names
// that x-amz-trailer announces.
func (s *Signature) Body(r io.Reader, trailers []string) *Body {
	b := &Body{s: s, names: trailers}
	switch s.Payload {
	case Whole:
		b.from, b.sum = r, sha256.New()
	case Unsigned:
		b.from = r
	default:
		b.in, b.before = bufio.NewReaderSize(r, 32<<10), s.given
		if s.Payload != UnsignedChunks {
			b.sum = sha256.New()
		}
		b.left = -1 // no chunk was begun
	}
	return b
}

// Trailer gives the trailers, by name in lower case, after io.EOF.
func (b *Body) Trailer() map[string]string { return b.trailer }

func (b *Body) Read(p []byte) (int, error) {
	if b.err != nil {
		return 0, b.err
	}
	if len(p) == 0 {
		return 0, nil
	}
	var n int
	if b.from != nil {
		n, b.err = b.from.Read(p)
		if b.sum != nil {
			b.sum.Write(p[:n])
			if errors.Is(b.err, io.EOF) && hex.EncodeToString(b.sum.Sum(nil)) != b.s.Digest {
				b.err = &Error{BadDigest, "the body is not the one whose digest was signed"}
			}
		}
		return n, b.err
	}
	n, b.err = b.readChunk(p)
	return n, b.err
}

func (b *Body) readChunk(p []byte) (int, error) {
	if b.left <= 0 {
		if err := b.begin(); err != nil {
			return 0, err
		}
	}
	n, err := b.in.Read(p[:min(int64(len(p)), b.left)])
	if b.sum != nil {
		b.sum.Write(p[:n])
	}
	b.left -= int64(n)
	if err != nil {
		return n, short(err)
	}
	if b.left == 0 {
		return n, b.end()
	}
	return n, nil
}

// begin reads the head of the next chunk; io.EOF is after the last one.
func (b *Body) begin() error {
	line, err := b.line(maxChunkLine)
	if err != nil {
		return err
	}
	size, extension, signed := strings.Cut(line, ";")
	n, err := strconv.ParseUint(size, 16, 31)
	if err != nil || n > MaxChunk || len(size) > 8 || strings.Trim(size, "0123456789abcdefABCDEF") != "" {
		return errChunk
	}
	if b.sum == nil && signed {
		return errChunk
	}
	if b.sum != nil {
		text, ok := strings.CutPrefix(extension, "chunk-signature=")
		if !ok || !isDigest(text) {
			return &Error{Mismatch, "a chunk is not signed"}
		}
		if b.claimed, err = hex.DecodeString(text); err != nil {
			return errChunk
		}
		b.sum.Reset()
	}
	b.left = int64(n)
	if n > 0 {
		return nil
	}
	if b.sum != nil {
		if err := b.checkChunk(); err != nil {
			return err
		}
	}
	return b.finish()
}

// end checks the chunk that was read.
func (b *Body) end() error {
	if b.sum != nil {
		if err := b.checkChunk(); err != nil {
			return err
		}
	}
	var end [2]byte
	if _, err := io.ReadFull(b.in, end[:]); err != nil {
		return short(err)
	}
	if end != [2]byte{'\r', '\n'} {
		return errChunk
	}
	return nil
}

func (b *Body) checkChunk() error {
	toSign := algorithm + "-PAYLOAD\n" + b.s.date + "\n" + b.s.scope() + "\n" + hex.EncodeToString(b.before) + "\n" +
		emptyDigest + "\n" + hex.EncodeToString(b.sum.Sum(nil))
	if !hmac.Equal(b.claimed, sign(b.s.key, toSign)) {
		return &Error{Mismatch, "the signature of a chunk is not that of this chunk in this place"}
	}
	b.before = b.claimed
	return nil
}

// finish reads what is behind the last chunk, up to the end of the body.
func (b *Body) finish() error {
	if b.s.Payload == Chunks {
		if line, err := b.line(0); err != nil || line != "" {
			return errChunk
		}
		return b.atEnd()
	}
	b.trailer = map[string]string{}
	var signed bytes.Buffer
	signature := ""
	for {
		line, err := b.line(maxTrailer)
		if errors.Is(err, errShort) && line == "" && len(b.names) == len(b.trailer) {
			break // some clients leave the empty line out
		}
		if err != nil {
			return err
		}
		if line == "" {
			break
		}
		name, value, ok := strings.Cut(line, ":")
		name, value = strings.ToLower(strings.TrimSpace(name)), strings.TrimSpace(value)
		if name == "x-amz-trailer-signature" {
			if signature != "" || b.s.Payload != ChunksTrailer {
				return errChunk
			}
			signature = value
			continue
		}
		_, twice := b.trailer[name]
		if !ok || twice || !contains(b.names, name) || signature != "" {
			return &BodyError{"it has a trailer that was not announced"}
		}
		b.trailer[name] = value
		signed.WriteString(name + ":" + value + "\n")
	}
	if len(b.trailer) != len(b.names) {
		return &BodyError{"a trailer that was announced is missing"}
	}
	if b.s.Payload == ChunksTrailer {
		sum := sha256.Sum256(signed.Bytes())
		toSign := algorithm + "-TRAILER\n" + b.s.date + "\n" + b.s.scope() + "\n" + hex.EncodeToString(b.before) + "\n" + hex.EncodeToString(sum[:])
		given, err := hex.DecodeString(signature)
		if err != nil || !hmac.Equal(given, sign(b.s.key, toSign)) {
			return &Error{Mismatch, "the signature of the trailer is not that of this trailer"}
		}
	}
	return b.atEnd()
}

func (b *Body) atEnd() error {
	_, err := b.in.ReadByte()
	if err == nil {
		return errChunk
	}
	return err
}

// line reads a line without its end. At most bytes are read before it.
func (b *Body) line(most int) (string, error) {
	var out []byte
	for {
		c, err := b.in.ReadByte()
		if err != nil {
			return string(out), short(err)
		}
		if c == '\n' {
			if len(out) == 0 || out[len(out)-1] != '\r' {
				return "", errChunk
			}
			return string(out[:len(out)-1]), nil
		}
		if len(out) > most {
			return "", errChunk
		}
		out = append(out, c)
	}
}

func short(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return errShort
	}
	return err
}

func contains(list []string, s string) bool {
	for _, l := range list {
		if l == s {
			return true
		}
	}
	return false
}

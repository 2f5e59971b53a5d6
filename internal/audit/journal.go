package audit

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"github.com/casemate-dev/casemate/internal/state"
)

// segmentSize is where a segment ends and the next one begins, in bytes.
const segmentSize = 4 << 20

// keepBuffer is the largest buffer that is kept from one write to the next, in bytes.
const keepBuffer = 1 << 20

// segmentFile is what journal needs of a file; tests put faults in between.
type segmentFile interface {
	Write(p []byte) (int, error)
	Truncate(size int64) error
	Sync() error
	Close() error
}

// journal appends frames to segments. It is not safe for concurrent use.
type journal struct {
	dir    string
	key    []byte
	create func(name string) (segmentFile, error)

	file   segmentFile // nil when the next frame begins a segment
	codec  *codec
	size   int64
	frames uint64 // in the current segment
	next   uint64 // number of the next segment
	before uint64 // frames of the segment before
	closed []uint64
	buf    []byte
	ends   []int // of the frames in buf
}

func createSegment(name string) (segmentFile, error) {
	return os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
}

func segmentName(number uint64) string { return fmt.Sprintf("%016x.journal", number) }

func (j *journal) path(number uint64) string { return filepath.Join(j.dir, segmentName(number)) }

// append writes one frame; see appendAll.
func (j *journal) append(kind byte, body []byte) (position, error) {
	e := [1]entry{{body: body}}
	_, err := j.appendAll(kind, e[:])
	return e[0].at, err
}

// checkBody refuses a record that no frame can hold.
func checkBody(body []byte) error {
	if len(body)+1+tagSize > maxBody {
		return fmt.Errorf("a record of %d bytes is too large for the journal", len(body))
	}
	return nil
}

// appendAll writes a frame for each entry, all with a single write(2), and notes in
// the entries where they are. After an error the first whole of them are in the
// journal, and of the others nothing remains: the file is cut back to the end of the
// last whole frame, or given up and never appended to again.
func (j *journal) appendAll(kind byte, entries []entry) (whole int, err error) {
	for i := range entries {
		if err := checkBody(entries[i].body); err != nil {
			return 0, err
		}
	}
	if j.file != nil && j.size >= segmentSize {
		j.end()
	}
	if j.file == nil {
		if err := j.begin(); err != nil {
			return 0, err
		}
	}
	if cap(j.buf) > keepBuffer {
		j.buf = nil
	}
	j.buf, j.ends = j.buf[:0], j.ends[:0]
	for i := range entries {
		j.buf = j.codec.appendFrame(j.buf, j.frames+uint64(i), kind, entries[i].body)
		j.ends = append(j.ends, len(j.buf))
	}
	n, err := j.file.Write(j.buf)
	for whole < len(entries) && j.ends[whole] <= n {
		entries[whole].at = position{j.codec.number, j.frames}
		j.frames++
		whole++
	}
	if whole > 0 {
		j.size += int64(j.ends[whole-1])
	}
	if err != nil || whole < len(entries) {
		// Cut off what was written of the next frame, so that the segment reads as
		// whole. The segment ends here even when that succeeds: the positions behind
		// were used to seal frames, and a nonce is used once.
		cut := j.file.Truncate(j.size)
		j.end()
		if err == nil {
			err = errors.New("short write")
		}
		return whole, writeFailure(errors.Join(err, cut))
	}
	return whole, nil
}

func writeFailure(err error) error {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return fmt.Errorf("writing the journal: %w: %v", state.ErrFull, err)
	}
	return fmt.Errorf("writing the journal: %v", err)
}

func (j *journal) begin() error {
	salt := make([]byte, saltSize)
	if _, err := rand.Read(salt); err != nil {
		return fmt.Errorf("drawing a salt: %v", err)
	}
	c, err := newCodec(j.key, j.next, j.before, salt)
	if err != nil {
		return err
	}
	name := j.path(j.next)
	f, err := j.create(name)
	if err != nil {
		return writeFailure(err)
	}
	if n, err := f.Write(c.header[:]); err != nil || n < headerSize {
		return writeFailure(errors.Join(err, f.Close(), os.Remove(name)))
	}
	j.file, j.codec, j.size, j.frames = f, c, headerSize, 0
	j.next++
	return nil
}

// end closes the current segment; the next frame begins another.
func (j *journal) end() {
	if j.file == nil {
		return
	}
	_ = j.file.Close() // every frame was written before; nothing is buffered
	j.closed = append(j.closed, j.codec.number)
	j.before, j.file = j.frames, nil
}

// acked notes that all frames before pos are in the stream, and removes the
// segments that hold nothing else.
func (j *journal) acked(pos position) error {
	var body [16]byte
	binary.BigEndian.PutUint64(body[:], pos.segment)
	binary.BigEndian.PutUint64(body[8:], pos.index)
	if _, err := j.append(kindAck, body[:]); err != nil {
		return err
	}
	return j.drop(pos.segment)
}

// drop removes closed segments below number, oldest first, so that those left
// have no gap.
func (j *journal) drop(number uint64) error {
	for len(j.closed) > 0 && j.closed[0] < number {
		if err := os.Remove(j.path(j.closed[0])); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("removing a journal segment: %v", err)
		}
		j.closed = j.closed[1:]
	}
	return nil
}

// remove ends the journal and removes all of its segments.
func (j *journal) remove() error {
	j.end()
	return j.drop(j.next)
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

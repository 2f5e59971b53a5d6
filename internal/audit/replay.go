package audit

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// replayed is what the segments of an earlier run hold.
type replayed struct {
	bodies  [][]byte // of receipts that no acknowledgement covers, in order
	files   []string // sound segments
	corrupt []string // damaged ones
	next    uint64   // number for the next segment
	before  uint64   // frames of the last segment
	torn    string   // the last segment, when a crash cut its last frame short
	whole   int64    // length of the sound part of torn; below headerSize: nothing
	damage  []error  // each a *CorruptError
}

const (
	segmentSuffix = ".journal"
	corruptSuffix = ".corrupt"
)

type segment struct {
	number uint64
	file   string
}

// replay reads the segments in dir. It cuts nothing and removes nothing. Damage
// is in the result; the error is for a directory or file that cannot be read.
func replay(dir string, key []byte) (*replayed, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("reading the journal: %v", err)
	}
	out := &replayed{}
	var segments []segment
	set := map[uint64]bool{} // numbers of segments that were put aside as damaged
	for _, e := range entries {
		name, corrupt := strings.CutSuffix(e.Name(), corruptSuffix)
		var n uint64
		if _, err := fmt.Sscanf(name, "%016x"+segmentSuffix, &n); err != nil || segmentName(n) != name {
			continue
		}
		out.next = max(out.next, n+1)
		if corrupt {
			set[n] = true
		} else {
			segments = append(segments, segment{n, filepath.Join(dir, name)})
		}
	}
	slices.SortFunc(segments, func(a, b segment) int { return cmp.Compare(a.number, b.number) })
	var acked position
	type found struct {
		at   position
		body []byte
	}
	var receipts []found
	var previous *segmentEnd
	for i, s := range segments {
		if s.number > 0 && set[s.number-1] {
			previous = nil
		}
		end, err := out.segment(s, key, i == len(segments)-1, previous, func(f frame) {
			switch {
			case f.kind == kindReceipt:
				receipts = append(receipts, found{position{s.number, f.index}, f.body})
			case f.kind == kindAck && len(f.body) == 16:
				p := position{binary.BigEndian.Uint64(f.body), binary.BigEndian.Uint64(f.body[8:])}
				if acked.before(p) {
					acked = p
				}
			}
		})
		if err != nil {
			return nil, err
		}
		previous = end
	}
	if previous != nil {
		out.before = previous.frames
	}
	for _, f := range receipts {
		if !f.at.before(acked) {
			out.bodies = append(out.bodies, f.body)
		}
	}
	return out, nil
}

// segmentEnd is what the segment after can be checked against.
type segmentEnd struct {
	number, frames uint64
	file           string
	size           int64
}

// segment reads one file.
func (r *replayed) segment(s segment, key []byte, last bool, previous *segmentEnd, each func(frame)) (*segmentEnd, error) {
	data, err := os.ReadFile(s.file)
	if err != nil {
		return nil, fmt.Errorf("reading the journal: %v", err)
	}
	sound := true
	damage := func(offset int, what string) {
		sound = false
		r.damage = append(r.damage, &CorruptError{s.file, int64(offset), what})
	}
	defer func() {
		if sound {
			r.files = append(r.files, s.file)
		} else {
			r.corrupt = append(r.corrupt, s.file)
		}
	}()
	if len(data) < headerSize && last {
		// The crash came before the first record. Its number is used again, so that
		// no gap remains.
		r.next, r.torn, r.whole = s.number, s.file, 0
		return previous, nil
	}
	c, before, err := openCodec(key, data)
	if err != nil && !errors.Is(err, errHeader) {
		return nil, err
	}
	if err != nil || c.number != s.number {
		damage(0, errHeader.Error())
		return nil, nil
	}
	switch {
	case previous == nil: // the ones before are acknowledged and gone, or damage that was reported
	case previous.number+1 != s.number:
		r.damage = append(r.damage, &CorruptError{previous.file, previous.size, fmt.Sprintf("the %d segments after it are missing", s.number-previous.number-1)})
	case previous.frames != before:
		r.damage = append(r.damage, &CorruptError{previous.file, previous.size, fmt.Sprintf("it ends after %d records of %d", previous.frames, before)})
	}
	frames, whole := c.scan(data, each, damage)
	if !sound {
		return nil, nil
	}
	if whole < len(data) {
		if !last {
			damage(whole, "the segment ends within a record, though another follows")
			return nil, nil
		}
		r.torn, r.whole = s.file, int64(whole)
	}
	return &segmentEnd{s.number, frames, s.file, int64(whole)}, nil
}

// cutTail removes what a crash left of an unfinished frame, before a segment
// follows after which it would be damage.
func (r *replayed) cutTail() error {
	if r.torn == "" {
		return nil
	}
	if r.whole < headerSize {
		r.files = slices.DeleteFunc(r.files, func(f string) bool { return f == r.torn })
		if err := os.Remove(r.torn); err != nil {
			return fmt.Errorf("removing an unfinished journal segment: %v", err)
		}
		return nil
	}
	if err := os.Truncate(r.torn, r.whole); err != nil {
		return fmt.Errorf("cutting an unfinished record off the journal: %v", err)
	}
	return nil
}

// discard removes the segments, once their receipts are kept elsewhere. Damaged
// ones are put aside as evidence.
func (r *replayed) discard() error {
	for _, f := range r.files {
		if err := os.Remove(f); err != nil {
			return fmt.Errorf("removing a journal segment: %v", err)
		}
	}
	for _, f := range r.corrupt {
		if err := os.Rename(f, f+corruptSuffix); err != nil {
			return fmt.Errorf("putting a damaged journal segment aside: %v", err)
		}
	}
	return nil
}

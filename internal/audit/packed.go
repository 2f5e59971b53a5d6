package audit

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/klauspost/compress/s2"

	"github.com/casemate-dev/casemate/internal/state"
)

// packed is a stream whose larger records are compressed. The receipts of a function are
// so much alike that a batch shrinks to a ninth. Packing a receipt costs less than the
// seal over it, and it spares the stream most of what copying, sealing and writing it
// cost.
//
// A packed record begins with a byte that no JSON begins with. Others are read as they are.
type packed struct {
	Stream
	room []byte // for packing; belongs to whoever flushes
}

const (
	packedMark = 1        // then a block of S2
	packAbove  = 4 << 10  // bytes; less than that is a page on disk at any rate
	mostPacked = 16 << 20 // bytes that a record may unpack to: far above maxBatchBytes and a line
)

// Append implements Stream.
func (p *packed) Append(ctx context.Context, namespace, function, id string, data []byte) error {
	if len(data) >= packAbove {
		p.room = slices.Grow(p.room[:0], 1+s2.MaxEncodedLen(len(data)))
		data = pack(p.room, data)
	}
	return p.Stream.Append(ctx, namespace, function, id, data)
}

// Read implements Stream.
func (p *packed) Read(ctx context.Context, f state.LogFilter, fn func(state.LogRecord) bool) error {
	var broken error
	err := p.Stream.Read(ctx, f, func(rec state.LogRecord) bool {
		data, err := unpack(rec.Data)
		if err != nil {
			broken = fmt.Errorf("unpacking a record: %w", state.ErrCorrupt)
			return true
		}
		rec.Data = data
		return fn(rec)
	})
	return errors.Join(err, broken)
}

// pack packs data in room, which is large enough.
func pack(room, data []byte) []byte {
	room = append(room[:0], packedMark)
	block := s2.Encode(room[1:cap(room)], data)
	return bytes.Clone(room[:1+len(block)])
}

func unpack(data []byte) ([]byte, error) {
	if len(data) == 0 || data[0] != packedMark {
		return data, nil
	}
	if n, err := s2.DecodedLen(data[1:]); err != nil || n > mostPacked {
		return nil, fmt.Errorf("a block of %d bytes: %v", n, err)
	}
	return s2.Decode(nil, data[1:])
}

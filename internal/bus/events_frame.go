package bus

import (
	"encoding/binary"
	"strconv"
)

// A stored event is a frame around: the sequence of the one before it in its
// channel (8 bytes, big-endian; 0 for none that is known), the length of the id
// (2 bytes, big-endian), the id, the data. The frame's place is the subject and
// the sequence.

const eventHead = 8 + 2

func (e *Events) place(subject string, sequence uint64) string {
	return "events/" + e.cfg.Name + "/" + subject + "/" + strconv.FormatUint(sequence, 10)
}

func (e *Events) frame(subject string, sequence, prev uint64, id string, data []byte) []byte {
	out := make([]byte, frameSize+eventHead, frameSize+eventHead+len(id)+len(data))
	binary.BigEndian.PutUint64(out[frameSize:], prev)
	binary.BigEndian.PutUint16(out[frameSize+8:], uint16(len(id)))
	out = append(append(out, id...), data...)
	out[0] = frameVersion
	copy(out[1:], e.bus.seal.digest(e.place(subject, sequence), out[frameSize:]))
	return out
}

// unframe fills in what is stored in the message; false means that it is not what
// was stored.
func (e *Events) unframe(subject string, sequence uint64, framed []byte) (r EventRecord, ok bool) {
	b, ok := e.bus.seal.open(e.place(subject, sequence), framed)
	if !ok || len(b) < eventHead {
		return r, false
	}
	n := int(binary.BigEndian.Uint16(b[8:]))
	if len(b) < eventHead+n {
		return r, false
	}
	r.Namespace, r.Channel = e.channel(subject)
	r.Sequence, r.prev = sequence, binary.BigEndian.Uint64(b)
	r.ID, r.Data = string(b[eventHead:eventHead+n]), b[eventHead+n:]
	return r, true
}
